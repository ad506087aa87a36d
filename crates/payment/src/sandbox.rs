//! A payment gateway of our own that speaks the Toss Payments protocol, and misbehaves as it is told: for tests, for
//! the demo, for running everything on one machine without a network, and for anybody who integrates with Toss.
//!
//! It owns one SQLite file: payments, the money that moved, the first answer given to each idempotency key, and the
//! webhooks that are still to be sent. The file survives the death of the process, which is all that a sandbox
//! promises (`synchronous=OFF`: not a power cut). The fault script and its counts live in memory.
//!
//! - `routes`: the gateway's addresses; `control`: the buyer's, the bank's and the tester's
//! - `payment`, `rules`, `windows`: what is decided, pure; `state`: what is stored; `shared`: both together
//! - `faults`: the script, and how an answer is broken; `webhooks`: telling the merchant
//!
//! Where it is more lenient than the live gateway, or stricter, it is so on purpose:
//! - A payment key that it does not know is taken as a card payment of that amount which the buyer has just
//!   authenticated. With `lenient = false` it is not: payments come from `POST /sandbox/payments` only.
//! - A test code answers its error and leaves no trace, so a further attempt with a new idempotency key may succeed.
//! - An idempotency key that comes again with another body is refused (422): the live gateway compares only the key,
//!   the address and the method, and would repeat its answer to the *other* payment. Better that a test notices.
//! - There is no smallest amount, and idempotency keys are forgotten only when the file is opened.
//!
//! `TossPayments-Test-Code` takes any error code of the gateway, and two faults: `SANDBOX_CHARGE_THEN_500` charges
//! and then answers as a failing server does; `SANDBOX_HANG` charges and then answers only after two minutes.

mod control;
mod faults;
mod korea;
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

use messaging::{Clock, Shutdown};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use faults::script::{Fault, On, Rule, Script, ScriptError};

use crate::gateway::SecretKey;
use faults::director::Director;
use faults::wire::{Line, Lines};
use shared::Shared;
use state::{State, movements};
use webhooks::Sender;

/// How long a stopping server waits for its requests: one of them may hang on purpose.
const STOP_WAIT_MAX: Duration = Duration::from_secs(2);

/// What a sandbox is opened with.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// Its file; `None` keeps everything in memory.
    pub path: Option<PathBuf>,
    /// The only secret that it accepts.
    pub secret_key: SecretKey,
    pub clock: Clock,
    /// Whether a payment key that it does not know is taken as a card payment just authenticated.
    pub lenient: bool,
    /// Where webhooks go, by plain http; nowhere where `None`.
    pub webhook_url: Option<String>,
    /// Divides the waits before a webhook is sent again.
    pub webhook_speed: u32,
}

impl SandboxSettings {
    /// In memory, lenient, without webhooks.
    pub fn new(secret_key: SecretKey) -> Self {
        Self {
            path: None,
            secret_key,
            clock: Clock::steady(),
            lenient: true,
            webhook_url: None,
            webhook_speed: 1,
        }
    }
}

/// Why a sandbox could not be opened, or not asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the sandbox's file cannot be used")]
    File(#[source] rusqlite::Error),
    #[error("the sandbox's file was written by another version: move it away, a new one is made")]
    Shape,
    #[error("webhooks go to an address that begins with http://")]
    WebhookUrl,
    #[error("the speed of webhooks must be at least 1")]
    WebhookSpeed,
    #[error("the TLS settings were refused")]
    Tls(#[source] rustls::Error),
    #[error("the HTTP client for webhooks could not be made")]
    Client(#[source] reqwest::Error),
}

/// What the gateway's money adds up to, in minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Books {
    /// Everything that came in.
    pub charged: i64,
    /// Everything that went back: cancellations, and deposits that the bank took back.
    pub refunded: i64,
    /// What is left of all payments that are DONE or PARTIAL_CANCELED; equals `charged - refunded`.
    pub held: i64,
    /// Payments known, paid or not.
    pub payments: i64,
    /// Orders that money came in for more than once, and was not taken back by the bank.
    pub orders_charged_twice: Vec<String>,
}

/// The gateway's double. Cloning it shares its state.
#[derive(Clone)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

impl Sandbox {
    /// Opens or creates the file, and forgets the idempotency keys that are no longer valid.
    ///
    /// # Errors
    /// When the file cannot be opened, is not a sandbox's, or is one of another version; when a setting cannot work.
    pub fn open(settings: SandboxSettings) -> Result<Self, Error> {
        let state = State::open(settings.path.as_deref(), settings.clock.now())
            .map_err(Error::File)?
            .ok_or(Error::Shape)?;
        Ok(Self {
            shared: Arc::new(Shared {
                authorization: settings.secret_key.basic_authorization(),
                state,
                clock: settings.clock,
                lenient: settings.lenient,
                director: Director::default(),
                sender: Sender::new(settings.webhook_url, settings.webhook_speed)?,
            }),
        })
    }

    /// Every address, and `GET /healthz`. Served by anything else than [`Sandbox::serve`], faults that close the
    /// connection without an answer may show the head of one; and webhooks need [`Sandbox::run_webhooks`].
    pub fn router(&self) -> axum::Router {
        routes::router(self.shared.clone())
    }

    /// Listens on an address (port 0: one from the system), answers and sends webhooks until told to stop. Returns
    /// the address, and the server, which ends when the requests under way are answered, or after two seconds.
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
        let sandbox = self.clone();
        let server = tokio::spawn(async move {
            let answering = answer(listener, sandbox.router(), shutdown.clone());
            tokio::join!(answering, sandbox.run_webhooks(shutdown));
        });
        Ok((address, server))
    }

    /// Sends webhooks until told to stop. [`Sandbox::serve`] does it; of several, one sends and the others wait.
    pub async fn run_webhooks(&self, shutdown: Shutdown) {
        webhooks::run(&self.shared, shutdown).await;
    }

    /// From now on webhooks go there; what happens while there is no address is told to nobody.
    ///
    /// # Errors
    /// When it is no http address.
    pub fn send_webhooks_to(&self, url: Option<String>) -> Result<(), Error> {
        self.shared.sender.send_to(url)
    }

    /// Plays this fault script from its beginning, in place of the one before.
    ///
    /// # Errors
    /// When it cannot be played; then nothing has changed.
    pub fn play(&self, script: Script) -> Result<(), ScriptError> {
        script.check()?;
        self.shared.director.play(script);
        Ok(())
    }

    /// # Errors
    /// When the file cannot be read.
    pub fn books(&self) -> Result<Books, Error> {
        self.shared
            .within(|transaction, _| movements::books(transaction))
            .map_err(Error::File)
    }
}

async fn answer(listener: TcpListener, router: axum::Router, shutdown: Shutdown) {
    let told = |mut shutdown: Shutdown| async move { shutdown.requested().await };
    let service = router.into_make_service_with_connect_info::<Line>();
    let serving =
        axum::serve(Lines(listener), service).with_graceful_shutdown(told(shutdown.clone()));
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
