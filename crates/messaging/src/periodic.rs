//! Tasks that do the same again and again until shutdown: tick, pause, tick. A task owns its state; this loop owns only
//! the length of the next pause, which grows while ticks fail.

use crate::{Clock, Shutdown, StoreError, backoff::Pace};

/// How a task is run.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// For logs.
    pub name: &'static str,
    /// From the start of one tick to the start of the next.
    pub interval_millis: i64,
    /// Whether shutdown drops a running tick; otherwise the tick is finished first.
    pub is_interruptible: bool,
}

/// What follows a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// The pause.
    Done,
    /// The next tick, without a pause.
    More,
}

/// A task that ticks.
pub trait Periodic: Send + 'static {
    fn schedule(&self) -> Schedule;

    /// Runs before the first tick, and again after a pause if it fails. Shutdown drops it.
    fn begin(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }

    /// # Errors
    /// [`StoreError`]: the tick is repeated after a pause. [`StoreError::Poisoned`] ends the task.
    fn tick(&mut self) -> impl Future<Output = Result<Tick, StoreError>> + Send;

    /// Resolves when the next tick is to begin before its time.
    fn woken(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Runs after the last tick, on shutdown only.
    fn end(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// Runs `task` until shutdown is requested, or the store fails for good.
pub async fn run<P: Periodic>(mut task: P, clock: Clock, mut shutdown: Shutdown) {
    let schedule = task.schedule();
    let mut pace = Pace::every(schedule.interval_millis);
    let mut has_begun = false;
    loop {
        // Before the tick: what becomes due during a tick is handled without a pause.
        let started_at = clock.now();
        let ticked = if !has_begun || schedule.is_interruptible {
            tokio::select! {
                () = shutdown.requested() => break,
                ticked = step(&mut task, &mut has_begun) => ticked,
            }
        } else {
            task.tick().await
        };
        let pause_millis = pace.after(&ticked);
        match ticked {
            Ok(Tick::More) if !shutdown.is_requested() => continue,
            Ok(_) => {}
            Err(StoreError::Poisoned(_)) => return,
            Err(error) => {
                tracing::warn!(task = schedule.name, %error, pause_millis, "a periodic task has failed and is retried");
            }
        }
        tokio::select! {
            () = shutdown.requested() => break,
            () = clock.wait_until(started_at.plus_millis(pause_millis)) => {}
            () = task.woken() => {}
        }
    }
    task.end().await;
}

async fn step<P: Periodic>(task: &mut P, has_begun: &mut bool) -> Result<Tick, StoreError> {
    if *has_begun {
        return task.tick().await;
    }
    task.begin().await?;
    *has_begun = true;
    Ok(Tick::More)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails to begin once, then counts its ticks.
    struct Counter(tokio::sync::mpsc::UnboundedSender<&'static str>, bool);

    impl Periodic for Counter {
        fn schedule(&self) -> Schedule {
            Schedule {
                name: "counter",
                interval_millis: 100,
                is_interruptible: false,
            }
        }
        async fn begin(&mut self) -> Result<(), StoreError> {
            let _ = self.0.send("begin");
            if std::mem::replace(&mut self.1, true) {
                Ok(())
            } else {
                Err(StoreError::Overloaded)
            }
        }
        async fn tick(&mut self) -> Result<Tick, StoreError> {
            let _ = self.0.send("tick");
            Ok(Tick::Done)
        }
        async fn end(&mut self) {
            let _ = self.0.send("end");
        }
    }

    #[tokio::test]
    async fn a_task_begins_once_ticks_at_each_interval_and_ends_on_shutdown() {
        let clock = Clock::manual(crate::Timestamp::from_millis(0));
        let (switch, shutdown) = crate::ShutdownSwitch::new();
        let (sender, mut steps) = tokio::sync::mpsc::unbounded_channel();
        let running = tokio::spawn(run(Counter(sender, false), clock.clone(), shutdown));
        assert_eq!(steps.recv().await, Some("begin"));
        clock.advance_millis(200);
        assert_eq!(steps.recv().await, Some("begin"));
        assert_eq!(steps.recv().await, Some("tick"));
        clock.advance_millis(100);
        assert_eq!(steps.recv().await, Some("tick"));
        switch.stop();
        assert_eq!(steps.recv().await, Some("end"));
        running.await.unwrap();
    }
}
