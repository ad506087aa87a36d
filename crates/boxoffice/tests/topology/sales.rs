//! Buyers act, without faults and with faults.

use std::time::Instant;

use futures::{StreamExt, stream};
use messaging::Random;
use tokio::sync::Mutex;

use crate::{
    buyer::{BuyerKind, BuyerOutcome, ClusterBuyer, put_on_sale},
    chaos,
    deployment::Deployment,
    idle,
    requests::client,
};

/// Default number of rounds, which contain every kind of fault, and the buyers of each round.
const ROUNDS: usize = chaos::ROUNDS_PER_SET;
const BUYERS: usize = 40;
const BUYERS_AT_ONCE: usize = 16;
/// Tests share the engines and some crash them, so only one test runs at a time.
pub static ENGINES_LOCK: Mutex<()> = Mutex::const_new(());

pub async fn run_buyers(
    deployment: &Deployment,
    name: &str,
    wishes: impl IntoIterator<Item = (BuyerKind, i64)>,
) -> Vec<BuyerOutcome> {
    let begun = Instant::now();
    let client = client();
    let buyers = wishes.into_iter().enumerate();
    let buyers = buyers.map(|(number, (kind, event))| ClusterBuyer {
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
async fn every_buyer_has_a_ticket_and_all_books_agree() {
    let _engines = ENGINES_LOCK.lock().await;
    // Given two processes of each service, and tickets for every buyer,
    let deployment = Deployment::open().await;
    let event = put_on_sale(&deployment, "show", 100).await;
    // when sixty buy, each at any of the processes,
    let wishes = std::iter::repeat_n((BuyerKind::Pays, event), 60);
    let outcomes = run_buyers(&deployment, "peace", wishes).await;
    // then each of them has a ticket, and nothing stays pending.
    let owning = outcomes
        .iter()
        .filter(|it| matches!(it, BuyerOutcome::Owns(_)));
    assert_eq!(owning.count(), 60, "{outcomes:?}");
    let books = idle::wait_until_idle(&deployment, &[event]).await;
    assert_eq!(books.tickets.len(), 60);
    idle::hold(&deployment, &[event], &outcomes, &books).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_every_kind_of_fault_all_purchases_end_and_all_books_agree() {
    let _engines = ENGINES_LOCK.lock().await;
    // Given two processes of each service, and two events, one with tickets for every buyer, the other with few,
    let seed = seed();
    let random = Random::seeded(seed);
    let deployment = Deployment::open().await;
    let (large, small) = (
        put_on_sale(&deployment, "large", 10_000).await,
        put_on_sale(&deployment, "small", 12).await,
    );
    let events = [large, small];
    let mut outcomes = Vec::new();
    let rounds_of_faults = chaos::draw_rounds(&random, &deployment, rounds());
    for (round, faults) in rounds_of_faults.iter().enumerate() {
        // when faults occur while buyers act,
        let answer: Vec<_> = faults.iter().map(chaos::Fault::describe).collect();
        eprintln!("round {round}: {}", answer.join("; "));
        let wishes: Vec<_> = (0..BUYERS)
            .map(|_| {
                let event = if random.below(4) == 0 { small } else { large };
                (draw(&random), event)
            })
            .collect();
        chaos::arm_failpoints(&deployment, faults).await;
        let begun = Instant::now();
        let name = format!("r{round}");
        let (came_to, ()) = tokio::join!(
            run_buyers(&deployment, &name, wishes),
            chaos::apply_all(&deployment, faults)
        );
        eprintln!(
            "round {round}: {} after {:?}",
            summary(&came_to),
            begun.elapsed()
        );
        outcomes.extend(came_to);
        // then every purchase completes by itself, and every invariant holds.
        let books = idle::wait_until_idle(&deployment, &events).await;
        idle::hold(&deployment, &events, &outcomes, &books).await;
        eprintln!("round {round}: idle after {:?}", begun.elapsed());
    }
    assert!(
        outcomes
            .iter()
            .any(|it| matches!(it, BuyerOutcome::Owns(_)))
    );
    assert!(
        !outcomes.contains(&BuyerOutcome::SoldOut(large)),
        "the large event is not sold out"
    );
}

fn draw(random: &Random) -> BuyerKind {
    match random.below(16) {
        0 | 1 => BuyerKind::Cancels,
        2 => BuyerKind::Releases,
        3 => BuyerKind::PaysInPoints,
        4 | 5 => BuyerKind::Deposits,
        6 => BuyerKind::NeverDeposits,
        7 => BuyerKind::NeverProcesses,
        8 => BuyerKind::NeverPays,
        9 | 10 => BuyerKind::SendsTwice,
        11 | 12 => BuyerKind::PaysTwice,
        _ => BuyerKind::Pays,
    }
}

/// A new seed, or the one that `TOPOLOGY_SEED` gives.
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

/// Counts by outcome.
fn summary(outcomes: &[BuyerOutcome]) -> String {
    let count = |is: fn(&BuyerOutcome) -> bool| outcomes.iter().filter(|it| is(it)).count();
    format!(
        "{} own, {} cancelled, {} released, {} sold out, {} expired, {} compensated, {} reservation unknown",
        count(|it| matches!(it, BuyerOutcome::Owns(_))),
        count(|it| matches!(it, BuyerOutcome::Cancelled(_))),
        count(|it| matches!(it, BuyerOutcome::Released(_))),
        count(|it| matches!(it, BuyerOutcome::SoldOut(_))),
        count(|it| matches!(it, BuyerOutcome::Expired(_))),
        count(|it| matches!(it, BuyerOutcome::Compensated(_))),
        count(|it| matches!(it, BuyerOutcome::ReservationUnknown)),
    )
}
