//! One participant's side of one saga, as every participant must behave: idempotent, by saga.

use saga::Direction;

/// What participants remember by saga.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// What every participant must remember.
    Full,
    /// A compensation that overtakes its request is forgotten.
    NoTombstones,
    /// A refusal is forgotten: the request sent again may be granted.
    NoRefusals,
}

/// What one participant has stored about one saga. Its effect and its answer are one commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Participant {
    /// The effect stands.
    pub taken: bool,
    pub refused: bool,
    /// A compensation was handled: of an effect, or in advance, as a tombstone.
    pub compensated: bool,
    pub stopped_late_request: bool,
}

impl Participant {
    /// Does or undoes its part at most once, whatever arrives how often, and says whether it proceeds.
    pub fn handle(&mut self, direction: Direction, refuse: bool, memory: Memory) -> bool {
        match direction {
            Direction::Request if self.compensated => {
                self.stopped_late_request = true;
                false
            }
            Direction::Request if self.taken => true,
            Direction::Request if self.refused => false,
            Direction::Request => {
                self.taken = !refuse;
                self.refused = refuse && memory != Memory::NoRefusals;
                self.taken
            }
            Direction::Compensation if refuse => self.compensated,
            Direction::Compensation => {
                let leaves_a_mark = self.taken || memory != Memory::NoTombstones;
                self.compensated = self.compensated || leaves_a_mark;
                self.taken = false;
                true
            }
        }
    }
}
