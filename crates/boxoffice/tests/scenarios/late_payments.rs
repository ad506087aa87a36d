//! Payments that succeed, or may have succeeded, after the reservation is gone.

use crate::{
    actions::{Purchase, entries, expiry_of, stock},
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

/// A purchase whose payment is at the gateway, without an answer.
async fn unanswered(app: &TestApp, event: i64, user: i64, mode: GatewayMode) -> Purchase {
    let purchase = app.purchase(event, user, 300).await;
    app.gateway.set_mode(mode);
    app.pay(&purchase, "card-1").await.ok(202);
    purchase
}

async fn is_refunded(app: &TestApp, purchase: &Purchase, user: i64) {
    let payment = app.payment_becomes_in_time(purchase, "CANCELLED").await;
    assert_eq!(payment["refund"], "DONE");
    app.wait_until_idle().await;
    let charge = app.gateway.charge("card-1");
    assert_eq!(charge, Some(("CANCELED".to_owned(), 700, 0)));
    app.has_no_ticket(&purchase.ticket).await;
    let ledger = app.ledger(user).await;
    assert_eq!(ledger.last(), entries(&[("RESTORED", 300, 300)]).last());
    let path = format!("/saga/{}", expiry_of(&purchase.ticket));
    app.advance_until(&path, |it| it["sagaState"] == "COMPENSATED")
        .await;
}

#[tokio::test]
async fn a_payment_for_a_released_ticket_is_refunded() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = unanswered(app, event, user, GatewayMode::LosesAnswers).await;
        app.release(&purchase.ticket).await.ok(204);
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
        assert_eq!(app.points(user).await, 0);
        let next = app.purchase(event, app.user(0).await, 0).await;

        app.gateway.set_mode(GatewayMode::Normal);
        is_refunded(app, &purchase, user).await;
        app.paid(&next, "card-of-the-next").await;
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_never_reached_the_gateway_is_given_up_and_the_points_are_restored() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = unanswered(app, event, user, GatewayMode::Unreachable).await;
        // The outcome is unknown until the gateway can be queried, so the seat is kept until then.
        app.advance(HOLD_SECS + GRACE_SECS).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        app.eventually(&path, |it| it["sagaState"] == "STARTED")
            .await;
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
        assert_eq!(app.payment(&purchase).await["status"], "CONFIRMING");

        app.gateway.set_mode(GatewayMode::Normal);
        app.payment_becomes_in_time(&purchase, "DELETED").await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        app.points_become(user, 300).await;
        assert_eq!(app.gateway.charge("card-1"), None);
    })
    .await;
}
