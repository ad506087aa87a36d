//! Notices a group that stands still, on a thread of its own: it works where the runtime does not. The process is told
//! to end; where it does not, it is ended. State: the desks of the groups that live.

use std::{
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::desk::Desk;

/// Between two looks.
const LOOK_MILLIS: u64 = 1_000;
/// How long the process may take to end by itself.
const GRACE_SECS: u64 = 30;

type Desks = Mutex<Vec<(&'static str, Weak<Desk>)>>;

pub(super) struct Watchdog {
    desks: Arc<Desks>,
}

impl Watchdog {
    /// Watches until it is dropped.
    pub(super) fn start(
        stall_after: Duration,
        failure: watch::Sender<Option<String>>,
    ) -> std::io::Result<Self> {
        let desks = Arc::<Desks>::default();
        let watched = Arc::downgrade(&desks);
        let watch = move || watch(&watched, stall_after, &failure);
        thread::Builder::new()
            .name("kafka-watchdog".to_owned())
            .spawn(watch)?;
        Ok(Self { desks })
    }

    pub(super) fn watch(&self, group: &'static str, desk: &Arc<Desk>) {
        let mut desks = self.desks.lock().expect("no holder of this lock panics");
        desks.retain(|(_, desk)| desk.strong_count() > 0);
        desks.push((group, Arc::downgrade(desk)));
    }
}

fn watch(desks: &Weak<Desks>, stall_after: Duration, failure: &watch::Sender<Option<String>>) {
    let pause = Duration::from_millis(LOOK_MILLIS).min(stall_after / 4);
    let mut told: Option<Instant> = None;
    loop {
        let slept = Instant::now();
        thread::sleep(pause);
        let Some(desks) = desks.upgrade() else { return };
        if told.is_some_and(|told| told.elapsed() > Duration::from_secs(GRACE_SECS)) {
            tracing::error!("the process did not end by itself");
            std::process::abort();
        }
        // The whole process was stopped meanwhile, this thread too: everybody gets a moment.
        if slept.elapsed() > pause * 2 {
            continue;
        }
        let desks = desks.lock().expect("no holder of this lock panics");
        let stalled = desks.iter().find_map(|(group, desk)| {
            let reason = desk.upgrade()?.stall(stall_after)?;
            Some(format!("group {group} stands still: {reason}"))
        });
        if let Some(reason) = stalled
            && told.is_none()
        {
            tracing::error!(reason, "a consumer has stalled; the process must stop");
            failure.send_replace(Some(reason));
            told = Some(Instant::now());
        }
    }
}
