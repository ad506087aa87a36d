//! What happened in a run: one line a step. State: the hash over all lines, and the last of them.

use std::collections::VecDeque;

/// Lines that a failed run shows.
const KEPT: usize = 50;
/// FNV-1a, 64 bits.
const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01B3;

#[derive(Debug)]
pub struct Trace {
    /// Over every line so far.
    pub hash: u64,
    pub steps: u64,
    last: VecDeque<String>,
    prints: bool,
}

impl Trace {
    #[must_use]
    pub fn new(prints: bool) -> Self {
        Self {
            hash: OFFSET,
            steps: 0,
            last: VecDeque::new(),
            prints,
        }
    }

    /// Adds a step.
    pub fn add(&mut self, line: String) {
        self.steps += 1;
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        if self.prints {
            println!("{line}");
        }
        self.last.push_back(line);
        if self.last.len() > KEPT {
            self.last.pop_front();
        }
    }

    #[must_use]
    pub fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
