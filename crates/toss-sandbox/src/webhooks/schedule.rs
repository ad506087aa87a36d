//! The state of a webhook after each attempt. Pure.

use jiff::{SignedDuration, Timestamp};

/// The retries of a webhook.
pub(crate) const RETRIES_MAX: u32 = 7;
const MINUTE_MILLIS: i64 = 60_000;
/// The factor between two waits: 1, 4, 16, 64, 256, 1024, 4096 minutes.
const GROWTH: i64 = 4;

/// The state of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    Pending,
    Delivered,
    GivenUp,
}

impl DeliveryState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Delivered => "DELIVERED",
            Self::GivenUp => "GIVEN_UP",
        }
    }
}

/// The deliveries of a webhook so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub state: DeliveryState,
    /// Attempts, including those that a fault dropped.
    pub attempts: u32,
    pub next_at: Timestamp,
    /// Deliveries that still follow the first 200.
    pub repeats_left: u32,
    pub was_delivered: bool,
}

impl Delivery {
    /// The state after one more attempt.
    #[must_use]
    pub fn after(self, is_delivered: bool, speed: u32, now: Timestamp) -> Self {
        let was_delivered = self.was_delivered || is_delivered;
        let repeats_left = if self.was_delivered {
            self.repeats_left.saturating_sub(1)
        } else {
            self.repeats_left
        };
        let is_wanted = !was_delivered || repeats_left > 0;
        let state = match (is_wanted, self.attempts < RETRIES_MAX, was_delivered) {
            (true, true, _) => DeliveryState::Pending,
            (_, _, true) => DeliveryState::Delivered,
            (_, _, false) => DeliveryState::GivenUp,
        };
        Self {
            state,
            attempts: self.attempts + 1,
            next_at: now + SignedDuration::from_millis(wait_millis(self.attempts, speed)),
            repeats_left,
            was_delivered,
        }
    }
}

/// The wait after an attempt with this number, from 0.
fn wait_millis(attempt: u32, speed: u32) -> i64 {
    let wait = MINUTE_MILLIS.saturating_mul(GROWTH.saturating_pow(attempt));
    (wait / i64::from(speed.max(1))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn fresh() -> Delivery {
        Delivery {
            state: DeliveryState::Pending,
            attempts: 0,
            next_at: START,
            repeats_left: 0,
            was_delivered: false,
        }
    }

    #[test]
    fn a_webhook_that_is_never_accepted_is_retried_seven_times_and_then_given_up() {
        let mut delivery = fresh();
        let mut minutes = Vec::new();
        loop {
            let now = delivery.next_at;
            delivery = delivery.after(false, 1, now);
            if delivery.state != DeliveryState::Pending {
                break;
            }
            minutes.push(delivery.next_at.duration_since(now).as_mins());
        }
        assert_eq!(minutes, [1, 4, 16, 64, 256, 1024, 4096]);
        assert_eq!(
            (delivery.state, delivery.attempts),
            (DeliveryState::GivenUp, RETRIES_MAX + 1)
        );
    }

    #[test]
    fn the_speed_divides_every_wait() {
        let delivery = fresh().after(false, 6_000, START);
        assert_eq!(
            delivery.next_at.duration_since(START),
            SignedDuration::from_millis(10)
        );
    }

    #[test]
    fn an_accepted_webhook_is_repeated_only_as_often_as_the_script_says() {
        let taken = fresh().after(true, 1, START);
        assert_eq!(taken.state, DeliveryState::Delivered);
        let mut delivery = Delivery {
            repeats_left: 2,
            ..fresh()
        };
        let mut sent = 0;
        while delivery.state == DeliveryState::Pending {
            // The answer to a repetition does not matter.
            delivery = delivery.after(sent == 0, 1, START);
            sent += 1;
        }
        assert_eq!((delivery.state, sent), (DeliveryState::Delivered, 3));
    }
}
