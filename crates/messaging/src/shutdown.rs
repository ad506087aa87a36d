//! The word to stop, passed to everything that runs.

use tokio::sync::watch;

/// Says when to stop.
#[derive(Debug, Clone)]
pub struct ShutdownSwitch(watch::Sender<bool>);

/// Hears when to stop.
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
    /// Resolves when it is time to stop; also when nobody is left who could say so.
    pub async fn requested(&mut self) {
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}
