//! A minimal HTTP client, so that the load costs little: one keep-alive connection per process, one request at a time.

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The largest response, head and body together.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// The addresses of the services of one copy of the program: all the same, or one each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub event: String,
    pub user: String,
    pub ticketing: String,
    pub payment: String,
}

impl Addresses {
    /// Everything in one process.
    pub fn one(address: &str) -> Self {
        let [event, user, ticketing, payment] = [(); 4].map(|()| address.to_owned());
        Self {
            event,
            user,
            ticketing,
            payment,
        }
    }

    /// Routes by path, as a proxy in front of the services does.
    fn of(&self, path: &str) -> &str {
        match path {
            path if path.starts_with("/event") => &self.event,
            path if path.starts_with("/user") => &self.user,
            path if path.starts_with("/payment") => &self.payment,
            _ => &self.ticketing,
        }
    }
}

pub struct Client {
    addresses: Addresses,
    /// Opened on first use.
    connections: Vec<(String, Connection)>,
}

impl Client {
    pub fn new(addresses: Addresses) -> Self {
        Self {
            addresses,
            connections: Vec::new(),
        }
    }

    /// The connection to the service of this path.
    async fn to(&mut self, path: &str) -> anyhow::Result<&mut Connection> {
        let address = self.addresses.of(path);
        let known = self.connections.iter().position(|(to, _)| to == address);
        let place = match known {
            Some(place) => place,
            None => {
                let connection = Connection::open(address).await?;
                self.connections.push((address.to_owned(), connection));
                self.connections.len() - 1
            }
        };
        Ok(&mut self.connections[place].1)
    }

    pub async fn post(&mut self, path: &str, body: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.to(path).await?.ask(&request).await
    }

    pub async fn get(&mut self, path: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.to(path).await?.ask(&request).await
    }

    /// Fails if the response has another status than `expected`.
    pub async fn post_json(
        &mut self,
        path: &str,
        body: &Value,
        expected: u16,
    ) -> anyhow::Result<Value> {
        let (status, answer) = self.post(path, &body.to_string()).await?;
        if status != expected {
            bail!(
                "POST {path} {body} was answered {status}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(serde_json::from_slice(&answer)?)
    }

    pub async fn get_json(&mut self, path: &str) -> anyhow::Result<Value> {
        let (status, answer) = self.get(path).await?;
        if status != 200 {
            bail!(
                "GET {path} was answered {status}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(serde_json::from_slice(&answer)?)
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    async fn ask(&mut self, request: &str) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> anyhow::Result<(u16, Vec<u8>)> {
        self.buffer.clear();
        let head_end = loop {
            if let Some(place) = find(&self.buffer, b"\r\n\r\n") {
                break place + 4;
            }
            self.read_more().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..head_end])
            .context("the response's head is not UTF-8")?;
        let status = head
            .get(9..12)
            .and_then(|text| text.parse().ok())
            .context("the response has no status")?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(Ok(0), str::parse::<usize>)
            .context("the response's content-length is not a number")?;
        while self.buffer.len() < head_end + length {
            self.read_more().await?;
        }
        Ok((status, self.buffer[head_end..head_end + length].to_vec()))
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        if self.buffer.len() > ANSWER_BYTES_MAX {
            bail!("the response is longer than {ANSWER_BYTES_MAX} bytes");
        }
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
