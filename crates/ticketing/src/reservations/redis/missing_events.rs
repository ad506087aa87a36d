//! A negative cache: events that the store did not have a moment ago. Requests for events that do not exist cost the
//! store one read a second each. State: when each event was found missing.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use contract::{EventId, Timestamp};

/// Redis knows a new event before it is requested, so an entry delays no sale. It is short because it delays the
/// rebuild of an event that Redis lost.
const TTL_MILLIS: i64 = 1_000;
/// Events beyond this are looked up every time.
const EVENTS_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct MissingEvents(Mutex<HashMap<EventId, Timestamp>>);

impl MissingEvents {
    pub fn contains(&self, event_id: EventId, now: Timestamp) -> bool {
        let found_at = self.found_at();
        found_at
            .get(&event_id)
            .is_some_and(|at| is_recent(*at, now))
    }

    pub fn insert(&self, event_id: EventId, now: Timestamp) {
        let mut found_at = self.found_at();
        if found_at.len() >= EVENTS_MAX {
            found_at.retain(|_, at| is_recent(*at, now));
        }
        if found_at.len() < EVENTS_MAX {
            found_at.insert(event_id, now);
        }
    }

    pub fn remove(&self, event_id: EventId) {
        self.found_at().remove(&event_id);
    }

    fn found_at(&self) -> MutexGuard<'_, HashMap<EventId, Timestamp>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// After the clock was set back, no entry is recent.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    (0..TTL_MILLIS).contains(&now.millis_since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_event_is_cached_for_a_second_and_the_cache_is_bounded() {
        let at = |millis: i64| Timestamp::from_millis(1_700_000_000_000 + millis);
        let missing = MissingEvents::default();
        missing.insert(EventId(1), at(0));
        assert!(missing.contains(EventId(1), at(999)));
        assert!(!missing.contains(EventId(1), at(1_000)));
        assert!(
            !missing.contains(EventId(1), at(-1)),
            "the clock was set back"
        );
        assert!(!missing.contains(EventId(2), at(0)));

        (2..10_000).for_each(|id| missing.insert(EventId(id), at(1)));
        assert_eq!(missing.found_at().len(), EVENTS_MAX);
        missing.insert(EventId(20_000), at(1_001));
        assert!(missing.contains(EventId(20_000), at(1_001)));
        assert_eq!(missing.found_at().len(), 1);
        missing.remove(EventId(20_000));
        assert!(!missing.contains(EventId(20_000), at(1_001)));
    }
}
