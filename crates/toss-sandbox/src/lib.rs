#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! It owns one SQLite file: payments, the money that moved, the first answer to each idempotency key, and the webhooks
//! that are still to be sent. The fault script and its counters live in memory.
//!
//! - `routes`: the gateway's API; `control`: the API for the buyer, the bank and the tester
//! - `payment`, `rules`, `windows`: decisions, pure; `state`: the file; `shared`: how a change is committed
//! - `faults`: the fault script, and how an answer is broken; `webhooks`: deliveries to the merchant
//! - [`clock`]: the time

pub mod clock;
mod control;
mod faults;
mod payment;
mod routes;
mod rules;
mod shared;
mod state;
mod webhooks;
mod windows;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared as SharedFuture};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use toss::SecretKey;

pub use clock::{Clock, ManualClock, SystemClock};
pub use faults::script::{Fault, FaultRule, FaultScript, FaultScriptError, FaultTarget};

use faults::connection::ConnectionCutter;
use faults::injector::FaultInjector;
use shared::Shared;
use state::{State, movements};
use webhooks::WebhookSender;

/// Resolves when the sandbox is to stop.
type Shutdown = SharedFuture<BoxFuture<'static, ()>>;

/// How long a stopping server waits for its requests: a fault may make one of them hang.
const STOP_WAIT_MAX: Duration = Duration::from_secs(2);

/// The settings of a sandbox.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// Its SQLite file; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// The only secret key that it accepts.
    pub secret_key: SecretKey,
    pub clock: Arc<dyn Clock>,
    /// Whether confirm accepts an unknown payment key, as a card payment that was just authenticated.
    pub lenient: bool,
    /// The address of webhooks, http only; `None`: none are sent.
    pub webhook_url: Option<String>,
    /// Divides the waits before the retries of a webhook.
    pub webhook_speed: u32,
}

impl SandboxSettings {
    /// In memory, lenient, without webhooks.
    pub fn new(secret_key: SecretKey) -> Self {
        Self {
            path: None,
            secret_key,
            clock: Arc::new(SystemClock::default()),
            lenient: true,
            webhook_url: None,
            webhook_speed: 1,
        }
    }
}

/// Why a sandbox cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot use the file of the sandbox")]
    File(#[source] rusqlite::Error),
    #[error(
        "another version wrote the file of the sandbox: move it away, and a new one is created"
    )]
    SchemaVersion,
    #[error("the address of webhooks must begin with http://")]
    WebhookUrl,
    #[error("the speed of webhooks must be at least 1")]
    WebhookSpeed,
    #[error("the TLS settings were refused")]
    Tls(#[source] rustls::Error),
    #[error("the HTTP client for webhooks could not be made")]
    Client(#[source] reqwest::Error),
}

/// The totals over all payments, in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// The sum of all charges.
    pub charged: i64,
    /// The sum of all cancellations and of deposits that the bank reversed.
    pub refunded: i64,
    /// The balances of all payments that are DONE or PARTIAL_CANCELED; equals `charged - refunded`.
    pub held: i64,
    /// The number of payments, paid or not.
    pub payments: i64,
    /// Orders with more than one charge that the bank did not reverse.
    pub orders_charged_twice: Vec<String>,
}

/// The double of the gateway. Clones share its state.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

impl Sandbox {
    /// Opens or creates the file, and deletes expired idempotency keys.
    ///
    /// # Errors
    /// If the file cannot be opened or has another schema; if a setting cannot work.
    pub fn open(settings: SandboxSettings) -> Result<Self, Error> {
        let state = State::open(settings.path.as_deref(), settings.clock.now())
            .map_err(Error::File)?
            .ok_or(Error::SchemaVersion)?;
        Ok(Self {
            shared: Arc::new(Shared {
                authorization: settings.secret_key.basic_authorization(),
                state,
                clock: settings.clock,
                lenient: settings.lenient,
                faults: FaultInjector::default(),
                sender: WebhookSender::new(settings.webhook_url, settings.webhook_speed)?,
            }),
        })
    }

    /// All routes, and `GET /healthz`. Under another server than [`Sandbox::serve`], a fault that closes the connection
    /// without an answer may send the head of one; and only [`Sandbox::run_webhooks`] sends webhooks.
    pub fn router(&self) -> axum::Router {
        routes::router(self.shared.clone())
    }

    /// Serves on an address (port 0: the system chooses one) and sends webhooks until `shutdown` resolves. Returns the
    /// address, and the server task, which ends when the requests in flight are answered, or after two seconds.
    ///
    /// # Errors
    /// If it cannot bind the address.
    pub async fn serve(
        &self,
        address: SocketAddr,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<(SocketAddr, JoinHandle<()>)> {
        let shutdown: Shutdown = shutdown.boxed().shared();
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let sandbox = self.clone();
        let server = tokio::spawn(async move {
            let answering = answer(listener, sandbox.router(), shutdown.clone());
            tokio::join!(answering, sandbox.run_webhooks(shutdown));
        });
        Ok((address, server))
    }

    /// Sends webhooks until `shutdown` resolves, as [`Sandbox::serve`] does. Of several such tasks, one sends and the
    /// others wait.
    pub async fn run_webhooks(&self, shutdown: impl Future<Output = ()>) {
        webhooks::run(&self.shared, shutdown).await;
    }

    /// Sends webhooks to this address from now on. A change while there is no address causes no webhook.
    ///
    /// # Errors
    /// If the address is not http.
    pub fn send_webhooks_to(&self, url: Option<String>) -> Result<(), Error> {
        self.shared.sender.send_to(url)
    }

    /// Replaces the fault script, and resets its counters.
    ///
    /// # Errors
    /// If the script is invalid; nothing is changed.
    pub fn set_faults(&self, script: FaultScript) -> Result<(), FaultScriptError> {
        script.check()?;
        self.shared.faults.load(script);
        Ok(())
    }

    /// # Errors
    /// If the file cannot be read.
    pub fn totals(&self) -> Result<Totals, Error> {
        self.shared
            .within(|transaction, _| movements::totals(transaction))
            .map_err(Error::File)
    }
}

async fn answer(listener: TcpListener, router: axum::Router, shutdown: Shutdown) {
    let service = router.into_make_service_with_connect_info::<ConnectionCutter>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone());
    let deadline = async {
        shutdown.await;
        tokio::time::sleep(STOP_WAIT_MAX).await;
    };
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "the server of the sandbox has failed");
            }
        }
        () = deadline => {}
    }
}
