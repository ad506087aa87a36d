//! Limits log lines that a peer can cause any number of: a few in each period, then a count of those suppressed. State:
//! the lines of the current period.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lines in each period.
const LINES_MAX: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Option<Period>>);

#[derive(Debug)]
struct Period {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// If a line may be written: how many were suppressed since the last one.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.0.lock();
        let current = period.get_or_insert(Period {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        if now.saturating_duration_since(current.since) >= PERIOD {
            current.since = now;
            current.lines = 0;
        }
        if current.lines == LINES_MAX {
            current.suppressed += 1;
            return None;
        }
        current.lines += 1;
        Some(std::mem::take(&mut current.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let lines = (0..48_118).filter(|_| limit.admit(start).is_some());
        assert_eq!(lines.count(), 10);
        assert_eq!(limit.admit(start + PERIOD), Some(48_108));
        assert_eq!(limit.admit(start + PERIOD), Some(0));
    }
}
