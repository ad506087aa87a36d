//! Reservations that are never paid.

use serde_json::json;

use crate::{
    actions::{confirmation, entries, expiry_of, pairs, saga_of, stock},
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

#[tokio::test]
async fn a_payment_is_accepted_until_its_deadline_and_the_ticket_is_held_as_long() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(2).await, app.user(0).await);
        let in_time = app.purchase(event, user, 0).await;
        let late = app.purchase(event, app.user(0).await, 0).await;

        app.advance(HOLD_SECS).await;
        app.paid(&in_time, "card-1").await;
        app.clock.advance_millis(1);
        app.pay(&late, "card-2")
            .await
            .refused(409, "DEADLINE_PASSED");
        assert_eq!(app.gateway.charge("card-2"), None);
        assert_eq!(app.stock(event).await, stock(2, 1, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn an_unpaid_purchase_expires_after_the_grace_period_and_releases_everything() {
    on_every_deployment(async |app: &mut TestApp| {
        // Given a purchase, and a reservation of another event that expires one second earlier.
        let (elsewhere, event) = (app.event(1).await, app.event(1).await);
        app.reserved(elsewhere, app.user(0).await).await;
        app.advance(1).await;
        let user = app.user(300).await;
        let purchase = app.purchase(event, user, 300).await;

        // Then it still holds one second before its time, while the other reservation is gone.
        app.advance(HOLD_SECS + GRACE_SECS - 1).await;
        app.stock_becomes(elsewhere, stock(1, 0, 0, 1)).await;
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
        let next = app.user(0).await;
        app.reserve(event, next).await.refused(409, "SOLD_OUT");

        // And everything is given back at its time.
        app.advance(1).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        app.points_become(user, 300).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        app.eventually(&path, |it| it["sagaState"] == "COMPLETED")
            .await;
        assert_eq!(
            app.steps(expiry_of(&purchase.ticket)).await,
            pairs(&[
                ("payment.delete", "SUCCEEDED"),
                ("user.restore.point", "SUCCEEDED")
            ])
        );
        assert_eq!(app.payment_history(&purchase).await, ["CREATED", "DELETED"]);
        assert_eq!(
            app.ledger(user).await,
            entries(&[
                ("GRANTED", 300, 300),
                ("RESERVED", -300, 0),
                ("RESTORED", 300, 300)
            ])
        );
        for path in ["/ticketing/process/", "/process/"] {
            let answer = app.get(&format!("{path}{}", purchase.ticket)).await.ok(200);
            assert_eq!(answer["failure"], "RESERVATION_EXPIRED");
        }
        app.pay(&purchase, "card-1")
            .await
            .refused(409, "PAYMENT_CLOSED");

        // And the next buyer buys the ticket; the first one may try again.
        let bought = app.purchase(event, next, 0).await;
        app.paid(&bought, "card-of-the-next").await;
        app.reserve(event, user).await.refused(409, "SOLD_OUT");
    })
    .await;
}

#[tokio::test]
async fn an_unprocessed_reservation_expires_and_can_no_longer_be_processed() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let ticket = app.reserved(event, user).await;
        app.advance(HOLD_SECS + GRACE_SECS).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        app.process(&ticket, event, user, 0)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        let path = format!("/ticketing/process/{ticket}");
        app.get(&path).await.refused(404, "PROCESS_NOT_FOUND");
        app.get(&format!("/saga/{}", saga_of(&ticket)))
            .await
            .refused(404, "SAGA_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_released_purchase_is_undone_and_its_user_may_buy_again() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let first = app.purchase(event, user, 300).await;
        let released = app.release(&first.ticket).await;
        assert_eq!((released.status, released.body), (204, json!(null)));
        app.release(&first.ticket)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        app.payment_becomes(&first, "DELETED").await;
        app.points_become(user, 300).await;
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));

        let again = app.purchase(event, user, 300).await;
        assert_ne!(again.ticket, first.ticket);
        app.paid(&again, "card-1").await;
        let paid = app.call(confirmation(&first, "card-2")).await;
        paid.refused(409, "PAYMENT_CLOSED");
        app.release(&again.ticket)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}
