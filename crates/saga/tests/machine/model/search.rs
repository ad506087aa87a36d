//! The searches: each saga alone with everything going wrong, both together with a few faults, and the proof
//! that a search would notice a participant that does not keep its word.

use stateright::{Checker, Expectation, Model};

use super::participant::Memory;
use super::world::{Town, Trouble};
use crate::story::{PURCHASE, TRIP};

const COMPLETES: &str = "every saga completes";
const COMPENSATED: &str = "every saga is compensated";
const TOMBSTONE: &str = "a tombstone stops a late request of a saga that has ended";
const SILENT: &str = "a step is undone that never answered";
const PARKED: &str = "a way back is parked";

/// Searches every world: each promise must hold in all, and each of these possibilities in one. The floor
/// keeps the search from shrinking unnoticed.
fn search(town: Town, possible: &[&'static str], worlds_min: usize) {
    let checker = town.checker().spawn_bfs().join();
    for promise in checker.model().properties() {
        match promise.expectation {
            Expectation::Always | Expectation::Eventually => {
                checker.assert_no_discovery(promise.name)
            }
            Expectation::Sometimes => {}
        }
    }
    for possibility in possible {
        checker.assert_any_discovery(possibility);
    }
    let worlds = checker.unique_state_count();
    println!("{worlds} worlds");
    assert!(worlds >= worlds_min, "only {worlds} worlds were searched");
}

#[test]
fn a_purchase_keeps_its_promises_whatever_goes_wrong() {
    let town = Town {
        definitions: vec![&PURCHASE],
        trouble: Trouble::Unlimited,
        memory: Memory::Full,
        resumes: 1,
    };
    search(
        town,
        &[COMPLETES, COMPENSATED, TOMBSTONE, SILENT, PARKED],
        25_000,
    );
}

#[test]
fn a_trip_keeps_its_promises_whatever_goes_wrong() {
    let town = Town {
        definitions: vec![&TRIP],
        trouble: Trouble::Unlimited,
        memory: Memory::Full,
        resumes: 1,
    };
    search(
        town,
        &[COMPLETES, COMPENSATED, TOMBSTONE, SILENT, PARKED],
        18_000,
    );
}

#[test]
fn two_unlike_sagas_side_by_side_keep_their_promises() {
    let definitions = vec![&PURCHASE, &TRIP];
    let town = Town {
        definitions,
        trouble: Trouble::Faults(2),
        memory: Memory::Full,
        resumes: 0,
    };
    search(town, &[COMPLETES, COMPENSATED, SILENT], 100_000);
}

/// Whether an effect outlives its saga when participants remember only this much.
fn an_effect_outlives_its_saga(memory: Memory) -> bool {
    let town = Town {
        definitions: vec![&TRIP],
        trouble: Trouble::Unlimited,
        memory,
        resumes: 0,
    };
    let checker = town.checker().spawn_bfs().join();
    checker
        .discovery("a compensated saga has no effect standing")
        .is_some()
}

#[test]
fn the_search_finds_the_effect_left_by_a_participant_without_tombstones() {
    assert!(an_effect_outlives_its_saga(Memory::NoTombstones));
}

#[test]
fn the_search_finds_the_effect_left_by_a_participant_that_forgets_its_refusals() {
    assert!(an_effect_outlives_its_saga(Memory::NoRefusals));
}

#[test]
fn participants_that_remember_leave_no_effect_behind() {
    assert!(!an_effect_outlives_its_saga(Memory::Full));
}
