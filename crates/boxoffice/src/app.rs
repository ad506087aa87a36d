//! Wires the process: store, bus, services, consumers, HTTP server. Tests start it in their own process with a manual clock.
//!
//! - [`App`] owns everything that runs, and stops from the outside in: it refuses new requests and finishes those in
//!   flight, then workers and timers finish their batch, then the store writes what was submitted and closes.
//! - [`HeadlessApp`] is the same without the HTTP server, for commands that need running services.

use std::{fs, io::ErrorKind, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use axum::Router;
use messaging::{
    Bus, Clock, Metrics, Random, Record, Runner, Running, Store, Table, WorkerContext,
};
use payment::gateway_binding::BindPolicy;
use prometheus_client::registry::Registry;
use utoipa_axum::router::OpenApiRouter;
use web::idempotency::AnswerRecord;

use crate::{
    backends,
    config::Config,
    http,
    log::Log,
    server::{BoundServer, Server},
    services::Service,
    wiring,
};

/// In the data folder while a server has it open: that server's address.
pub const ADDRESS_FILE: &str = "server.addr";

/// The running process.
pub struct App {
    server: Server,
    headless: HeadlessApp,
    address_file: PathBuf,
}

/// The running process without an HTTP server.
pub struct HeadlessApp {
    payment: Option<payment::Service>,
    running: Running,
    store: Store,
    bus: Bus,
    shutdown_timeout: Duration,
}

/// The tables of all services.
#[must_use]
pub fn tables() -> Vec<&'static Table> {
    [
        messaging::TABLES,
        &[AnswerRecord::TABLE],
        event::TABLES,
        user::TABLES,
        payment::TABLES,
        ticketing::TABLES,
    ]
    .concat()
}

impl App {
    /// Opens the store, starts the services and binds; the server answers when this returns.
    ///
    /// # Errors
    /// If the data folder or the address cannot be used, or a setting is invalid.
    pub async fn start(config: Config, clock: Clock, random: Random) -> anyhow::Result<Self> {
        Self::start_with(config, clock, random, Router::new()).await
    }

    /// Like [`App::start`], for a process of its own: with the system's clock, and a metric of lost log lines.
    ///
    /// # Errors
    /// See [`App::start`].
    pub async fn serve(config: Config, log: &Log) -> anyhow::Result<Self> {
        let mut registry = new_registry();
        let help = "Log lines that could not be written";
        registry.register("log_lines_lost", help, log.lost_lines());
        let (clock, random) = (Clock::steady(), Random::System);
        Self::start_on(config, clock, random, Router::new(), registry).await
    }

    /// Like [`App::start`], with more routes behind the same guard, for tests of the guard.
    ///
    /// # Errors
    /// See [`App::start`].
    pub async fn start_with(
        config: Config,
        clock: Clock,
        random: Random,
        extra: Router,
    ) -> anyhow::Result<Self> {
        Self::start_on(config, clock, random, extra, new_registry()).await
    }

    async fn start_on(
        config: Config,
        clock: Clock,
        random: Random,
        extra: Router,
        mut registry: Registry,
    ) -> anyhow::Result<Self> {
        backends::create_folder(&config.data)?;
        let context = open(&config, clock, random, &mut registry, BindPolicy::Any).await?;
        let listen = config.listen;
        let bound = BoundServer::bind(listen).await.with_context(|| {
            format!(
                "cannot bind {listen}; choose another address with --listen or the setting listen"
            )
        })?;
        // Replaces port 0 by the actual port.
        let config = Config {
            listen: bound.address(),
            ..config
        };
        let (headless, router) = HeadlessApp::start_over(&config, context, registry, extra).await?;
        let server = bound.serve(router);
        let address_file = config.data.join(ADDRESS_FILE);
        fs::write(&address_file, server.address().to_string())
            .with_context(|| format!("cannot write {}", address_file.display()))?;
        Ok(Self {
            server,
            headless,
            address_file,
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `http://ADDR:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.headless.store
    }

    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.headless.bus
    }

    /// Resolves with the reason once it can no longer work: the store or the bus has failed, or a task has ended.
    pub async fn failed(&mut self) -> String {
        let HeadlessApp {
            store,
            bus,
            running,
            ..
        } = &mut self.headless;
        tokio::select! {
            reason = store.failed() => format!("the store has failed: {reason}"),
            reason = bus.failed() => format!("the bus has failed: {reason}"),
            reason = running.ended() => reason,
        }
    }

    /// Finishes the accepted requests, and closes the store. Requests that do not finish in time are cut off without an
    /// answer; a Commit is applied completely or not at all.
    pub async fn stop(self) {
        let timeout = self.headless.shutdown_timeout;
        if !self.server.stop(timeout).await {
            tracing::warn!(?timeout, "requests in flight were cut off");
        }
        // Another process that shares the folder may have removed it.
        if let Err(error) = fs::remove_file(&self.address_file)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %self.address_file.display(), "cannot remove the address file");
        }
        self.headless.stop().await;
    }
}

impl HeadlessApp {
    /// Opens the store and starts the services, with the system's clock. A store that does not name its gateway does not
    /// adopt the built-in sandbox.
    ///
    /// # Errors
    /// If the store cannot be opened, or a setting is invalid.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let (clock, random, mut registry) = (Clock::steady(), Random::System, new_registry());
        let context = open(
            config,
            clock,
            random,
            &mut registry,
            BindPolicy::ConfiguredOnly,
        )
        .await?;
        let (app, _) = Self::start_on(config, context, &mut registry).await?;
        Ok(app)
    }

    /// Starts the services over a store and a bus that the caller has opened. The routes, which are returned too, need no
    /// server; `extra` are undocumented ones behind the same guard.
    ///
    /// # Errors
    /// If a setting is invalid.
    pub async fn start_over(
        config: &Config,
        context: WorkerContext,
        mut registry: Registry,
        extra: Router,
    ) -> anyhow::Result<(Self, Router)> {
        let (headless, services) = Self::start_on(config, context.clone(), &mut registry).await?;
        let parts = http::Parts {
            store: context.store,
            bus: context.bus,
            clock: context.clock,
            random: context.random,
            registry,
            handles: headless.running.handles(),
            settings: config.http.clone(),
        };
        let router = http::router(parts, services, extra);
        Ok((headless, router))
    }

    /// Returns the services' routes too.
    async fn start_on(
        config: &Config,
        context: WorkerContext,
        registry: &mut Registry,
    ) -> anyhow::Result<(Self, OpenApiRouter)> {
        let (store, bus) = (context.store.clone(), context.bus.clone());
        let mut runner = Runner::with_context(context);
        let (services, payment) = wiring::start_services(config, &mut runner, registry).await?;
        if config.services.has(Service::DeadLetter) {
            runner.dead_letters();
        }
        let running = runner
            .cleaning(config.cleaning(), wiring::retentions(config))
            .start()?;
        let app = Self {
            payment,
            running,
            store,
            bus,
            shutdown_timeout: Duration::from_millis(config.http.shutdown_timeout_millis),
        };
        Ok((app, services))
    }

    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Resolves with the reason when a task has ended, which none does before the stop.
    pub async fn ended(&mut self) -> String {
        self.running.ended().await
    }

    /// The payment service, if this process runs it.
    #[must_use]
    pub fn payment(&self) -> Option<&payment::Service> {
        self.payment.as_ref()
    }

    /// Finishes the work in hand, and closes the store.
    pub async fn stop(self) {
        let timeout = self.shutdown_timeout;
        // If a buyer disconnects while the gateway confirms, the gateway's answer is still recorded.
        if let Some(payment) = self.payment
            && tokio::time::timeout(timeout, payment.drained())
                .await
                .is_err()
        {
            tracing::warn!(?timeout, "requests to the gateway were cut off");
        }
        for name in self.running.stop(timeout).await {
            tracing::warn!(name, ?timeout, "a task did not stop in time");
        }
        if tokio::time::timeout(timeout, self.bus.close())
            .await
            .is_err()
        {
            tracing::warn!(
                ?timeout,
                "not all messages were published; the relay of another process publishes them"
            );
        }
        let mut committed = self.store.committed();
        // A bus in the store holds it too.
        drop((self.bus, self.store));
        // The tasks of connections release the store shortly after their last response.
        let closed = async { while committed.changed().await.is_ok() {} };
        if tokio::time::timeout(timeout, closed).await.is_err() {
            tracing::warn!("the store is still in use");
        }
    }
}

/// Opens the store and the bus, and checks that the payments belong to the gateway of the settings.
async fn open(
    config: &Config,
    clock: Clock,
    random: Random,
    registry: &mut Registry,
    policy: BindPolicy,
) -> anyhow::Result<WorkerContext> {
    let metrics = Metrics::register(registry);
    let store = backends::open_store(config, metrics.clone())
        .await
        .context("cannot open the store")?;
    if config.services.has_payment() {
        payment::gateway_binding::bind(&store, &config.payment, policy, clock.now()).await?;
    }
    let bus = backends::open_bus(config, &store).await?;
    Ok(WorkerContext {
        store,
        bus,
        clock,
        random,
        metrics,
        dead_letters: config.messaging.dead_letters(),
    })
}

fn new_registry() -> Registry {
    Registry::with_prefix("boxoffice")
}
