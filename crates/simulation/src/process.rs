//! A process of the program: some services on a host of its own, over the simulated engines.
//!
//! State: the host while the process runs; how far its clock is off.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use axum::Router;
use boxoffice::{
    app::HeadlessApp,
    config::{Config, Flags},
};
use messaging::{Bus, Metrics, Random, WorkerContext};
use prometheus_client::registry::Registry;
use ticketing::redis_server::OtherRedis;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    broker::{Broker, BrokerClient},
    database::Database,
    gateway::{Gateway, SECRET, URL},
    network::{self, Network},
    redis_double::{RedisClient, RedisDouble},
    world::{Host, World},
};

/// Timeouts that are short against a run. The backends are only named: their engines are passed in.
const SETTINGS: &[(&str, &str)] = &[
    ("STORE__BACKEND", "postgres"),
    ("STORE__POSTGRES__URL", "postgres://simulated"),
    ("TICKETING__REDIS__URL", "redis://simulated"),
    ("TICKETING__HOLD_TTL_SECS", "20"),
    ("TICKETING__HOLD_GRACE_SECS", "6"),
    ("MESSAGING__DEAD_LETTER_RETRY_INTERVAL_MILLIS", "1000"),
    ("MESSAGING__INBOX_RETENTION_SECS", "120000"),
    ("PAYMENT__SANDBOX", "false"),
    ("PAYMENT__GATEWAY__BASE_URL", URL),
    ("PAYMENT__GATEWAY__SECRET_KEY", SECRET),
    ("PAYMENT__GATEWAY__REQUEST_TIMEOUT_MILLIS", "3000"),
    ("PAYMENT__SETTLE_AFTER_MILLIS", "4000"),
    ("PAYMENT__RETRY_MILLIS_MAX", "2000"),
    ("PAYMENT__GIVE_UP_AFTER_MILLIS", "6000"),
    ("PAYMENT__REFUND_GIVE_UP_SECS", "60"),
    ("HTTP__SHUTDOWN_TIMEOUT_MILLIS", "5000"),
];

/// What the processes of a run share.
pub struct Engines {
    pub host: Host,
    pub databases: Vec<Arc<Database>>,
    pub broker: Arc<Broker>,
    pub redis: Arc<RedisDouble>,
    /// `redis`, or `local` with one process of ticketing.
    pub reservations: &'static str,
    pub gateway: Gateway,
    pub network: Network,
}

pub struct Process {
    pub name: String,
    services: &'static str,
    database: &'static str,
    skew: Arc<AtomicI64>,
    running: Option<Run>,
    pub paused_until: i64,
    /// When it is started again, while it does not run.
    pub starts_at: i64,
}

struct Run {
    host: Host,
    task: JoinHandle<String>,
    stop: Option<oneshot::Sender<()>>,
}

impl Process {
    #[must_use]
    pub fn new(services: &'static str, database: &'static str, number: usize) -> Self {
        Self {
            name: format!("{services}-{number}"),
            services,
            database,
            skew: Arc::default(),
            running: None,
            paused_until: 0,
            starts_at: 0,
        }
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Sets its system clock forward or back.
    pub fn move_clock(&self, millis: i64) {
        self.skew.fetch_add(millis, Relaxed);
    }

    pub fn start(&mut self, world: &Arc<World>, engines: &Engines) {
        let host = Host::new(world);
        let (calls, received) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let _turn = host.runtime.enter();
        let (config, context) = self.open(world, engines);
        let network = engines.network.clone();
        let name = self.name.clone();
        let task = host.runtime.spawn(async move {
            let registry = Registry::default();
            let store = context.store.clone();
            let (mut app, router) =
                match HeadlessApp::start_over(&config, context, registry, Router::new()).await {
                    Ok(started) => started,
                    Err(error) => return format!("did not start: {error:#}"),
                };
            network.listen(&name, calls);
            let serving = tokio::spawn(network::serve(router, received));
            let reason = tokio::select! {
                reason = store.failed() => reason,
                reason = app.ended() => reason,
                _ = stopped => "stopped".to_owned(),
            };
            network.close(&name);
            app.stop().await;
            serving.abort();
            reason
        });
        world.step(format_args!("{} starts", self.name));
        drop(_turn);
        self.running = Some(Run {
            host,
            task,
            stop: Some(stop),
        });
    }

    fn open(&self, world: &Arc<World>, engines: &Engines) -> (Config, WorkerContext) {
        let config = self.config(engines);
        let database = engines
            .databases
            .iter()
            .find(|it| it.name == self.database)
            .unwrap();
        let context = WorkerContext {
            store: database.connect(engines.host.runtime.handle()),
            bus: Bus::Other(Arc::new(BrokerClient(Arc::clone(&engines.broker)))),
            clock: world.clock(Arc::clone(&self.skew)),
            random: Random::seeded(world.below(u64::MAX)),
            metrics: Metrics::unregistered(),
            dead_letters: config.messaging.dead_letters(),
        };
        (config, context)
    }

    /// The settings of this process.
    #[must_use]
    pub fn config(&self, engines: &Engines) -> Config {
        let reservations = ("TICKETING__RESERVATIONS", engines.reservations);
        let environment = SETTINGS
            .iter()
            .chain([&reservations])
            .map(|(name, value)| (format!("BOXOFFICE_{name}"), (*value).to_owned()));
        let mut config = Config::load(None, environment, &Flags::default()).unwrap();
        // A process of some services is refused with the local bus, which this one does not use.
        config.services = self.services.parse().unwrap();
        config.payment.gateway.exchange = Some(Arc::new(engines.gateway.clone()));
        config.ticketing.redis.engine = Some(OtherRedis(Arc::new(RedisClient {
            double: Arc::clone(&engines.redis),
            engines: engines.host.runtime.handle().clone(),
        })));
        config
    }

    /// Runs it up to the world's time, unless it stands still. Starts it again a while after it has ended.
    pub fn run(&mut self, world: &Arc<World>, engines: &Engines) {
        if world.elapsed() < self.paused_until {
            return;
        }
        match &self.running {
            None if world.elapsed() >= self.starts_at => self.start(world, engines),
            None => {}
            Some(run) => {
                run.host.run(world);
                if world.takes_pause() {
                    self.paused_until = world.after(500, 25_000);
                }
                if run.task.is_finished() {
                    self.has_ended(world, engines);
                }
            }
        }
    }

    fn has_ended(&mut self, world: &World, engines: &Engines) {
        let Some(run) = self.running.take() else {
            return;
        };
        let reason = run.host.runtime.block_on(run.task).unwrap_or_else(|error| {
            world.fail(format_args!("{} panicked: {error}", self.name));
            error.to_string()
        });
        engines.network.close(&self.name);
        world.step(format_args!("{} ended: {reason}", self.name));
        self.starts_at = world.after(100, 3_000);
    }

    /// Ends it where it stands.
    pub fn kill(&mut self, world: &World, engines: &Engines) {
        if self.running.take().is_some() {
            engines.network.close(&self.name);
            self.starts_at = world.after(100, 8_000);
            self.paused_until = 0;
        }
    }

    /// Asks it to stop.
    pub fn stop(&mut self) {
        if let Some(stop) = self.running.as_mut().and_then(|run| run.stop.take()) {
            // A process that has ended needs no word.
            let _ = stop.send(());
        }
    }
}
