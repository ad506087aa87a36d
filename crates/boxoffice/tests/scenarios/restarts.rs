//! A stop and a start in the middle of each stage: everything continues where it was.

use crate::{
    actions::{entries, expiry_of, stock},
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

#[tokio::test]
async fn a_purchase_continues_after_a_restart_between_any_two_steps() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(2).await, app.user(300).await);
        app.restart().await;
        assert_eq!(app.stock(event).await, stock(2, 0, 0, 2));
        let ticket = app.reserved(event, user).await;
        app.restart().await;
        assert_eq!(app.stock(event).await, stock(2, 1, 0, 1));
        app.reserve(event, user)
            .await
            .refused(409, "ALREADY_RESERVED");

        // In the middle of the saga.
        app.process(&ticket, event, user, 300).await.ok(202);
        app.restart().await;
        let purchase = app.payable_purchase(&ticket).await;
        app.restart().await;
        assert_eq!(app.payment(&purchase).await["status"], "CREATED");

        // In the middle of issuing.
        app.pay(&purchase, "card-1").await.ok(200);
        app.restart().await;
        app.stock_becomes(event, stock(2, 0, 1, 1)).await;
        app.wait_until_idle().await;
        app.restart().await;
        assert_eq!(app.stock(event).await, stock(2, 0, 1, 1));
        app.reserve(event, user)
            .await
            .refused(409, "ALREADY_PURCHASED");
        assert_eq!(
            app.ledger(user).await,
            entries(&[("GRANTED", 300, 300), ("RESERVED", -300, 0), ("USED", 0, 0)])
        );
    })
    .await;
}

#[tokio::test]
async fn a_compensating_purchase_continues_compensating_after_a_restart() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        app.update_user(user, "ACTIVE", true).await;
        let ticket = app.reserved(event, user).await;
        app.process(&ticket, event, user, 300).await.ok(202);
        app.restart().await;
        app.progress_becomes(&ticket, "COMPENSATED").await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        assert_eq!(app.points(user).await, 300);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_at_the_gateway_is_settled_after_a_restart() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let purchase = app.purchase(event, user, 0).await;
        app.gateway.set_mode(GatewayMode::LosesAnswers);
        app.pay(&purchase, "card-1").await.ok(202);
        app.stop().await;
        app.gateway.set_mode(GatewayMode::Normal);
        app.start().await;
        app.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_reservation_that_expired_during_a_downtime_is_freed_a_grace_period_after_the_start() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = app.purchase(event, user, 300).await;
        app.stop().await;
        app.clock.advance_millis((HOLD_SECS + GRACE_SECS) * 1000);
        app.start().await;
        app.advance(GRACE_SECS - 1).await;
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
        app.pay(&purchase, "card-1")
            .await
            .refused(409, "DEADLINE_PASSED");

        app.advance(1).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        app.restart().await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        app.eventually(&path, |it| it["sagaState"] == "COMPLETED")
            .await;
        app.points_become(user, 300).await;
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_keeps_its_schedule_after_a_restart() {
    on_every_deployment(async |app: &mut TestApp| {
        app.send_text("user.check.active.request", "poison", "[]")
            .await;
        for reissues in 1..=3 {
            assert_eq!(app.dead_letter("WAITING").await["reissues"], reissues);
            app.restart().await;
            app.advance(10).await;
        }
        assert_eq!(app.dead_letter("PARKED").await["reissues"], 3);
        app.dead_letters_left = 1;
    })
    .await;
}
