//! Detects a group that has stalled, on its own thread, which runs even if the runtime is blocked. It asks the process to
//! stop, and aborts it after 30 s. State: the buffers of the subscribed groups.

use std::{
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::partition_buffer::PartitionBuffer;

/// The interval of checks.
const CHECK_MILLIS: u64 = 1_000;
/// How long the process may take to stop.
const GRACE_SECS: u64 = 30;

type Buffers = Mutex<Vec<(&'static str, Weak<PartitionBuffer>)>>;

pub(super) struct Watchdog {
    buffers: Arc<Buffers>,
}

impl Watchdog {
    /// Watches until it is dropped.
    pub(super) fn start(
        stall_after: Duration,
        failure: watch::Sender<Option<String>>,
    ) -> std::io::Result<Self> {
        let buffers = Arc::<Buffers>::default();
        let watched = Arc::downgrade(&buffers);
        let watch = move || watch(&watched, stall_after, &failure);
        thread::Builder::new()
            .name("kafka-watchdog".to_owned())
            .spawn(watch)?;
        Ok(Self { buffers })
    }

    pub(super) fn watch(&self, group: &'static str, buffer: &Arc<PartitionBuffer>) {
        let mut buffers = self.buffers.lock();
        buffers.retain(|(_, buffer)| buffer.strong_count() > 0);
        buffers.push((group, Arc::downgrade(buffer)));
    }
}

fn watch(buffers: &Weak<Buffers>, stall_after: Duration, failure: &watch::Sender<Option<String>>) {
    let pause = Duration::from_millis(CHECK_MILLIS).min(stall_after / 4);
    let mut reported_at: Option<Instant> = None;
    loop {
        let slept = Instant::now();
        thread::sleep(pause);
        let Some(buffers) = buffers.upgrade() else {
            return;
        };
        if reported_at.is_some_and(|at| at.elapsed() > Duration::from_secs(GRACE_SECS)) {
            tracing::error!("the process did not stop in time; it is aborted");
            std::process::abort();
        }
        // The whole process was suspended, with this thread: consumers get one interval to continue.
        if slept.elapsed() > pause * 2 {
            continue;
        }
        let buffers = buffers.lock();
        let stalled = buffers.iter().find_map(|(group, buffer)| {
            let reason = buffer.upgrade()?.stall_reason(stall_after)?;
            Some(format!("group {group} has stalled: {reason}"))
        });
        if let Some(reason) = stalled
            && reported_at.is_none()
        {
            tracing::error!(reason, "a consumer has stalled; the process must stop");
            failure.send_replace(Some(reason));
            reported_at = Some(Instant::now());
        }
    }
}
