//! `kill -9` at random moments under load, again and again on the same folder.

use std::time::Duration;

use test_support::process::ExitKind;

use crate::{
    buyers::ALL_KINDS,
    harness::{CrashHarness, Ending, Moment, seed},
};

/// Number of servers that are killed on one folder.
const ROUNDS: usize = 11;
const ANSWERS_MAX: u64 = 160;

/// Kills one server after the other on one folder.
async fn killed_again_and_again(name: &str) {
    let mut harness = CrashHarness::open(seed(name)).await;
    for _ in 0..ROUNDS {
        let ending = draw(&harness);
        let ended = harness.round(ALL_KINDS, "", ending).await;
        let may_have_stopped = matches!(ending, Ending::KillAsItStops(..));
        assert!(ended == ExitKind::Killed || may_have_stopped && ended == ExitKind::Stopped);
    }
    let books = harness.close().await;
    assert!(!books.tickets.is_empty(), "no ticket was bought");
}

fn draw(harness: &CrashHarness) -> Ending {
    let random = harness.random();
    let moment = Moment {
        answers: usize::try_from(random.below(ANSWERS_MAX)).unwrap(),
        then: Duration::from_micros(random.below(4_000)),
    };
    match random.below(8) {
        0 => Ending::KillAtStart(Duration::from_micros(random.below(120_000))),
        1 => Ending::KillAsItStops(moment, Duration::from_micros(random.below(30_000))),
        _ => Ending::Kill(moment),
    }
}

#[tokio::test]
async fn a_first_folder_survives_every_kill() {
    killed_again_and_again("first").await;
}

#[tokio::test]
async fn a_second_folder_survives_every_kill() {
    killed_again_and_again("second").await;
}

#[tokio::test]
async fn a_third_folder_survives_every_kill() {
    killed_again_and_again("third").await;
}

#[tokio::test]
async fn a_fourth_folder_survives_every_kill() {
    killed_again_and_again("fourth").await;
}

#[tokio::test]
async fn a_fifth_folder_survives_every_kill() {
    killed_again_and_again("fifth").await;
}
