//! Work that one process does at a time. State: none; who leads is in the store.

use super::LeaseManager;
use crate::{Fence, Periodic, Schedule, Shutdown, ShutdownSwitch, StoreError, Tick};

/// Works whenever this process holds a lease: tries to take it until it has it, works until the lease is lost, and tries
/// again. Run it with [`periodic::run`](crate::periodic::run).
pub struct Leader<W> {
    leases: LeaseManager,
    lease: &'static str,
    work: W,
    shutdown: Shutdown,
}

impl<W, F> Leader<W>
where
    W: Fn(Fence, Shutdown) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    /// `work` begins anew each time the lease `lease` is taken. It is passed the fence for its commits, and a shutdown that
    /// is requested when `shutdown` is, or the lease is lost.
    pub fn new(leases: LeaseManager, lease: &'static str, shutdown: Shutdown, work: W) -> Self {
        Self {
            leases,
            lease,
            work,
            shutdown,
        }
    }
}

impl<W, F> Periodic for Leader<W>
where
    W: Fn(Fence, Shutdown) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    fn schedule(&self) -> Schedule {
        Schedule {
            name: self.lease,
            interval_millis: self.leases.retry_millis(),
            is_interruptible: false,
        }
    }

    async fn tick(&mut self) -> Result<Tick, StoreError> {
        let Some(lease) = self.leases.try_acquire(self.lease).await? else {
            return Ok(Tick::Done);
        };
        tracing::info!(
            lease = self.lease,
            token = lease.token(),
            "this process leads"
        );
        let (switch, stop) = ShutdownSwitch::new();
        let over = async {
            tokio::select! {
                () = self.shutdown.requested() => {}
                () = lease.lost() => {}
            }
            switch.stop();
            // The work ends then.
            std::future::pending().await
        };
        tokio::select! {
            () = (self.work)(lease.fence(), stop) => {}
            () = over => {}
        }
        if let Err(error) = lease.release().await {
            tracing::info!(lease = self.lease, %error, "a lease was not released; it expires by itself");
        }
        Ok(Tick::Done)
    }
}
