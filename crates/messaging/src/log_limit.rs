//! Log lines that somebody else can cause as many of as he likes: a few in each stretch of time, and then how many there
//! were not. State: the lines of this stretch.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

/// Lines in each stretch of time.
const LINES_MAX: u32 = 10;
const STRETCH: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<Option<Stretch>>);

#[derive(Debug)]
struct Stretch {
    since: Instant,
    lines: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Whether a line may be written, and how many were not since the last that was.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        let mut stretch = self.0.lock().expect("no holder of this lock panics");
        let current = stretch.get_or_insert(Stretch {
            since: now,
            lines: 0,
            suppressed: 0,
        });
        if now.saturating_duration_since(current.since) >= STRETCH {
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
        assert_eq!(limit.admit(start + STRETCH), Some(48_108));
        assert_eq!(limit.admit(start + STRETCH), Some(0));
    }
}
