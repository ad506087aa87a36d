//! A server that comes back late: who has paid has the ticket, however long it was away.

use contract::domain::PaymentStatus;
use messaging::Clock;

use crate::{
    crowd::Kind,
    promises,
    server::{Ended, LOOK, PATIENCE},
    theatre::{Ending, Theatre, seed},
};

/// The server dies at this place, and comes back when every reservation should have lapsed.
async fn away_until_everything_is_overdue(failpoint: &str) {
    let mut theatre = Theatre::open(seed(failpoint)).await;
    let failpoints = format!("{failpoint}=4*off->return");
    let buyers = [(Kind::Pays, 1)];
    let ended = theatre.round(&buyers, &failpoints, Ending::ByItself).await;
    assert_eq!(ended, Ended::Aborted);
    let books = promises::read(theatre.path());
    let last = books.reservations.values().map(|it| it.lapses_at).max();
    let mut look = tokio::time::interval(LOOK);
    let overdue = async {
        while last.is_some_and(|last| Clock::System.now() < last) {
            look.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, overdue).await.unwrap();

    let books = theatre.close().await;
    let has = |status| {
        books
            .payments
            .values()
            .filter(move |it| it.status == status)
    };
    assert!(has(PaymentStatus::Succeeded).count() > 4);
    assert_eq!(
        has(PaymentStatus::Cancelled).count(),
        0,
        "somebody got money and no ticket"
    );
}

#[tokio::test]
async fn a_buyer_who_was_told_of_the_payment_has_the_ticket_after_an_outage() {
    away_until_everything_is_overdue("ticketing.after_complete").await;
}

#[tokio::test]
async fn a_buyer_who_was_charged_and_not_told_has_the_ticket_after_an_outage() {
    away_until_everything_is_overdue("payment.after_gateway").await;
}
