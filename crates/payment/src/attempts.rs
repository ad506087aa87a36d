//! What is under way at the gateway in this process, and how long to wait before asking again about what it left
//! open. In memory only: a restart begins with nothing under way and nothing to wait for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use std::hash::Hash;

use contract::{PaymentId, Timestamp};
use messaging::Random;
use tokio::sync::watch;

/// Confirmations running at once; one more is refused.
const RUNNING_MAX: usize = 4_096;
/// How long a buyer's attempt waits for a lookup of the same payment to end.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);
/// What has been due for so long is no longer looked for by anybody.
const OVERDUE_MILLIS_MAX: i64 = 600_000;

/// Payments that this process is asking the gateway about, and how many confirmations it runs.
#[derive(Debug, Default)]
pub struct Attempts {
    under_way: watch::Sender<HashMap<PaymentId, Purpose>>,
    running: watch::Sender<usize>,
}

/// What the gateway is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The buyer's money.
    Attempt,
    /// What became of an attempt, a refund or a charge.
    Settlement,
}

/// Counts a confirmation from its first moment; dropping it ends the count.
#[derive(Debug)]
pub struct Running(Arc<Attempts>);

/// Keeps a payment to whoever holds it; dropping it lets the payment go.
#[derive(Debug)]
pub struct Attempt {
    attempts: Arc<Attempts>,
    payment: PaymentId,
}

impl Attempts {
    /// `None` where too many confirmations run.
    pub fn start(self: &Arc<Self>) -> Option<Running> {
        let started = self.running.send_if_modified(|running| {
            let has_room = *running < RUNNING_MAX;
            *running += usize::from(has_room);
            has_room
        });
        started.then(|| Running(Arc::clone(self)))
    }

    /// For a settlement; `None` where somebody is asking about this payment already.
    pub fn enter(self: &Arc<Self>, payment: PaymentId) -> Option<Attempt> {
        self.enter_as(payment, Purpose::Settlement)
    }

    /// For a buyer's attempt; `None` if another attempt is at the gateway. A settlement that is asking about the
    /// payment is waited for, up to two seconds: the buyer must not be refused because a webhook about the attempt
    /// before is being looked up.
    pub async fn enter_for_buyer(self: &Arc<Self>, payment: PaymentId) -> Option<Attempt> {
        let mut changed = self.under_way.subscribe();
        let is_settled = |under_way: &HashMap<PaymentId, Purpose>| {
            under_way.get(&payment) != Some(&Purpose::Settlement)
        };
        let entered = async {
            loop {
                // The sender lives in self, so the wait cannot fail.
                let _ = changed.wait_for(is_settled).await;
                let entered = self.enter_as(payment, Purpose::Attempt);
                if entered.is_some() || is_settled(&self.under_way.borrow()) {
                    return entered;
                }
            }
        };
        tokio::time::timeout(LOOKUP_WAIT, entered).await.ok()?
    }

    fn enter_as(self: &Arc<Self>, payment: PaymentId, purpose: Purpose) -> Option<Attempt> {
        let entered = self.under_way.send_if_modified(|under_way| {
            let is_free = !under_way.contains_key(&payment);
            if is_free {
                under_way.insert(payment, purpose);
            }
            is_free
        });
        entered.then(|| Attempt {
            attempts: Arc::clone(self),
            payment,
        })
    }

    /// Resolves when nothing is under way.
    pub async fn drained(&self) {
        // The sender lives in self, so the wait cannot fail.
        let _ = self.under_way.subscribe().wait_for(HashMap::is_empty).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.attempts
            .under_way
            .send_if_modified(|under_way| under_way.remove(&self.payment).is_some());
    }
}

/// How long to wait before the gateway is asked again: doubled each time, with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    pub millis_min: u64,
    pub millis_max: u64,
}

/// What the gateway could not be understood about, and when to ask again.
#[derive(Debug)]
pub struct Backoffs<K> {
    patience: Patience,
    waiting: Mutex<HashMap<K, Backoff>>,
}

#[derive(Debug, Clone, Copy)]
struct Backoff {
    tries: u32,
    /// How often the money itself was asked for again.
    asked: u32,
    not_before: Timestamp,
    /// When money was last asked back without a known outcome.
    unknown_at: Option<Timestamp>,
}

impl Backoff {
    fn due_at(not_before: Timestamp) -> Self {
        Self {
            tries: 0,
            asked: 0,
            not_before,
            unknown_at: None,
        }
    }
}

impl<K: Eq + Hash + Clone> Backoffs<K> {
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            waiting: Mutex::default(),
        }
    }

    /// Whether it is time to ask; `None` where nothing has been asked so far.
    pub fn is_due(&self, key: &K, now: Timestamp) -> Option<bool> {
        let backoff = self.lock().get(key).copied()?;
        Some(now >= backoff.not_before)
    }

    /// How often it was asked in vain.
    pub fn tries(&self, key: &K) -> u32 {
        self.lock().get(key).map_or(0, |backoff| backoff.tries)
    }

    /// How often the money itself was asked for again.
    pub fn asked(&self, key: &K) -> u32 {
        self.lock().get(key).map_or(0, |backoff| backoff.asked)
    }

    /// The money itself is asked for again.
    pub fn count_asked(&self, key: &K, now: Timestamp) {
        let mut backoffs = self.lock();
        let backoff = backoffs.entry(key.clone()).or_insert(Backoff::due_at(now));
        backoff.asked = backoff.asked.saturating_add(1);
    }

    /// Money was asked back, and nobody knows whether it went.
    pub fn note_unknown(&self, key: &K, now: Timestamp) {
        let mut backoffs = self.lock();
        let backoff = backoffs.entry(key.clone()).or_insert(Backoff::due_at(now));
        backoff.unknown_at = Some(now);
    }

    /// When money was last asked back without a known outcome.
    pub fn unknown_at(&self, key: &K) -> Option<Timestamp> {
        self.lock().get(key).and_then(|backoff| backoff.unknown_at)
    }

    /// It ended without an answer: it is to be looked up at the next opportunity.
    pub fn ask_soon(&self, key: &K, now: Timestamp) {
        self.lock().insert(key.clone(), Backoff::due_at(now));
    }

    /// It was asked in vain once more, and is asked again at `not_before`.
    pub fn wait_until(&self, key: &K, not_before: Timestamp) {
        let mut backoffs = self.lock();
        let backoff = backoffs
            .entry(key.clone())
            .or_insert(Backoff::due_at(not_before));
        backoff.tries = backoff.tries.saturating_add(1);
        backoff.not_before = not_before;
    }

    /// It was asked in vain once more.
    pub fn wait_longer(&self, key: &K, random: &Random, now: Timestamp) {
        let mut backoffs = self.lock();
        let known = backoffs.get(key).copied();
        let known = known.unwrap_or(Backoff::due_at(now));
        let tries = known.tries;
        let doubled = self
            .patience
            .millis_min
            .saturating_mul(1_u64 << tries.min(16));
        let half = doubled.min(self.patience.millis_max) / 2;
        let wait = i64::try_from(half + random.below(half + 1)).unwrap_or(i64::MAX);
        let backoff = Backoff {
            tries: tries.saturating_add(1),
            not_before: now.plus_millis(wait),
            ..known
        };
        backoffs.insert(key.clone(), backoff);
    }

    pub fn forget(&self, key: &K) {
        self.lock().remove(key);
    }

    /// Forgets what somebody else has settled.
    pub fn forget_overdue(&self, now: Timestamp) {
        self.lock()
            .retain(|_, backoff| now.millis_since(backoff.not_before) < OVERDUE_MILLIS_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Backoff>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }
}
