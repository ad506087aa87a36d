//! The payments that this process is asking the gateway about, and how many confirmations it runs. In memory only: a
//! process starts with nothing in flight.

use std::{collections::HashMap, sync::Arc, time::Duration};

use contract::PaymentId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Confirmations that run at once; one more is refused.
const CONFIRMS_MAX: usize = 4_096;
/// How long a buyer's attempt waits for a lookup of the same payment to end.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);

/// Allows one request to the gateway per payment, and a limited number of confirmations.
#[derive(Debug)]
pub struct InFlight {
    payments: watch::Sender<HashMap<PaymentId, Purpose>>,
    confirms: Arc<Semaphore>,
}

/// Why the gateway is asked about a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A buyer's attempt to pay.
    Attempt,
    /// A lookup or a refund.
    Settlement,
}

/// Reserves a payment for its holder; dropping it releases the payment.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: Arc<InFlight>,
    payment: PaymentId,
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            payments: watch::Sender::default(),
            confirms: Arc::new(Semaphore::new(CONFIRMS_MAX)),
        }
    }
}

impl InFlight {
    /// Counts a confirmation until the permit is dropped; `None` if too many run.
    pub fn start_confirm(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.confirms).try_acquire_owned().ok()
    }

    /// For a settlement; `None` if a request about this payment is in flight.
    pub fn enter(self: &Arc<Self>, payment: PaymentId) -> Option<InFlightGuard> {
        self.enter_as(payment, Purpose::Settlement)
    }

    /// For a buyer's attempt; `None` if another attempt is at the gateway. Waits up to two seconds for a settlement of
    /// the payment to end: a webhook about the previous attempt must not make the buyer's next one fail.
    pub async fn enter_for_buyer(self: &Arc<Self>, payment: PaymentId) -> Option<InFlightGuard> {
        let mut changed = self.payments.subscribe();
        let is_settled = |payments: &HashMap<PaymentId, Purpose>| {
            payments.get(&payment) != Some(&Purpose::Settlement)
        };
        let entered = async {
            loop {
                // The sender lives in self, so the wait cannot fail.
                let _ = changed.wait_for(is_settled).await;
                let entered = self.enter_as(payment, Purpose::Attempt);
                if entered.is_some() || is_settled(&self.payments.borrow()) {
                    return entered;
                }
            }
        };
        tokio::time::timeout(LOOKUP_WAIT, entered).await.ok()?
    }

    fn enter_as(self: &Arc<Self>, payment: PaymentId, purpose: Purpose) -> Option<InFlightGuard> {
        let entered = self.payments.send_if_modified(|payments| {
            let is_free = !payments.contains_key(&payment);
            if is_free {
                payments.insert(payment, purpose);
            }
            is_free
        });
        entered.then(|| InFlightGuard {
            in_flight: Arc::clone(self),
            payment,
        })
    }

    /// Resolves when no request is in flight.
    pub async fn drained(&self) {
        // The sender lives in self, so the wait cannot fail.
        let _ = self.payments.subscribe().wait_for(HashMap::is_empty).await;
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.in_flight
            .payments
            .send_if_modified(|payments| payments.remove(&self.payment).is_some());
    }
}
