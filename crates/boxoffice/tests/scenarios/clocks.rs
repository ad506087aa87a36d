//! The clock is set back by twenty minutes, while the app runs or while it is down: pending work continues in time.

use messaging::Clock;
use serde_json::Value;
use ticketing::ReservationsBackend;

use crate::{
    actions::{Purchase, stock},
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

const BACK_MILLIS: i64 = 20 * 60_000;
/// Work that is due within seconds is done within this time, though the corrected clock runs at half speed.
const SOON_SECS: i64 = 60;

/// A payment with an unknown outcome, and a ticket whose cancellation the gateway does not answer.
async fn unclear(app: &TestApp, event: i64) -> (Purchase, Purchase) {
    let given_back = app.purchase(event, app.user(300).await, 300).await;
    app.paid(&given_back, "given-back").await;
    app.wait_until_idle().await;
    let paid = app.purchase(event, app.user(300).await, 300).await;
    app.gateway.set_mode(GatewayMode::Unreachable);
    app.cancel(&given_back).await.ok(202);
    app.wait_until_idle().await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay(&paid, "paid").await.ok(202);
    app.wait_until_idle().await;
    app.gateway.set_mode(GatewayMode::Normal);
    (paid, given_back)
}

/// Advances the clock until the JSON at `path` is as wanted, for at most [`SOON_SECS`].
async fn becomes_soon(app: &TestApp, path: &str, wanted: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    for _ in 0..SOON_SECS {
        last = app.get(path).await.body;
        if wanted(&last) {
            return;
        }
        app.advance(1).await;
        // Gives the app time for its calls to the gateway.
        app.get("/healthz").await.ok(200);
    }
    last = app.eventually(path, |it| *it != last || wanted(it)).await;
    assert!(wanted(&last), "{path} is still {last}");
}

async fn both_end_soon(app: &TestApp, paid: &Purchase, given_back: &Purchase) {
    let payment = format!("/payment/{}", paid.payment);
    becomes_soon(app, &payment, |it| it["status"] == "SUCCEEDED").await;
    app.ticket_becomes(paid, "RESERVED").await;
    let payment = format!("/payment/{}", given_back.payment);
    becomes_soon(app, &payment, |it| it["refund"] == "DONE").await;
    let cancellation = format!("/ticket/{}/cancel", given_back.ticket);
    becomes_soon(app, &cancellation, |it| it["sagaState"] == "COMPLETED").await;
    app.ticket_becomes(given_back, "CANCELLED").await;
}

#[tokio::test]
async fn unknown_payments_and_refunds_are_looked_up_though_the_clock_is_set_back() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(2).await;
        let (paid, given_back) = unclear(app, event).await;
        app.clock.set_back_millis(BACK_MILLIS);
        both_end_soon(app, &paid, &given_back).await;
        assert_eq!(app.stock(event).await, stock(2, 0, 1, 1));
    })
    .await;
}

#[tokio::test]
async fn work_stored_for_a_future_time_is_done_after_a_restart_with_an_earlier_clock() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(3).await;
        let (paid, given_back) = unclear(app, event).await;
        app.reserved(event, app.user(0).await).await;
        app.stop().await;
        app.clock = Clock::manual(app.clock.now().plus_millis(-BACK_MILLIS));
        app.start().await;
        both_end_soon(app, &paid, &given_back).await;

        // A reservation holds no longer than its normal time after the start. Redis keeps the stored times.
        let is_local = app.config.ticketing.reservations == ReservationsBackend::Local;
        let longer_secs = if is_local { 0 } else { BACK_MILLIS / 1000 };
        app.advance(HOLD_SECS + GRACE_SECS + longer_secs).await;
        app.stock_becomes(event, stock(3, 0, 1, 2)).await;
    })
    .await;
}
