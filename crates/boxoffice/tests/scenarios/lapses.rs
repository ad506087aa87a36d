//! Reservations that nobody pays for.

use serde_json::json;

use crate::{
    desk::{confirmation, entries, expiry_of, pairs, saga_of, stock},
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

#[tokio::test]
async fn a_payment_is_taken_until_its_deadline_and_the_ticket_stays_for_as_long() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(2).await, house.user(0).await);
        let in_time = house.purchase(event, user, 0).await;
        let late = house.purchase(event, house.user(0).await, 0).await;

        house.pass(HOLD_SECS).await;
        house.paid(&in_time, "card-1").await;
        house.clock.advance_millis(1);
        house
            .pay(&late, "card-2")
            .await
            .refused(409, "DEADLINE_PASSED");
        assert_eq!(house.gateway.charge("card-2"), None);
        assert_eq!(house.stock(event).await, stock(2, 1, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn what_is_never_paid_lapses_after_the_grace_and_gives_everything_back() {
    play(async |house: &mut House| {
        // Given a purchase, and a claim elsewhere that lapses one second before it.
        let (elsewhere, event) = (house.event(1).await, house.event(1).await);
        house.reserved(elsewhere, house.user(0).await).await;
        house.pass(1).await;
        let user = house.user(300).await;
        let purchase = house.purchase(event, user, 300).await;

        // Then it stands one second before its time, while that other claim is gone already.
        house.pass(HOLD_SECS + GRACE_SECS - 1).await;
        house.stock_becomes(elsewhere, stock(1, 0, 0, 1)).await;
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
        let next = house.user(0).await;
        house.reserve(event, next).await.refused(409, "SOLD_OUT");

        // And gives everything back when its time has come.
        house.pass(1).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        house.points_become(user, 300).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        house
            .eventually(&path, |it| it["sagaState"] == "COMPLETED")
            .await;
        assert_eq!(
            house.steps(expiry_of(&purchase.ticket)).await,
            pairs(&[
                ("payment.delete", "SUCCEEDED"),
                ("user.restore.point", "SUCCEEDED")
            ])
        );
        assert_eq!(
            house.payment_history(&purchase).await,
            ["CREATED", "DELETED"]
        );
        assert_eq!(
            house.ledger(user).await,
            entries(&[
                ("GRANTED", 300, 300),
                ("RESERVED", -300, 0),
                ("RESTORED", 300, 300)
            ])
        );
        for path in ["/ticketing/process/", "/process/"] {
            let told = house
                .get(&format!("{path}{}", purchase.ticket))
                .await
                .ok(200);
            assert_eq!(told["failure"], "RESERVATION_EXPIRED");
        }
        house
            .pay(&purchase, "card-1")
            .await
            .refused(409, "PAYMENT_CLOSED");

        // And the next buyer has the ticket, the first one may try again.
        let bought = house.purchase(event, next, 0).await;
        house.paid(&bought, "card-of-the-next").await;
        house.reserve(event, user).await.refused(409, "SOLD_OUT");
    })
    .await;
}

#[tokio::test]
async fn a_reservation_that_is_never_processed_lapses_too_and_cannot_be_processed_any_more() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let ticket = house.reserved(event, user).await;
        house.pass(HOLD_SECS + GRACE_SECS).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        house
            .process(&ticket, event, user, 0)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        let path = format!("/ticketing/process/{ticket}");
        house.get(&path).await.refused(404, "PROCESS_NOT_FOUND");
        house
            .get(&format!("/saga/{}", saga_of(&ticket)))
            .await
            .refused(404, "SAGA_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_released_purchase_is_taken_back_and_its_user_may_buy_again() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let first = house.purchase(event, user, 300).await;
        let released = house.release(&first.ticket).await;
        assert_eq!((released.status, released.body), (204, json!(null)));
        house
            .release(&first.ticket)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        house.payment_becomes(&first, "DELETED").await;
        house.points_become(user, 300).await;
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));

        let again = house.purchase(event, user, 300).await;
        assert_ne!(again.ticket, first.ticket);
        house.paid(&again, "card-1").await;
        let paid = confirmation(&first, "card-2");
        house
            .post("/payment/confirmed", paid)
            .await
            .refused(409, "PAYMENT_CLOSED");
        house
            .release(&again.ticket)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}
