//! A TCP proxy between one process and one engine, so that the network between two machines can fail too. It owns its
//! port, its connections and their condition.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

const CHUNK_BYTES: usize = 16_384;
/// The runtime of all proxies. They outlive the test that needed them first.
static PROXY_RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The condition of all connections of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkCondition {
    Normal,
    /// All connections are reset, new ones at once.
    Cut,
    /// Connections stay open and no data passes; it passes afterwards, as TCP would retransmit it.
    BlackHole,
    /// All data is delayed by this time.
    Slow(Duration),
}

type Target = Arc<dyn Fn() -> Option<SocketAddr> + Send + Sync>;

pub struct Proxy {
    pub address: SocketAddr,
    condition: watch::Sender<NetworkCondition>,
    target: Arc<Mutex<Target>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the address that `target` returns for each connection; without an address, connections are reset.
    pub fn open(target: impl Fn() -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let condition = watch::Sender::new(NetworkCondition::Normal);
        let target: Target = Arc::new(target);
        let target = Arc::new(Mutex::new(target));
        let routes = PROXY_RUNTIME.get_or_init(|| {
            let mut routes = tokio::runtime::Builder::new_multi_thread();
            routes.worker_threads(1).enable_all().build().unwrap()
        });
        let (conditions, current) = (condition.subscribe(), Arc::clone(&target));
        let listening = routes.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    let target = Arc::clone(&current.lock().unwrap());
                    tokio::spawn(forward(client, target(), conditions.clone()));
                }
            }
        });
        Self {
            address,
            condition,
            target,
            listening,
        }
    }

    /// The target of new connections.
    pub fn set_target(&self, address: SocketAddr) {
        *self.target.lock().unwrap() = Arc::new(move || Some(address));
    }

    pub fn set_condition(&self, condition: NetworkCondition) {
        self.condition.send_replace(condition);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.set_condition(NetworkCondition::Cut);
    }
}

/// Forwards one connection to its end.
async fn forward(
    mut client: TcpStream,
    target: Option<SocketAddr>,
    mut condition: watch::Receiver<NetworkCondition>,
) {
    let server = match target {
        Some(target) if *condition.borrow() != NetworkCondition::Cut => {
            TcpStream::connect(target).await.ok()
        }
        _ => None,
    };
    let Some(mut server) = server else {
        return reset(client);
    };
    // Small packets are not delayed.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = copy(from_client, to_server, condition.clone()) => false,
            _ = copy(from_server, to_client, condition.clone()) => false,
            _ = condition.wait_for(|it| *it == NetworkCondition::Cut) => true,
        }
    };
    if is_cut {
        reset(client);
        reset(server);
    }
}

fn reset(stream: TcpStream) {
    // Fails if the peer has closed it first.
    let _ = stream.set_zero_linger();
}

/// Copies one direction until it ends.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut condition: watch::Receiver<NetworkCondition>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        let passing = condition
            .wait_for(|it| *it != NetworkCondition::BlackHole)
            .await;
        let now = passing.map_or(NetworkCondition::Cut, |it| *it);
        if let NetworkCondition::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if count == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..count]).await?;
    }
}
