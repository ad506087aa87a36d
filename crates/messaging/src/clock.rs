//! Time and chance, handed in: nobody else in this project reads a clock or draws a random number.

use std::sync::{Arc, Mutex};

use contract::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

/// Where "now" comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    System,
    /// Stands still until it is set; for tests.
    Manual(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(watch::Sender::new(start)))
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => {
                let since_epoch = std::time::SystemTime::UNIX_EPOCH
                    .elapsed()
                    .unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Self::Manual(time) => *time.borrow(),
        }
    }

    /// Moves a manual clock forward and wakes whoever waits for the time. A system clock goes by itself.
    pub fn advance_millis(&self, millis: i64) {
        match self {
            Self::System => {}
            Self::Manual(time) => time.send_modify(|now| *now = now.plus_millis(millis)),
        }
    }

    /// Waits until the clock shows `at` or later.
    pub async fn wait_until(&self, at: Timestamp) {
        match self {
            Self::System => {
                let millis = u64::try_from(at.millis_since(self.now())).unwrap_or(0);
                tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
            }
            Self::Manual(time) => {
                // The sender lives in self, so the wait cannot fail.
                let _ = time.subscribe().wait_for(|now| *now >= at).await;
            }
        }
    }
}

/// Where chance comes from.
#[derive(Debug, Clone)]
pub enum Random {
    /// The operating system's generator.
    System,
    /// The same numbers for the same seed; for tests.
    Seeded(Arc<Mutex<u64>>),
}

impl Random {
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(seed)))
    }

    /// A UUID of version 7: the time in front, so that ids sort by their making, and 74 bits of chance behind.
    #[must_use]
    pub fn uuid(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        match self {
            Self::System => {
                let whole_secs = millis / 1000;
                let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
                Uuid::new_v7(uuid::Timestamp::from_unix(
                    uuid::NoContext,
                    whole_secs,
                    nanos,
                ))
            }
            Self::Seeded(_) => {
                let mut bytes = [0_u8; 10];
                bytes[..8].copy_from_slice(&self.next().to_be_bytes());
                bytes[8..].copy_from_slice(&self.next().to_be_bytes()[..2]);
                uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
            }
        }
    }

    /// A number in `0..bound`, for jitter; 0 where `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub(crate) fn next(&self) -> u64 {
        match self {
            Self::System => Uuid::new_v4().as_u64_pair().1,
            Self::Seeded(state) => {
                // SplitMix64 (Steele, Lea, Flood 2014).
                let mut state = state.lock().expect("no holder of this lock panics");
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                mixed ^ (mixed >> 31)
            }
        }
    }
}
