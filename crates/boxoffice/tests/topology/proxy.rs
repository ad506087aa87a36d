//! A road between one process and one engine: a TCP proxy, so that what is between two machines can fail, and not only
//! the machines. It owns its port, its connections and the weather on them.

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
/// Roads outlive the test that needed them first.
static ROADS: OnceLock<Runtime> = OnceLock::new();

/// What becomes of everything on a road.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Connections are reset, new ones at once.
    Cut,
    /// Connections stay, and nothing passes; what was sent passes when it is over, as TCP would send it again.
    BlackHole,
    /// Everything is so much later.
    Slow(Duration),
}

type Goal = Arc<dyn Fn() -> Option<SocketAddr> + Send + Sync>;

pub struct Proxy {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    goal: Arc<Mutex<Goal>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A road to wherever `goal` says for each connection; while it says nowhere, connections are reset.
    pub fn open(goal: impl Fn() -> Option<SocketAddr> + Send + Sync + 'static) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather::Fair);
        let goal: Goal = Arc::new(goal);
        let goal = Arc::new(Mutex::new(goal));
        let roads = ROADS.get_or_init(|| {
            let mut roads = tokio::runtime::Builder::new_multi_thread();
            roads.worker_threads(1).enable_all().build().unwrap()
        });
        let (forecast, target) = (weather.subscribe(), Arc::clone(&goal));
        let listening = roads.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    let goal = Arc::clone(&target.lock().unwrap());
                    tokio::spawn(carry(client, goal(), forecast.clone()));
                }
            }
        });
        Self {
            address,
            weather,
            goal,
            listening,
        }
    }

    /// New connections go there from now on.
    pub fn lead_to(&self, address: SocketAddr) {
        *self.goal.lock().unwrap() = Arc::new(move || Some(address));
    }

    pub fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.turn(Weather::Cut);
    }
}

/// One connection, to its end.
async fn carry(
    mut client: TcpStream,
    goal: Option<SocketAddr>,
    mut weather: watch::Receiver<Weather>,
) {
    let server = match goal {
        Some(goal) if *weather.borrow() != Weather::Cut => TcpStream::connect(goal).await.ok(),
        _ => None,
    };
    let Some(mut server) = server else {
        return reset(client);
    };
    // What is sent in small pieces is not kept for more.
    let _ = client.set_nodelay(true).and(server.set_nodelay(true));
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = pass(from_client, to_server, weather.clone()) => false,
            _ = pass(from_server, to_client, weather.clone()) => false,
            _ = weather.wait_for(|it| *it == Weather::Cut) => true,
        }
    };
    if is_cut {
        reset(client);
        reset(server);
    }
}

fn reset(stream: TcpStream) {
    // Fails where the other side was faster.
    let _ = stream.set_zero_linger();
}

/// One direction, until it ends.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        let passing = weather.wait_for(|it| *it != Weather::BlackHole).await;
        let now = passing.map_or(Weather::Cut, |it| *it);
        if let Weather::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if count == 0 {
            return Ok(());
        }
        to.write_all(&chunk[..count]).await?;
    }
}
