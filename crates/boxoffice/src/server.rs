//! The HTTP listener: binds, accepts, and finishes the requests in flight when it stops. It owns the socket and its task.

use std::{io, net::SocketAddr, time::Duration};

use axum::{Router, serve::ListenerExt};
use messaging::ShutdownSwitch;
use tokio::{net::TcpListener, task::JoinHandle};

pub struct Server {
    address: SocketAddr,
    switch: ShutdownSwitch,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting and waits for requests in flight; `false` if some were cut off after `timeout`.
    pub async fn stop(self, timeout: Duration) -> bool {
        self.switch.stop();
        tokio::time::timeout(timeout, self.task).await.is_ok()
    }
}

/// A bound socket that does not serve yet.
pub struct BoundServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundServer {
    /// Binds. The system queues connections until [`BoundServer::serve`].
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn serve(self, router: Router) -> Server {
        let (switch, mut shutdown) = ShutdownSwitch::new();
        // A response is one small write, which Nagle's algorithm would only delay.
        let listener = self.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY on a connection");
            }
        });
        let serving = axum::serve(listener, router)
            .with_graceful_shutdown(async move { shutdown.requested().await });
        Server {
            address: self.address,
            switch,
            task: tokio::spawn(serving.into_future()),
        }
    }
}

/// The address by which a client on this machine reaches a server that listens on `address`.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
