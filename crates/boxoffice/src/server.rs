//! The HTTP server: binds, accepts, and on the word to stop finishes what it has accepted.

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
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, and waits for requests in flight; `false` where some were cut off after `patience`.
    pub async fn stop(self, patience: Duration) -> bool {
        self.switch.stop();
        tokio::time::timeout(patience, self.task).await.is_ok()
    }
}

/// A server that has its address.
pub struct BoundServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundServer {
    /// Binds; connections are taken from here on, and answered after [`BoundServer::serve`].
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn serve(self, router: Router) -> Server {
        let (switch, mut shutdown) = ShutdownSwitch::new();
        // An answer is one small write: waiting for more to send (Nagle) would only delay it.
        let listener = self.listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "a connection stays without TCP_NODELAY");
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

/// Where a client on this machine finds a server that listens on `address`, which may mean every address.
#[must_use]
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
