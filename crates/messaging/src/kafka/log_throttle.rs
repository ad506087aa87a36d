//! Limits librdkafka's log lines: while brokers are unreachable, every client logs the same line with every attempt.
//! State: the last line of each kind.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;

/// The least time between two lines of one kind.
const LINE_SECS: u64 = 1;
/// The least time between two equal lines of one kind.
const SAME_LINE_SECS: u64 = 60;

/// The lines of one client.
#[derive(Default)]
pub(super) struct LogThrottle(Mutex<HashMap<String, LastLine>>);

struct LastLine {
    text: String,
    at: Instant,
    suppressed: u64,
}

impl LogThrottle {
    /// Logs a line of librdkafka, unless it is suppressed.
    pub(super) fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // CONFWARN: the settings are intended. COMMITFAIL: expected in each rebalance, the offsets are committed again.
        let is_expected = ["CONFWARN", "COMMITFAIL"].contains(&facility);
        if is_expected || matches!(level, RDKafkaLogLevel::Debug) {
            tracing::debug!(facility, text, "librdkafka");
            return;
        }
        let Some(suppressed) = self.admit(facility, text, Instant::now()) else {
            return;
        };
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::error!(facility, text, suppressed, "librdkafka");
            }
            RDKafkaLogLevel::Warning => {
                tracing::warn!(facility, text, suppressed, "librdkafka");
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::info!(facility, text, suppressed, "librdkafka");
            }
        }
    }

    /// Whether to log a line, and how many of its kind were suppressed since the last one.
    pub(super) fn admit(&self, kind: &str, text: &str, now: Instant) -> Option<u64> {
        // The rest is a duration, which differs each time.
        let text = text.split(" (after ").next().unwrap_or(text);
        let mut kinds = self.0.lock();
        let Some(last) = kinds.get_mut(kind) else {
            let last = LastLine {
                text: text.to_owned(),
                at: now,
                suppressed: 0,
            };
            kinds.insert(kind.to_owned(), last);
            return Some(0);
        };
        let pause = if last.text == text {
            SAME_LINE_SECS
        } else {
            LINE_SECS
        };
        if now.saturating_duration_since(last.at) < Duration::from_secs(pause) {
            last.suppressed += 1;
            return None;
        }
        last.at = now;
        text.clone_into(&mut last.text);
        Some(std::mem::take(&mut last.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_stay_unreachable_do_not_flood_the_log() {
        let (log, start) = (LogThrottle::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let admitted = |kind, text, millis| log.admit(kind, text, at(millis));
        assert_eq!(admitted("FAIL", "one: refused (after 1ms)", 0), Some(0));
        assert_eq!(admitted("FAIL", "one: refused (after 2ms)", 2_000), None);
        assert_eq!(
            admitted("OTHER", "kinds have nothing to do with one another", 1),
            Some(0)
        );
        // A different line is logged at once, but at most one each second.
        assert_eq!(admitted("FAIL", "two: refused", 2_001), Some(1));
        assert_eq!(admitted("FAIL", "one: refused", 2_500), None);
        assert_eq!(admitted("FAIL", "one: refused", 3_001), Some(1));
        assert_eq!(admitted("FAIL", "one: refused", 63_000), None);
        assert_eq!(admitted("FAIL", "one: refused", 63_001), Some(1));
    }
}
