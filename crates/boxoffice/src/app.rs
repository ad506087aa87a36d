//! Wiring: one store, the services over it that this process runs, their consumers, the HTTP door. [`App::start`] is used by the program and
//! by tests in their own process, who hand in a clock that stands still.
//!
//! It owns everything that runs. It stops from the outside in: no new requests, those in flight are finished, then
//! workers and timers finish their batch, then the store writes what was submitted and is closed.

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
    Bus, Clock, Metrics, Random, Record, Store, Table, WorkerContext,
    dead_letters::{DeadLetterConsumer, DeadLetterRecord},
    housekeeping::{Expiry, Housekeeping},
    timers::Timers,
};
use payment::gateway_binding::BindPolicy;
use prometheus_client::registry::Registry;
use utoipa_axum::router::OpenApiRouter;
use web::idempotency::AnswerRecord;

use crate::{
    backends,
    config::Config,
    crew::Crew,
    http,
    log::Log,
    server::{BoundServer, Server, reachable},
    services::Service,
};

/// In the data folder, as long as a server has it open: where that server listens.
pub const ADDRESS_FILE: &str = "server.addr";
/// In the data folder: what the sandbox of the payment gateway has charged.
pub(crate) const SANDBOX_FILE: &str = "gateway.db";
/// Between us and our own sandbox; it opens nothing else.
pub(crate) const SANDBOX_SECRET: &str = "test_sk_sandbox";

/// Its webhooks are sent again after seconds, not minutes.
const SANDBOX_WEBHOOK_SPEED: u32 = 60;

/// Everything, running.
pub struct App {
    server: Server,
    payment: Option<payment::Service>,
    crew: Crew,
    store: Store,
    bus: Bus,
    address_file: PathBuf,
    patience: Duration,
}

/// Every table of every service.
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
    /// Opens the store, starts the services and binds; it answers when this returns.
    ///
    /// # Errors
    /// Where the data folder or the address cannot be had, or a setting cannot work.
    pub async fn start(config: Config, clock: Clock, random: Random) -> anyhow::Result<Self> {
        Self::start_with(config, clock, random, Router::new()).await
    }

    /// As [`App::start`], for a process of its own: under the system's clock, and its metrics tell of its log.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn serve(config: Config, log: &Log) -> anyhow::Result<Self> {
        let mut registry = new_registry();
        let help = "Lines of the log that could not be written";
        registry.register("log_lines_lost", help, log.lost_lines());
        let (clock, random) = (Clock::steady(), Random::System);
        Self::start_on(
            config,
            clock,
            random,
            Router::new(),
            registry,
            BindPolicy::Any,
        )
        .await
    }

    /// As [`App::start`], under the system's clock, for payments that were served before: where they do not say which
    /// gateway they belong to, the built-in sandbox is not taken for it.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_again(config: Config) -> anyhow::Result<Self> {
        let (clock, random, registry) = (Clock::steady(), Random::System, new_registry());
        let adopt = BindPolicy::ConfiguredOnly;
        Self::start_on(config, clock, random, Router::new(), registry, adopt).await
    }

    /// As [`App::start`], with further routes behind the same guard: for tests of what surrounds a route.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(
        config: Config,
        clock: Clock,
        random: Random,
        extra: Router,
    ) -> anyhow::Result<Self> {
        Self::start_on(
            config,
            clock,
            random,
            extra,
            new_registry(),
            BindPolicy::Any,
        )
        .await
    }

    async fn start_on(
        config: Config,
        clock: Clock,
        random: Random,
        extra: Router,
        mut registry: Registry,
        adopt: BindPolicy,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::register(&mut registry);
        let store = backends::open_store(&config, metrics.clone())
            .await
            .context("the store cannot be opened")?;
        if config.services.has_payment() {
            payment::gateway_binding::bind(&store, &config.payment, adopt, clock.now()).await?;
        }
        fs::create_dir_all(&config.data)
            .map_err(|error| anyhow::anyhow!(messaging::sqlite::no_folder(&config.data, &error)))?;
        let bus = backends::open_bus(&config, &store).await?;
        let listening = BoundServer::bind(config.listen)
            .await
            .with_context(|| format!("the setting listen: {} cannot be had", config.listen))?;
        // Port 0 has become one by now.
        let config = Config {
            listen: listening.address(),
            ..config
        };
        let mut crew = Crew::new(WorkerContext {
            store: store.clone(),
            bus: bus.clone(),
            clock: clock.clone(),
            random: random.clone(),
            metrics,
            dead_letters: config.messaging.dead_letters(),
        });
        let (services, payment) = start_services(&config, &mut crew, &mut registry).await?;
        start_upkeep(&config, &mut crew)?;
        backends::start_bus(&bus, &store, &clock, &mut crew);
        let parts = http::Parts {
            store: store.clone(),
            bus: bus.clone(),
            clock,
            random,
            registry,
            roster: crew.roster(),
            settings: config.http.clone(),
        };
        let server = listening.serve(http::router(parts, services, extra));
        let address_file = config.data.join(ADDRESS_FILE);
        fs::write(&address_file, server.address().to_string())
            .with_context(|| format!("{} cannot be written", address_file.display()))?;
        Ok(Self {
            server,
            payment,
            crew,
            store,
            bus,
            address_file,
            patience: Duration::from_millis(config.http.shutdown_timeout_millis),
        })
    }

    /// Where it listens.
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
        &self.store
    }

    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Resolves with the reason when it can no longer do its work: the store has failed for good, or a task ended.
    pub async fn failed(&mut self) -> String {
        tokio::select! {
            reason = self.store.failed() => format!("the store has failed: {reason}"),
            reason = backends::bus_failed(&self.bus) => format!("the bus has failed: {reason}"),
            reason = self.crew.ended() => reason,
        }
    }

    /// Finishes what was accepted, and closes the store. What is not finished in time is logged and cut off; it
    /// was not answered, and a Commit is whole or nothing.
    pub async fn stop(self) {
        let Self {
            server,
            payment,
            crew,
            store,
            bus,
            address_file,
            patience,
        } = self;
        if !server.stop(patience).await {
            tracing::warn!(?patience, "requests in flight were cut off");
        }
        // A buyer who went away while the gateway was asked: what it says is still recorded.
        if let Some(payment) = payment
            && tokio::time::timeout(patience, payment.drained())
                .await
                .is_err()
        {
            tracing::warn!(?patience, "the gateway was still being asked");
        }
        for name in crew.stop(patience).await {
            tracing::warn!(name, ?patience, "a task did not stop in time");
        }
        // Where processes share a folder, another may have been here.
        if let Err(error) = fs::remove_file(&address_file)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %address_file.display(), "cannot be removed");
        }
        if tokio::time::timeout(patience, backends::close_bus(bus))
            .await
            .is_err()
        {
            tracing::warn!(
                ?patience,
                "not everything was published: the relay of another process does it"
            );
        }
        let mut committed = store.committed();
        drop(store);
        // A connection's task lets go of the store a moment after its last answer.
        let closed = async { while committed.changed().await.is_ok() {} };
        if tokio::time::timeout(patience, closed).await.is_err() {
            tracing::warn!("the store is still in use");
        }
    }
}

fn new_registry() -> Registry {
    Registry::with_prefix("boxoffice")
}

/// Starts the services that this process runs, their consumers and their timekeepers, and returns their routes.
async fn start_services(
    config: &Config,
    crew: &mut Crew,
    registry: &mut Registry,
) -> anyhow::Result<(OpenApiRouter, Option<payment::Service>)> {
    let context = crew.context().clone();
    let has = |service| config.services.has(service);
    let mut routes = OpenApiRouter::new();
    if has(Service::Event) {
        let event = event::Service::new(context.store.clone(), context.clock.clone());
        routes = routes.merge(event::http::router(event));
    }
    if has(Service::User) {
        let (store, clock) = (context.store.clone(), context.clock.clone());
        let user = user::Service::new(store, clock, config.user.clone());
        crew.consume(user::consumers::UserConsumer::new(&user))?;
        routes = routes.merge(user::http::router(user));
    }
    let mut payment = None;
    if config.services.has_payment() {
        let service = start_payment(config, crew, registry).await?;
        if has(Service::PaymentApi) {
            routes = routes.merge(payment::http::router(service.clone()));
        }
        payment = Some(service);
    }
    if has(Service::TicketingApi) || has(Service::TicketingWorker) {
        let service = start_ticketing(config, crew, registry).await?;
        if has(Service::TicketingApi) {
            routes = routes.merge(ticketing::http::router(service));
        }
    }
    Ok((routes, payment))
}

async fn start_ticketing(
    config: &Config,
    crew: &mut Crew,
    registry: &mut Registry,
) -> anyhow::Result<ticketing::Service> {
    let context = crew.context().clone();
    let ticketing = ticketing::Service::open(
        context.store,
        context.clock,
        context.random,
        config.ticketing.clone(),
        ticketing::Metrics::register(registry),
    )
    .await?;
    if config.services.has(Service::TicketingWorker) {
        crew.consume(ticketing::consumers::SagaConsumer(ticketing.clone()))?;
        crew.consume(ticketing::consumers::StockConsumer(ticketing.clone()))?;
        let expiry = ticketing.clone();
        crew.spawn("ticketing.expiry", |shutdown| expiry.run_expiry(shutdown));
    }
    Ok(ticketing)
}

async fn start_payment(
    config: &Config,
    crew: &mut Crew,
    registry: &mut Registry,
) -> anyhow::Result<payment::Service> {
    let mut settings = config.payment.clone();
    if settings.sandbox {
        let secret_key = toss::SecretKey::new(SANDBOX_SECRET);
        settings.gateway.base_url = start_sandbox(config, secret_key.clone(), crew).await?;
        settings.gateway.secret_key = secret_key;
    }
    let context = crew.context().clone();
    let service = payment::Service::new(
        context.store,
        context.clock,
        context.random,
        settings,
        payment::Metrics::register(registry),
    )
    .context("the settings of payment.gateway cannot work")?;
    if config.services.has(Service::PaymentWorker) {
        crew.consume(payment::PaymentConsumer::new(service.clone()))?;
        let settler = payment::Settler::new(service.clone());
        crew.spawn("payment.settler", |shutdown| settler.run(shutdown));
        let reconciler = payment::Reconciler::new(service.clone());
        crew.spawn("payment.reconciler", |shutdown| reconciler.run(shutdown));
    }
    Ok(service)
}

/// The gateway's double, on a port of its own that only this machine reaches; returns its address.
async fn start_sandbox(
    config: &Config,
    secret_key: toss::SecretKey,
    crew: &mut Crew,
) -> anyhow::Result<String> {
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
        format!(
            "the gateway's sandbox cannot be opened on {}",
            file.display()
        )
    })?;
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let mut shutdown = crew.shutdown();
    let stopped = async move { shutdown.requested().await };
    let (address, served) = sandbox.serve(listen, stopped).await?;
    tracing::warn!(
        "payments go to the built-in sandbox: no money is taken, and any text pays for a ticket; set payment.sandbox = false to sell"
    );
    crew.spawn("payment.sandbox", |_| async {
        // It logs for itself why it ends.
        let _ = served.await;
    });
    Ok(format!("http://{address}"))
}

/// Starts what every service needs: dead letters, timers, cleaning. Last, because cleaning must know every group.
fn start_upkeep(config: &Config, crew: &mut Crew) -> anyhow::Result<()> {
    if config.services.has(Service::DeadLetter) {
        crew.consume(DeadLetterConsumer::default())?;
    }
    let context = crew.context().clone();
    let timers = Timers {
        store: context.store.clone(),
        clock: context.clock.clone(),
        metrics: context.metrics,
    };
    crew.spawn("timers", |shutdown| timers.run(shutdown));
    let housekeeping = Housekeeping {
        store: context.store,
        clock: context.clock,
        groups: crew.groups(),
        settings: config.cleaning(),
        expiries: expiries(config),
    };
    crew.spawn("housekeeping", |shutdown| housekeeping.run(shutdown));
    Ok(())
}

/// What is kept for a while and then goes: answers to idempotency keys, and dead letters that are closed.
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
