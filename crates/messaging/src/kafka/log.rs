//! librdkafka's own words, as quiet and as seldom as they deserve: while brokers are away, every client would say the
//! same with every attempt. State: what was said last of each kind.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use rdkafka::config::RDKafkaLogLevel;

/// Between two lines of one kind.
const LINE_SECS: u64 = 1;
/// Before the same line of one kind is said again.
const SAME_LINE_SECS: u64 = 60;

/// What one client has said.
#[derive(Default)]
pub(super) struct Log(Mutex<HashMap<String, Said>>);

struct Said {
    text: String,
    at: Instant,
    passed_over: u64,
}

impl Log {
    /// A line of librdkafka's.
    pub(super) fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // The first is known and meant; the second comes with every rebalance, and what was not taken is told again.
        let is_expected = ["CONFWARN", "COMMITFAIL"].contains(&facility);
        if is_expected || matches!(level, RDKafkaLogLevel::Debug) {
            tracing::debug!(facility, text, "librdkafka");
            return;
        }
        let Some(passed_over) = self.may_say(facility, text, Instant::now()) else {
            return;
        };
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::error!(facility, text, passed_over, "librdkafka");
            }
            RDKafkaLogLevel::Warning => {
                tracing::warn!(facility, text, passed_over, "librdkafka");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::info!(facility, text, passed_over, "librdkafka");
            }
        }
    }

    /// Whether a line is new or old enough to be said, and how many of its kind were passed over since the last.
    pub(super) fn may_say(&self, kind: &str, text: &str, now: Instant) -> Option<u64> {
        // Behind this stands a number that differs each time.
        let text = text.split(" (after ").next().unwrap_or(text);
        let mut kinds = self.0.lock().expect("no holder of this lock panics");
        let Some(said) = kinds.get_mut(kind) else {
            let said = Said {
                text: text.to_owned(),
                at: now,
                passed_over: 0,
            };
            kinds.insert(kind.to_owned(), said);
            return Some(0);
        };
        let pause = if said.text == text {
            SAME_LINE_SECS
        } else {
            LINE_SECS
        };
        if now.saturating_duration_since(said.at) < Duration::from_secs(pause) {
            said.passed_over += 1;
            return None;
        }
        said.at = now;
        text.clone_into(&mut said.text);
        Some(std::mem::take(&mut said.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_stay_away_do_not_flood_the_log() {
        let (log, start) = (Log::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let said = |kind, text, millis| log.may_say(kind, text, at(millis));
        assert_eq!(said("FAIL", "one: refused (after 1ms)", 0), Some(0));
        assert_eq!(said("FAIL", "one: refused (after 2ms)", 2_000), None);
        assert_eq!(
            said("OTHER", "kinds have nothing to do with one another", 1),
            Some(0)
        );
        // A change is said at once, but no more than one in a second.
        assert_eq!(said("FAIL", "two: refused", 2_001), Some(1));
        assert_eq!(said("FAIL", "one: refused", 2_500), None);
        assert_eq!(said("FAIL", "one: refused", 3_001), Some(1));
        assert_eq!(said("FAIL", "one: refused", 63_000), None);
        assert_eq!(said("FAIL", "one: refused", 63_001), Some(1));
    }
}
