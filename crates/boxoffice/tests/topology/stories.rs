//! A crowd buys: in peace, and while things go away.

use std::time::Instant;

use futures::{StreamExt, stream};
use messaging::Random;
use tokio::sync::Mutex;

use crate::{
    asking::client,
    buyer::{Buyer, Kind, Outcome, put_on_sale},
    chaos,
    deployment::Deployment,
    rest,
};

/// Rounds, unless more are asked for: a whole deck of faults. And the buyers of each.
const ROUNDS: usize = chaos::ROUNDS_OF_DECK;
const BUYERS: usize = 40;
const BUYERS_AT_ONCE: usize = 16;
/// The engines are everybody's, and some take them down.
pub static TURN: Mutex<()> = Mutex::const_new(());

pub async fn crowd(
    deployment: &Deployment,
    name: &str,
    wishes: impl IntoIterator<Item = (Kind, i64)>,
) -> Vec<Outcome> {
    let begun = Instant::now();
    let client = client();
    let buyers = wishes.into_iter().enumerate();
    let buyers = buyers.map(|(number, (kind, event))| Buyer {
        deployment,
        client: client.clone(),
        name: format!("{name}b{number}"),
        kind,
        event,
        begun,
    });
    let acting = stream::iter(buyers).map(|buyer| async move { buyer.act().await });
    acting.buffer_unordered(BUYERS_AT_ONCE).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_has_a_ticket_and_all_books_agree() {
    let _turn = TURN.lock().await;
    // Given two processes of each service, and tickets for everybody,
    let deployment = Deployment::open().await;
    let event = put_on_sale(&deployment, "show", 100).await;
    // when sixty buy, each at any of the processes,
    let wishes = std::iter::repeat_n((Kind::Pays, event), 60);
    let outcomes = crowd(&deployment, "peace", wishes).await;
    // then each of them has a ticket, and nothing is left over anywhere.
    let owning = outcomes.iter().filter(|it| matches!(it, Outcome::Owns(_)));
    assert_eq!(owning.count(), 60, "{outcomes:?}");
    let books = rest::come_to_rest(&deployment, &[event]).await;
    assert_eq!(books.tickets.len(), 60);
    rest::hold(&deployment, &[event], &outcomes, &books).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_away_everything_ends_and_all_books_agree() {
    let _turn = TURN.lock().await;
    // Given two processes of each service, and two shows, one with tickets for everybody, the other for few,
    let seed = seed();
    let random = Random::seeded(seed);
    let deployment = Deployment::open().await;
    let (large, small) = (
        put_on_sale(&deployment, "large", 10_000).await,
        put_on_sale(&deployment, "small", 12).await,
    );
    let events = [large, small];
    let mut outcomes = Vec::new();
    let hands = chaos::deal(&random, &deployment, rounds());
    for (round, faults) in hands.iter().enumerate() {
        // when something goes away in the middle of a crowd,
        let told: Vec<_> = faults.iter().map(chaos::Fault::describe).collect();
        eprintln!("round {round}: {}", told.join("; "));
        let wishes: Vec<_> = (0..BUYERS)
            .map(|_| {
                let event = if random.below(4) == 0 { small } else { large };
                (draw(&random), event)
            })
            .collect();
        chaos::arm(&deployment, faults).await;
        let begun = Instant::now();
        let name = format!("r{round}");
        let (came_to, ()) = tokio::join!(
            crowd(&deployment, &name, wishes),
            chaos::strike(&deployment, faults)
        );
        eprintln!(
            "round {round}: {} after {:?}",
            tally(&came_to),
            begun.elapsed()
        );
        outcomes.extend(came_to);
        // then everything ends by itself, and every promise holds.
        let books = rest::come_to_rest(&deployment, &events).await;
        rest::hold(&deployment, &events, &outcomes, &books).await;
        eprintln!("round {round}: at rest after {:?}", begun.elapsed());
    }
    assert!(outcomes.iter().any(|it| matches!(it, Outcome::Owns(_))));
    assert!(!outcomes.contains(&Outcome::SoldOut(large)), "it is not");
}

fn draw(random: &Random) -> Kind {
    match random.below(16) {
        0 | 1 => Kind::Cancels,
        2 => Kind::Releases,
        3 => Kind::PaysInPoints,
        4 | 5 => Kind::Deposits,
        6 => Kind::NeverDeposits,
        7 => Kind::Leaves,
        8 => Kind::NeverPays,
        9 | 10 => Kind::AsksTwice,
        11 | 12 => Kind::PaysTwice,
        _ => Kind::Pays,
    }
}

/// The seed of the faults: a new one, or the one that is to be played again.
fn seed() -> u64 {
    let seed = match std::env::var("TOPOLOGY_SEED") {
        Ok(text) => text.parse().expect("TOPOLOGY_SEED is a whole number"),
        Err(_) => Random::System.below(u64::MAX),
    };
    eprintln!("TOPOLOGY_SEED={seed}");
    seed
}

fn rounds() -> usize {
    let rounds = std::env::var("TOPOLOGY_ROUNDS");
    rounds.map_or(ROUNDS, |text| {
        text.parse().expect("TOPOLOGY_ROUNDS is a whole number")
    })
}

/// How many came to what.
fn tally(outcomes: &[Outcome]) -> String {
    let count = |is: fn(&Outcome) -> bool| outcomes.iter().filter(|it| is(it)).count();
    format!(
        "{} own, {} gave back, {} released, {} found it sold out, {} lapsed, {} compensated, {} held unknown",
        count(|it| matches!(it, Outcome::Owns(_))),
        count(|it| matches!(it, Outcome::GaveBack(_))),
        count(|it| matches!(it, Outcome::Released(_))),
        count(|it| matches!(it, Outcome::SoldOut(_))),
        count(|it| matches!(it, Outcome::Lapsed(_))),
        count(|it| matches!(it, Outcome::Compensated(_))),
        count(|it| matches!(it, Outcome::HeldUnknown)),
    )
}
