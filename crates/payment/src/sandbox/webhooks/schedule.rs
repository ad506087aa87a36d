//! What becomes of a webhook after it was sent, or was not. Pure.

use contract::Timestamp;

/// How often a webhook is sent again.
pub(in crate::sandbox) const RETRIES_MAX: u32 = 7;
const MINUTE_MILLIS: i64 = 60_000;
/// Each wait is so many times the one before: 1, 4, 16, 64, 256, 1024, 4096 minutes.
const GROWTH: i64 = 4;

/// Where a webhook stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Standing {
    Pending,
    Delivered,
    GivenUp,
}

impl Standing {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Delivered => "DELIVERED",
            Self::GivenUp => "GIVEN_UP",
        }
    }
}

/// What is known of a webhook's deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Course {
    pub standing: Standing,
    /// How often it was sent, or should have been.
    pub attempts: u32,
    pub next_at: Timestamp,
    /// How often it is still sent after its 200.
    pub repeats_left: u32,
    pub was_delivered: bool,
}

impl Course {
    /// After one more attempt.
    #[must_use]
    pub fn after(self, is_delivered: bool, speed: u32, now: Timestamp) -> Self {
        let was_delivered = self.was_delivered || is_delivered;
        let repeats_left = if self.was_delivered {
            self.repeats_left.saturating_sub(1)
        } else {
            self.repeats_left
        };
        let is_wanted = !was_delivered || repeats_left > 0;
        let standing = match (is_wanted, self.attempts < RETRIES_MAX, was_delivered) {
            (true, true, _) => Standing::Pending,
            (_, _, true) => Standing::Delivered,
            (_, _, false) => Standing::GivenUp,
        };
        Self {
            standing,
            attempts: self.attempts + 1,
            next_at: now.plus_millis(wait_millis(self.attempts, speed)),
            repeats_left,
            was_delivered,
        }
    }
}

/// How long after its attempt with this number, from 0, a webhook is sent again.
fn wait_millis(attempt: u32, speed: u32) -> i64 {
    let wait = MINUTE_MILLIS.saturating_mul(GROWTH.saturating_pow(attempt));
    (wait / i64::from(speed.max(1))).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn fresh() -> Course {
        Course {
            standing: Standing::Pending,
            attempts: 0,
            next_at: START,
            repeats_left: 0,
            was_delivered: false,
        }
    }

    #[test]
    fn a_webhook_that_nobody_takes_is_sent_again_seven_times_and_then_given_up() {
        let mut course = fresh();
        let mut minutes = Vec::new();
        loop {
            let now = course.next_at;
            course = course.after(false, 1, now);
            if course.standing != Standing::Pending {
                break;
            }
            minutes.push(course.next_at.millis_since(now) / MINUTE_MILLIS);
        }
        assert_eq!(minutes, [1, 4, 16, 64, 256, 1024, 4096]);
        assert_eq!(
            (course.standing, course.attempts),
            (Standing::GivenUp, RETRIES_MAX + 1)
        );
    }

    #[test]
    fn a_speed_divides_every_wait() {
        let course = fresh().after(false, 6_000, START);
        assert_eq!(course.next_at.millis_since(START), 10);
    }

    #[test]
    fn a_webhook_that_was_taken_is_sent_again_only_as_often_as_the_script_says() {
        let taken = fresh().after(true, 1, START);
        assert_eq!(taken.standing, Standing::Delivered);
        let mut course = Course {
            repeats_left: 2,
            ..fresh()
        };
        let mut sent = 0;
        while course.standing == Standing::Pending {
            // What the receiver says to a repetition does not matter.
            course = course.after(sent == 0, 1, START);
            sent += 1;
        }
        assert_eq!((course.standing, sent), (Standing::Delivered, 3));
    }
}
