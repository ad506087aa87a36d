//! The shutdown signal, passed to every task.

use tokio::sync::watch;

/// Requests shutdown.
#[derive(Debug, Clone)]
pub struct ShutdownSwitch(watch::Sender<bool>);

/// Learns of a requested shutdown.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl ShutdownSwitch {
    #[must_use]
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Shutdown(receiver))
    }

    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Resolves when shutdown is requested, or every switch is dropped.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}
