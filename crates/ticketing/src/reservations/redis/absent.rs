//! Events that the store did not know a moment ago. Whoever asks for one again is answered from here, so that requests
//! for what does not exist do not become as many questions to the store.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use contract::{EventId, Timestamp};

/// An event that was just made is known to Redis before it is asked for, so this delays nothing; it is short for the
/// sake of one that Redis lost.
const REMEMBERED_MILLIS: i64 = 1_000;
/// What is more is asked for again.
const EVENTS_MAX: usize = 4_096;

/// When each was found absent.
#[derive(Default)]
pub(super) struct Absent(Mutex<HashMap<EventId, Timestamp>>);

impl Absent {
    pub fn contains(&self, event_id: EventId, now: Timestamp) -> bool {
        let found_at = self.found_at();
        found_at
            .get(&event_id)
            .is_some_and(|at| is_recent(*at, now))
    }

    pub fn note(&self, event_id: EventId, now: Timestamp) {
        let mut found_at = self.found_at();
        if found_at.len() >= EVENTS_MAX {
            found_at.retain(|_, at| is_recent(*at, now));
        }
        if found_at.len() < EVENTS_MAX {
            found_at.insert(event_id, now);
        }
    }

    pub fn forget(&self, event_id: EventId) {
        self.found_at().remove(&event_id);
    }

    fn found_at(&self) -> MutexGuard<'_, HashMap<EventId, Timestamp>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// A clock that was set back forgets everything.
fn is_recent(at: Timestamp, now: Timestamp) -> bool {
    (0..REMEMBERED_MILLIS).contains(&now.millis_since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_remembered_for_a_moment_and_never_more_than_fits() {
        let at = |millis: i64| Timestamp::from_millis(1_700_000_000_000 + millis);
        let absent = Absent::default();
        absent.note(EventId(1), at(0));
        assert!(absent.contains(EventId(1), at(999)));
        assert!(!absent.contains(EventId(1), at(1_000)));
        assert!(
            !absent.contains(EventId(1), at(-1)),
            "the clock was set back"
        );
        assert!(!absent.contains(EventId(2), at(0)));

        (2..10_000).for_each(|id| absent.note(EventId(id), at(1)));
        assert_eq!(absent.found_at().len(), EVENTS_MAX);
        absent.note(EventId(20_000), at(1_001));
        assert!(absent.contains(EventId(20_000), at(1_001)));
        assert_eq!(absent.found_at().len(), 1);
        absent.forget(EventId(20_000));
        assert!(!absent.contains(EventId(20_000), at(1_001)));
    }
}
