//! A payment gateway of our own that speaks the Toss Payments protocol: for tests, for the demo, and for running
//! everything on one machine without a network.
//!
//! It owns one small SQLite file: charges, cancellations, and the first answer given to each idempotency key. The
//! file survives the death of the process, which is all that a sandbox promises (`synchronous=OFF`: not a power cut).
//!
//! Where it is more lenient than the live gateway, or stricter, it is so on purpose:
//! - A payment key that it does not know is taken as a payment of that amount which the buyer has authenticated: the
//!   window where a card is typed does not exist here.
//! - A test code answers its error and leaves no trace, so a further attempt with a new idempotency key may succeed.
//! - An idempotency key that comes again with another body is refused (422): the live gateway compares only the key,
//!   the address and the method, and would repeat its answer to the *other* payment. Better that a test notices.
//! - There is no smallest amount, and idempotency keys are forgotten only when the file is opened.
//!
//! `TossPayments-Test-Code` takes any error code of the gateway, and two faults: `SANDBOX_CHARGE_THEN_500` charges
//! and then answers as a failing server does; `SANDBOX_HANG` charges and then answers only after two minutes.

mod faults;
mod routes;
mod rules;
mod state;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use jiff::Timestamp;
use messaging::Shutdown;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::gateway::SecretKey;
use state::State;

/// How long a stopping server waits for its requests: one of them may hang on purpose.
const STOP_WAIT_MAX: Duration = Duration::from_secs(2);

/// What a sandbox is opened with.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// Its file; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// The only secret that it accepts.
    pub secret_key: SecretKey,
}

/// Why a sandbox could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the sandbox's file cannot be used")]
    File(#[source] rusqlite::Error),
}

/// The gateway's double. Cloning it shares its state.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    authorization: String,
    state: State,
}

impl Sandbox {
    /// Opens or creates the file, and forgets the idempotency keys that are no longer valid.
    ///
    /// # Errors
    /// When the file cannot be opened, or is not a sandbox's.
    pub fn open(settings: SandboxSettings) -> Result<Self, Error> {
        let state = State::open(settings.path.as_deref(), Timestamp::now()).map_err(Error::File)?;
        Ok(Self {
            shared: Arc::new(Shared {
                authorization: settings.secret_key.basic_authorization(),
                state,
            }),
        })
    }

    /// The gateway's addresses, and `GET /healthz`. Serve it with `TCP_NODELAY`, as the gateway does.
    pub fn router(&self) -> axum::Router {
        routes::router(self.shared.clone())
    }

    /// Listens on an address (port 0: one from the system) and answers until told to stop. Returns the address, and
    /// the server, which ends when the requests under way are answered, or after two seconds.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn serve(
        &self,
        address: SocketAddr,
        shutdown: Shutdown,
    ) -> io::Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = self.router();
        let server = tokio::spawn(async move { run(listener, router, shutdown).await });
        Ok((address, server))
    }
}

async fn run(listener: TcpListener, router: axum::Router, shutdown: Shutdown) {
    let listener = listener.tap_io(|stream| {
        // Without it an answer may wait 40 ms for the caller's acknowledgement; a socket that refuses is only slower.
        let _ = stream.set_nodelay(true);
    });
    let told = |mut shutdown: Shutdown| async move { shutdown.requested().await };
    let serving = axum::serve(listener, router).with_graceful_shutdown(told(shutdown.clone()));
    let patience = async {
        told(shutdown).await;
        tokio::time::sleep(STOP_WAIT_MAX).await;
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "the sandbox has stopped");
            }
        }
        () = patience => {}
    }
}
