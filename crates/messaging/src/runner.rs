//! Runs everything that a process does beside answering requests: a worker for each consumer, timers, housekeeping, the
//! relay of a Kafka bus, and a program's own tasks. It owns their tasks, and stops them gracefully.
//!
//! No task ends by itself. A task that does has panicked or has lost its store: [`Running::ended`] resolves, and the
//! process should stop.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::task::{AbortHandle, JoinSet};

#[cfg(feature = "kafka")]
use crate::Relay;
use crate::{
    Bus, Consumer, Fence, Leader, LeaseManager, Periodic, Shutdown, ShutdownSwitch, Store,
    StoreError, Worker, WorkerContext,
    coordinator::{Coordinator, Domain},
    dead_letters::DeadLetterConsumer,
    housekeeping::{CleaningSettings, Housekeeping, RowRetention},
    periodic,
    timers::Timers,
};

/// How long the other processes wait for a leader that died.
const LEASE_MILLIS: i64 = 10_000;

type Task = BoxFuture<'static, ()>;
/// Opens what a task needs and returns the task.
type Start = Box<dyn FnOnce(&WorkerContext, Shutdown) -> Result<Task, StoreError> + Send>;

/// Collects what is to run. Nothing runs before [`Runner::start`].
///
/// ```no_run
/// # fn start(store: messaging::Store, consumer: impl messaging::Consumer) -> Result<(), messaging::StoreError> {
/// let bus = messaging::Bus::Local(store.clone());
/// let running = messaging::Runner::new(store, bus).dead_letters().consumer(consumer).start()?;
/// # Ok(())
/// # }
/// ```
pub struct Runner {
    context: WorkerContext,
    cleaning: CleaningSettings,
    retentions: Vec<RowRetention>,
    groups: Vec<&'static str>,
    starts: Vec<(&'static str, Start)>,
    switch: ShutdownSwitch,
    shutdown: Shutdown,
}

/// The tasks of a started [`Runner`].
pub struct Running {
    switch: ShutdownSwitch,
    tasks: JoinSet<()>,
    handles: TaskHandles,
}

/// Tells whether each task still runs; clones share it.
#[derive(Clone)]
pub struct TaskHandles(Arc<[(&'static str, AbortHandle)]>);

impl Runner {
    /// With the system's clock and random source, and default settings.
    #[must_use]
    pub fn new(store: Store, bus: Bus) -> Self {
        Self::with_context(WorkerContext::new(store, bus))
    }

    #[must_use]
    pub fn with_context(context: WorkerContext) -> Self {
        let (switch, shutdown) = ShutdownSwitch::new();
        Self {
            context,
            cleaning: CleaningSettings::default(),
            retentions: Vec::new(),
            groups: Vec::new(),
            starts: Vec::new(),
            switch,
            shutdown,
        }
    }

    /// Handles this consumer's messages.
    pub fn consumer<C: Consumer>(&mut self, consumer: C) -> &mut Self {
        let group = consumer.group().name;
        self.groups.push(group);
        self.add(group, move |context, shutdown| {
            let worker = Worker::new(consumer, context.clone())?;
            Ok(Box::pin(worker.run(shutdown)))
        })
    }

    /// Advances the sagas of a domain.
    pub fn saga<D: Domain>(&mut self, coordinator: Coordinator<D>) -> &mut Self {
        self.consumer(coordinator)
    }

    /// Schedules the rejected messages of all consumers: one process of a deployment must.
    pub fn dead_letters(&mut self) -> &mut Self {
        self.consumer(DeadLetterConsumer::default())
    }

    /// Ticks this task.
    pub fn periodic<P: Periodic>(&mut self, task: P) -> &mut Self {
        self.add(task.schedule().name, move |context, shutdown| {
            Ok(Box::pin(periodic::run(
                task,
                context.clock.clone(),
                shutdown,
            )))
        })
    }

    /// Runs this in one process at a time of those that share the store, until shutdown is requested or the process no
    /// longer leads. `run` is passed the fence for its commits. A bus in the store belongs to one process, which leads
    /// without a lease, and so without a fence.
    pub fn leader<F>(
        &mut self,
        name: &'static str,
        run: impl Fn(Option<Fence>, Shutdown) -> F + Send + Sync + 'static,
    ) -> &mut Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.context.bus {
            Bus::Local(_) => self.task(name, move |shutdown| run(None, shutdown)),
            _ => self.leader_for(name, LEASE_MILLIS, move |fence, shutdown| {
                run(Some(fence), shutdown)
            }),
        }
    }

    fn leader_for<F>(
        &mut self,
        name: &'static str,
        lease_millis: i64,
        run: impl Fn(Fence, Shutdown) -> F + Send + Sync + 'static,
    ) -> &mut Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let WorkerContext { store, clock, .. } = self.context.clone();
        let holder = format!("process {}", std::process::id());
        let leases = LeaseManager::new(store, clock, holder, lease_millis);
        self.periodic(Leader::new(leases, name, self.shutdown.clone(), run))
    }

    /// Runs anything else until shutdown is requested.
    pub fn task<F>(
        &mut self,
        name: &'static str,
        run: impl FnOnce(Shutdown) -> F + Send + 'static,
    ) -> &mut Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.add(name, |_, shutdown| Ok(Box::pin(run(shutdown))))
    }

    /// How long handled messages are remembered, and which old rows are removed.
    pub fn cleaning(
        &mut self,
        settings: CleaningSettings,
        retentions: Vec<RowRetention>,
    ) -> &mut Self {
        self.cleaning = settings;
        self.retentions = retentions;
        self
    }

    #[must_use]
    pub fn context(&self) -> &WorkerContext {
        &self.context
    }

    /// Resolves when the tasks are to stop.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Starts everything that was added, and timers, housekeeping and relay.
    ///
    /// # Errors
    /// [`StoreError`] if a consumer's position cannot be read; then nothing runs.
    pub fn start(&mut self) -> Result<Running, StoreError> {
        self.add_upkeep();
        let (mut tasks, mut handles) = (JoinSet::new(), Vec::new());
        for (name, start) in std::mem::take(&mut self.starts) {
            let task = start(&self.context, self.shutdown.clone())?;
            handles.push((name, tasks.spawn(task)));
        }
        Ok(Running {
            switch: self.switch.clone(),
            tasks,
            handles: TaskHandles(handles.into()),
        })
    }

    fn add_upkeep(&mut self) {
        let WorkerContext {
            store,
            clock,
            metrics,
            ..
        } = self.context.clone();
        let housekeeping = Housekeeping {
            store: store.clone(),
            clock: clock.clone(),
            groups: self.groups.clone(),
            settings: self.cleaning,
            retentions: self.retentions.clone(),
        };
        self.periodic(Timers {
            store: store.clone(),
            clock: clock.clone(),
            metrics: Arc::clone(&metrics),
        });
        self.task("housekeeping", |shutdown| housekeeping.run(shutdown));
        #[cfg(feature = "kafka")]
        if let Bus::Kafka(kafka) = &self.context.bus {
            let (kafka, lease_millis) = (Arc::clone(kafka), kafka.settings().relay_lease_millis);
            self.leader_for(Relay::LEASE, lease_millis, move |fence, shutdown| {
                let (kafka, store, metrics) = (kafka.clone(), store.clone(), metrics.clone());
                let relay = Relay::new(kafka, store, clock.clone(), metrics, fence);
                periodic::run(relay, clock.clone(), shutdown)
            });
        }
    }

    fn add(
        &mut self,
        name: &'static str,
        start: impl FnOnce(&WorkerContext, Shutdown) -> Result<Task, StoreError> + Send + 'static,
    ) -> &mut Self {
        self.starts.push((name, Box::new(start)));
        self
    }
}

impl Running {
    #[must_use]
    pub fn handles(&self) -> TaskHandles {
        self.handles.clone()
    }

    /// Resolves with the reason when a task ended without a shutdown.
    pub async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(_) => {
                let name = self.handles.ended().unwrap_or("background");
                format!("the {name} task has ended")
            }
            None => std::future::pending().await,
        }
    }

    /// Lets every task finish the batch or tick that it has begun; returns those that did not within `timeout`, which
    /// are aborted.
    pub async fn stop(mut self, timeout: Duration) -> Vec<&'static str> {
        self.switch.stop();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(timeout, all).await.is_ok() {
            return Vec::new();
        }
        let late = self.handles.running();
        self.tasks.shutdown().await;
        late
    }
}

impl TaskHandles {
    /// A task that should run and does not.
    #[must_use]
    pub fn ended(&self) -> Option<&'static str> {
        let ended = self.0.iter().find(|(_, task)| task.is_finished());
        ended.map(|(name, _)| *name)
    }

    fn running(&self) -> Vec<&'static str> {
        let running = self.0.iter().filter(|(_, task)| !task.is_finished());
        running.map(|(name, _)| *name).collect()
    }
}
