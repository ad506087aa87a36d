//! The clock is set back by twenty minutes, while the house runs or while it is down: whatever waits goes on in its time.

use messaging::Clock;
use serde_json::Value;
use ticketing::ReservationsBackend;

use crate::{
    desk::{Purchase, stock},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

const BACK_MILLIS: i64 = 20 * 60_000;
/// What is looked at in seconds is looked at in this many, though they pass at half speed.
const SOON_SECS: i64 = 60;

/// A payment whose outcome is not known, and a ticket that its buyer gives back, of which the gateway says nothing.
async fn unclear(house: &House, event: i64) -> (Purchase, Purchase) {
    let given_back = house.purchase(event, house.user(300).await, 300).await;
    house.paid(&given_back, "given-back").await;
    house.rest().await;
    let paid = house.purchase(event, house.user(300).await, 300).await;
    house.gateway.turn(Mood::Away);
    house.cancel(&given_back).await.ok(202);
    house.rest().await;
    house.gateway.turn(Mood::Dumb);
    house.pay(&paid, "paid").await.ok(202);
    house.rest().await;
    house.gateway.turn(Mood::Well);
    (paid, given_back)
}

/// The JSON at `path` becomes as wanted before many seconds have passed.
async fn becomes_soon(house: &House, path: &str, wanted: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    for _ in 0..SOON_SECS {
        last = house.get(path).await.body;
        if wanted(&last) {
            return;
        }
        house.pass(1).await;
        // Lets the house and the gateway talk meanwhile.
        house.get("/healthz").await.ok(200);
    }
    last = house.eventually(path, |it| *it != last || wanted(it)).await;
    assert!(wanted(&last), "{path} is still {last}");
}

async fn both_end_soon(house: &House, paid: &Purchase, given_back: &Purchase) {
    let payment = format!("/payment/{}", paid.payment);
    becomes_soon(house, &payment, |it| it["status"] == "SUCCEEDED").await;
    house.ticket_becomes(paid, "RESERVED").await;
    let payment = format!("/payment/{}", given_back.payment);
    becomes_soon(house, &payment, |it| it["refund"] == "DONE").await;
    let cancellation = format!("/ticket/{}/cancel", given_back.ticket);
    becomes_soon(house, &cancellation, |it| it["sagaState"] == "COMPLETED").await;
    house.ticket_becomes(given_back, "CANCELLED").await;
}

#[tokio::test]
async fn unclear_payments_and_refunds_are_looked_up_though_the_clock_is_set_back() {
    play(async |house: &mut House| {
        let event = house.event(2).await;
        let (paid, given_back) = unclear(house, event).await;
        house.clock.set_back_millis(BACK_MILLIS);
        both_end_soon(house, &paid, &given_back).await;
        assert_eq!(house.stock(event).await, stock(2, 0, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn what_was_stored_for_a_time_that_is_still_to_come_is_looked_at_after_a_restart() {
    play(async |house: &mut House| {
        let event = house.event(3).await;
        let (paid, given_back) = unclear(house, event).await;
        house.reserved(event, house.user(0).await).await;
        house.stop().await;
        house.clock = Clock::manual(house.clock.now().plus_millis(-BACK_MILLIS));
        house.start().await;
        both_end_soon(house, &paid, &given_back).await;

        // A hold is no longer than it was meant to be, from the start. Redis keeps the times that it was told.
        let is_local = house.config.ticketing.reservations == ReservationsBackend::Local;
        let longer_secs = if is_local { 0 } else { BACK_MILLIS / 1000 };
        house.pass(HOLD_SECS + GRACE_SECS + longer_secs).await;
        house.stock_becomes(event, stock(3, 0, 1, 2)).await;
    })
    .await;
}
