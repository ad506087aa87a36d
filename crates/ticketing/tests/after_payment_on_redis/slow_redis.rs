//! A connection to Redis that holds requests back.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
};

/// More requests than a test sends.
const ALL: usize = 10_000;

/// Each request needs a permit to pass. A request is small, and arrives in one piece.
pub struct SlowRedis {
    pub url: String,
    permits: Arc<Semaphore>,
    held: Arc<Notify>,
}

impl SlowRedis {
    /// A connection to the server of this URL.
    pub async fn connect(server_url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let address = server_url
            .trim_start_matches("redis://")
            .trim_end_matches('/');
        let there = address.rsplit('@').next().unwrap().to_owned();
        let slow = Self {
            url: server_url.replace(&there, &here),
            permits: Arc::new(Semaphore::new(ALL)),
            held: Arc::default(),
        };
        let (permits, held) = (Arc::clone(&slow.permits), Arc::clone(&slow.held));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&there).await.unwrap();
                let (permits, held) = (Arc::clone(&permits), Arc::clone(&held));
                tokio::spawn(async move { carry(client, server, &permits, &held).await });
            }
        });
        slow
    }

    /// Passes one more request, and holds the one after it.
    pub fn hold_second(&self) {
        self.permits.forget_permits(ALL);
        self.permits.add_permits(1);
    }

    /// Returns when a request is held.
    pub async fn is_holding(&self) {
        self.held.notified().await;
    }

    pub fn pass_all(&self) {
        self.permits.add_permits(ALL);
    }
}

/// Carries bytes both ways until an end goes away.
async fn carry(client: TcpStream, server: TcpStream, permits: &Semaphore, held: &Notify) {
    let (mut client_reads, mut client_writes) = client.into_split();
    let (mut server_reads, mut server_writes) = server.into_split();
    let requests = async {
        let mut bytes = vec![0; 65_536];
        while let Ok(length @ 1..) = client_reads.read(&mut bytes).await {
            if permits.available_permits() == 0 {
                held.notify_one();
            }
            permits.acquire().await.unwrap().forget();
            server_writes.write_all(&bytes[..length]).await.unwrap();
        }
    };
    let answers = tokio::io::copy(&mut server_reads, &mut client_writes);
    tokio::select! {
        () = requests => {}
        _ = answers => {}
    }
}
