//! Wires the process: store, bus, services, consumers, HTTP server. Tests start it in their own process with a manual clock.
//!
//! - [`App`] owns everything that runs, and stops from the outside in: it refuses new requests and finishes those in
//!   flight, then workers and timers finish their batch, then the store writes what was submitted and closes.
//! - [`HeadlessApp`] is the same without the HTTP server, for commands that need running services.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use messaging::{
    Bus, Clock, Metrics, Random, Record, Runner, Running, Store, Table, WorkerContext,
    dead_letters::DeadLetterRecord, housekeeping::Expiry,
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
    server::{BoundServer, Server, reachable},
    services::Service,
};

/// In the data folder while a server has it open: that server's address.
pub const ADDRESS_FILE: &str = "server.addr";
/// In the data folder: the charges of the built-in sandbox.
pub(crate) const SANDBOX_FILE: &str = "gateway.db";
/// The secret key of the built-in sandbox; valid nowhere else.
pub(crate) const SANDBOX_SECRET: &str = "test_sk_sandbox";

/// The built-in sandbox retries webhooks after seconds, not minutes.
const SANDBOX_WEBHOOK_SPEED: u32 = 60;

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
        let context = open(&config, clock, random, &mut registry, BindPolicy::Any).await?;
        create_data_folder(&config)?;
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
        let (headless, services) =
            HeadlessApp::start_on(&config, context.clone(), &mut registry).await?;
        let parts = http::Parts {
            store: context.store,
            bus: context.bus,
            clock: context.clock,
            random: context.random,
            registry,
            handles: headless.running.handles(),
            settings: config.http.clone(),
        };
        let server = bound.serve(http::router(parts, services, extra));
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

    /// Returns the services' routes too.
    async fn start_on(
        config: &Config,
        context: WorkerContext,
        registry: &mut Registry,
    ) -> anyhow::Result<(Self, OpenApiRouter)> {
        let (store, bus) = (context.store.clone(), context.bus.clone());
        let mut runner = Runner::with_context(context);
        let (services, payment) = start_services(config, &mut runner, registry).await?;
        if config.services.has(Service::DeadLetter) {
            runner.dead_letters();
        }
        let running = runner
            .cleaning(config.cleaning(), expiries(config))
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
        if tokio::time::timeout(timeout, backends::close_bus(self.bus))
            .await
            .is_err()
        {
            tracing::warn!(
                ?timeout,
                "not all messages were published; the relay of another process publishes them"
            );
        }
        let mut committed = self.store.committed();
        drop(self.store);
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

fn create_data_folder(config: &Config) -> anyhow::Result<()> {
    fs::create_dir_all(&config.data)
        .map_err(|error| anyhow::anyhow!(messaging::sqlite::no_folder(&config.data, &error)))
}

fn new_registry() -> Registry {
    Registry::with_prefix("boxoffice")
}

/// Starts the services of this process with their consumers and periodic tasks, and returns their routes.
async fn start_services(
    config: &Config,
    runner: &mut Runner,
    registry: &mut Registry,
) -> anyhow::Result<(OpenApiRouter, Option<payment::Service>)> {
    let context = runner.context().clone();
    let has = |service| config.services.has(service);
    let mut routes = OpenApiRouter::new();
    if has(Service::Event) {
        let event = event::Service::new(context.store.clone(), context.clock.clone());
        routes = routes.merge(event::http::router(event));
    }
    if has(Service::User) {
        let (store, clock) = (context.store.clone(), context.clock.clone());
        let user = user::Service::new(store, clock, config.user.clone());
        runner.consumer(user::consumers::UserConsumer::new(&user));
        routes = routes.merge(user::http::router(user));
    }
    let mut payment = None;
    if config.services.has_payment() {
        let service = start_payment(config, runner, registry).await?;
        if has(Service::PaymentApi) {
            routes = routes.merge(payment::http::router(service.clone()));
        }
        payment = Some(service);
    }
    if has(Service::TicketingApi) || has(Service::TicketingWorker) {
        let service = start_ticketing(config, runner, registry).await?;
        if has(Service::TicketingApi) {
            routes = routes.merge(ticketing::http::router(service));
        }
    }
    Ok((routes, payment))
}

async fn start_ticketing(
    config: &Config,
    runner: &mut Runner,
    registry: &mut Registry,
) -> anyhow::Result<ticketing::Service> {
    let context = runner.context().clone();
    let ticketing = ticketing::Service::open(
        context.store,
        context.clock,
        context.random,
        config.ticketing.clone(),
        ticketing::Metrics::register(registry),
    )
    .await?;
    if config.services.has(Service::TicketingWorker) {
        runner.consumer(ticketing::consumers::SagaConsumer(ticketing.clone()));
        runner.consumer(ticketing::consumers::StockConsumer(ticketing.clone()));
        let expiry = ticketing::expiry::ExpiryTask::new(ticketing.clone());
        runner.periodic(expiry);
    }
    Ok(ticketing)
}

async fn start_payment(
    config: &Config,
    runner: &mut Runner,
    registry: &mut Registry,
) -> anyhow::Result<payment::Service> {
    let mut settings = config.payment.clone();
    if settings.sandbox {
        let secret_key = toss::SecretKey::new(SANDBOX_SECRET);
        settings.gateway.base_url = start_sandbox(config, secret_key.clone(), runner).await?;
        settings.gateway.secret_key = secret_key;
    }
    let context = runner.context().clone();
    let service = payment::Service::new(
        context.store,
        context.clock,
        context.random,
        settings,
        payment::Metrics::register(registry),
    )
    .context("cannot use the settings of payment.gateway")?;
    if config.services.has(Service::PaymentWorker) {
        runner.consumer(payment::PaymentConsumer::new(service.clone()));
        let settler = payment::Settler::new(service.clone());
        runner.task("payment.settler", |shutdown| settler.run(shutdown));
        let reconciler = payment::Reconciler::new(service.clone());
        runner.task("payment.reconciler", |shutdown| reconciler.run(shutdown));
    }
    Ok(service)
}

/// Starts the gateway's sandbox on a free port of the loopback interface, and returns its URL.
async fn start_sandbox(
    config: &Config,
    secret_key: toss::SecretKey,
    runner: &mut Runner,
) -> anyhow::Result<String> {
    create_data_folder(config)?;
    let settings = toss_sandbox::SandboxSettings {
        path: Some(config.data.join(SANDBOX_FILE)),
        webhook_url: config.payment.sandbox_webhooks.then(|| {
            let address = reachable(config.listen);
            format!("http://{address}/payment/webhook/toss")
        }),
        webhook_speed: SANDBOX_WEBHOOK_SPEED,
        ..toss_sandbox::SandboxSettings::new(secret_key)
    };
    let sandbox = toss_sandbox::Sandbox::open(settings).with_context(|| {
        let file = config.data.join(SANDBOX_FILE);
        format!("cannot open the sandbox's file {}", file.display())
    })?;
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let mut shutdown = runner.shutdown();
    let stopped = async move { shutdown.requested().await };
    let (address, served) = sandbox.serve(listen, stopped).await?;
    tracing::warn!(
        "payments go to the built-in sandbox: no money is taken, and it accepts any payment key; set payment.sandbox = false to sell"
    );
    runner.task("payment.sandbox", |_| async {
        // The sandbox logs why it ends.
        let _ = served.await;
    });
    Ok(format!("http://{address}"))
}

/// The rows that housekeeping deletes after their retention.
fn expiries(config: &Config) -> Vec<Expiry> {
    vec![
        Expiry {
            table: AnswerRecord::TABLE,
            column: "created_at",
            only: None,
            keep_secs: config.http.idempotency_retention_secs,
        },
        Expiry {
            table: payment::record::WebhookRecord::TABLE,
            column: "updated_at",
            only: Some("state <> 'RECEIVED'"),
            keep_secs: config.payment.webhook_retention_secs,
        },
        Expiry {
            table: payment::record::ReconciliationRecord::TABLE,
            column: "finished_at",
            only: None,
            keep_secs: config.payment.reconciliation_retention_secs,
        },
        Expiry {
            table: DeadLetterRecord::TABLE,
            column: "updated_at",
            only: Some("state IN ('RESOLVED', 'DISCARDED')"),
            keep_secs: config.messaging.dead_letter_retention_secs,
        },
    ]
}
