//! A stop and a start in the middle of each stage: everything goes on where it was.

use crate::{
    desk::{entries, expiry_of, stock},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

#[tokio::test]
async fn a_purchase_goes_on_after_a_restart_between_any_two_of_its_steps() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(2).await, house.user(300).await);
        house.restart().await;
        assert_eq!(house.stock(event).await, stock(2, 0, 0, 2));
        let ticket = house.reserved(event, user).await;
        house.restart().await;
        assert_eq!(house.stock(event).await, stock(2, 1, 0, 1));
        house
            .reserve(event, user)
            .await
            .refused(409, "ALREADY_RESERVED");

        // In the middle of the saga.
        house.process(&ticket, event, user, 300).await.ok(202);
        house.restart().await;
        let purchase = house.processed_already(&ticket).await;
        house.restart().await;
        assert_eq!(house.payment(&purchase).await["status"], "CREATED");

        // In the middle of issuing.
        house.pay(&purchase, "card-1").await.ok(200);
        house.restart().await;
        house.stock_becomes(event, stock(2, 0, 1, 1)).await;
        house.rest().await;
        house.restart().await;
        assert_eq!(house.stock(event).await, stock(2, 0, 1, 1));
        house
            .reserve(event, user)
            .await
            .refused(409, "ALREADY_PURCHASED");
        assert_eq!(
            house.ledger(user).await,
            entries(&[("GRANTED", 300, 300), ("RESERVED", -300, 0), ("USED", 0, 0)])
        );
    })
    .await;
}

#[tokio::test]
async fn a_purchase_that_turns_back_goes_on_turning_back_after_a_restart() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        house.judge(user, "ACTIVE", true).await;
        let ticket = house.reserved(event, user).await;
        house.process(&ticket, event, user, 300).await.ok(202);
        house.restart().await;
        house.progress_becomes(&ticket, "COMPENSATED").await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        assert_eq!(house.points(user).await, 300);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_was_at_the_gateway_is_settled_after_a_restart() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let purchase = house.purchase(event, user, 0).await;
        house.gateway.turn(Mood::Dumb);
        house.pay(&purchase, "card-1").await.ok(202);
        house.stop().await;
        house.gateway.turn(Mood::Well);
        house.start().await;
        house.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn what_lapsed_while_nobody_was_there_is_taken_back_a_grace_after_the_start() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = house.purchase(event, user, 300).await;
        house.stop().await;
        house.clock.advance_millis((HOLD_SECS + GRACE_SECS) * 1000);
        house.start().await;
        house.pass(GRACE_SECS - 1).await;
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
        house
            .pay(&purchase, "card-1")
            .await
            .refused(409, "DEADLINE_PASSED");

        house.pass(1).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        house.restart().await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        house
            .eventually(&path, |it| it["sagaState"] == "COMPLETED")
            .await;
        house.points_become(user, 300).await;
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_keeps_its_schedule_over_a_restart() {
    play(async |house: &mut House| {
        house
            .send_text("user.check.active.request", "poison", "[]")
            .await;
        for reissues in 1..=3 {
            assert_eq!(house.dead_letter("WAITING").await["reissues"], reissues);
            house.restart().await;
            house.pass(10).await;
        }
        assert_eq!(house.dead_letter("PARKED").await["reissues"], 3);
        house.dead_letters_left = 1;
    })
    .await;
}
