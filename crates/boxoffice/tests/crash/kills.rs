//! `kill -9` at random moments under load, again and again on the same folder.

use std::time::Duration;

use crate::{
    crowd::EVERYBODY,
    server::Ended,
    theatre::{Ending, Moment, Theatre, seed},
};

/// Servers that are killed on one folder.
const ROUNDS: usize = 11;
const ANSWERS_MAX: u64 = 160;

/// A killed server's folder, again and again.
async fn killed_again_and_again(name: &str) {
    let mut theatre = Theatre::open(seed(name)).await;
    for _ in 0..ROUNDS {
        let ending = draw(&theatre);
        let ended = theatre.round(EVERYBODY, "", ending).await;
        let may_have_stopped = matches!(ending, Ending::KillAsItStops(..));
        assert!(ended == Ended::Killed || may_have_stopped && ended == Ended::Stopped);
    }
    let books = theatre.close().await;
    assert!(!books.tickets.is_empty(), "nobody bought anything");
}

fn draw(theatre: &Theatre) -> Ending {
    let random = theatre.random();
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
async fn a_first_folder_outlives_every_kill() {
    killed_again_and_again("first").await;
}

#[tokio::test]
async fn a_second_folder_outlives_every_kill() {
    killed_again_and_again("second").await;
}

#[tokio::test]
async fn a_third_folder_outlives_every_kill() {
    killed_again_and_again("third").await;
}

#[tokio::test]
async fn a_fourth_folder_outlives_every_kill() {
    killed_again_and_again("fourth").await;
}

#[tokio::test]
async fn a_fifth_folder_outlives_every_kill() {
    killed_again_and_again("fifth").await;
}
