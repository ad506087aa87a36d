//! What runs beside the HTTP server: one worker for each consumer, timers, cleaning. It owns their tasks.
//!
//! None of them ends by itself. One that does has panicked or has lost its store: the process is no longer whole,
//! says so on `/readyz`, and stops.

use std::{sync::Arc, time::Duration};

use messaging::{Consumer, Shutdown, ShutdownSwitch, StoreError, Worker, WorkerContext};
use tokio::task::{AbortHandle, JoinSet};

/// The tasks.
pub struct Crew {
    context: WorkerContext,
    switch: ShutdownSwitch,
    shutdown: Shutdown,
    tasks: JoinSet<()>,
    names: Vec<(&'static str, AbortHandle)>,
    groups: Vec<&'static str>,
}

/// Knows who should be running.
#[derive(Clone)]
pub struct Roster(Arc<[(&'static str, AbortHandle)]>);

impl Crew {
    #[must_use]
    pub fn new(context: WorkerContext) -> Self {
        let (switch, shutdown) = ShutdownSwitch::new();
        Self {
            context,
            switch,
            shutdown,
            tasks: JoinSet::new(),
            names: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Starts a worker for this consumer.
    ///
    /// # Errors
    /// [`StoreError`] where its position cannot be read.
    pub fn consume<C: Consumer>(&mut self, consumer: C) -> Result<(), StoreError> {
        let group = consumer.group();
        let worker = Worker::new(consumer, self.context.clone())?;
        self.groups.push(group);
        self.spawn(group, |shutdown| worker.run(shutdown));
        Ok(())
    }

    /// Starts anything else that runs until it is told to stop.
    pub fn spawn<F>(&mut self, name: &'static str, run: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = self.tasks.spawn(run(self.shutdown.clone()));
        self.names.push((name, handle));
    }

    /// What the workers work with.
    #[must_use]
    pub fn context(&self) -> &WorkerContext {
        &self.context
    }

    /// Hears when the crew is told to stop.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// The groups that read the bus so far.
    #[must_use]
    pub fn groups(&self) -> Vec<&'static str> {
        self.groups.clone()
    }

    #[must_use]
    pub fn roster(&self) -> Roster {
        Roster(self.names.as_slice().into())
    }

    /// Resolves when a task ended that nobody told to.
    pub async fn ended(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(_) => {
                let name = self.roster().missing().unwrap_or("background");
                format!("the {name} task has ended")
            }
            None => std::future::pending().await,
        }
    }

    /// Lets every task finish what it has begun; returns those that did not within `patience`.
    pub async fn stop(mut self, patience: Duration) -> Vec<&'static str> {
        self.switch.stop();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_ok() {
            return Vec::new();
        }
        self.names.retain(|(_, task)| !task.is_finished());
        self.tasks.shutdown().await;
        self.names.iter().map(|(name, _)| *name).collect()
    }
}

impl Roster {
    /// One that should be running and is not.
    #[must_use]
    pub fn missing(&self) -> Option<&'static str> {
        let ended = self.0.iter().find(|(_, task)| task.is_finished());
        ended.map(|(name, _)| *name)
    }
}
