//! A server that restarts late: every buyer who has paid gets the ticket, however long the outage was.

use contract::domain::PaymentStatus;
use messaging::Clock;
use test_support::process::ExitKind;

use crate::{
    buyers::BuyerKind,
    harness::{CrashHarness, Ending, seed},
    promises,
};

/// The server crashes at this failpoint and restarts when every reservation is overdue.
async fn away_until_everything_is_overdue(failpoint: &str) {
    let mut harness = CrashHarness::open(seed(failpoint)).await;
    let failpoints = format!("{failpoint}=4*off->return");
    let buyers = [(BuyerKind::Pays, 1)];
    let ended = harness.round(&buyers, &failpoints, Ending::ByItself).await;
    assert_eq!(ended, ExitKind::Aborted);
    let books = promises::read(harness.path());
    let last = books.reservations.values().map(|it| it.lapses_at).max();
    if let Some(last) = last {
        Clock::System.wait_until(last).await;
    }

    let books = harness.close().await;
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
        "a buyer was refunded instead of getting the ticket"
    );
}

#[tokio::test]
async fn a_buyer_whose_payment_was_confirmed_has_the_ticket_after_an_outage() {
    away_until_everything_is_overdue("ticketing.after_complete").await;
}

#[tokio::test]
async fn a_buyer_who_was_charged_without_an_answer_has_the_ticket_after_an_outage() {
    away_until_everything_is_overdue("payment.after_gateway").await;
}
