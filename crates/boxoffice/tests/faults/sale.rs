//! Faults of the sale: losses and wrong answers to buyers.

use contract::{EventId, TicketId, UserId, ticketing::Release};
use serde_json::json;

use crate::{
    actions::{PRICE, entries, stock},
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

#[tokio::test]
async fn a_release_frees_the_reservation_it_names_and_never_another_of_the_same_user() {
    on_every_deployment(async |app: &mut TestApp| {
        // Given a user whose first purchase was compensated, and who has reserved again.
        let (event, user) = (app.event(2).await, app.user(300).await);
        app.update_user(user, "INACTIVE", false).await;
        let first = app.reserved(event, user).await;
        app.process(&first, event, user, 300).await.ok(202);
        app.progress_becomes(&first, "COMPENSATED").await;
        app.stock_becomes(event, stock(2, 0, 0, 2)).await;
        app.update_user(user, "ACTIVE", false).await;
        let second = app.reserved(event, user).await;

        // When the first reservation is released once more, by message and by request.
        let rollback = Release {
            ticket_id: first.parse::<TicketId>().unwrap(),
            event_id: EventId(event),
            user_id: UserId(user),
        };
        app.send(&rollback).await;
        app.release(&first)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");

        // Then the second reservation holds and buys a ticket, which stays valid.
        assert_eq!(app.stock(event).await, stock(2, 1, 0, 1));
        let purchase = app.processed(&second, event, user, 300).await;
        app.paid(&purchase, "card-1").await;
        app.send(&rollback).await;
        assert_eq!(app.stock(event).await, stock(2, 0, 1, 1));
        app.reserve(event, user)
            .await
            .refused(409, "ALREADY_PURCHASED");
    })
    .await;
}

#[tokio::test]
async fn sold_out_is_a_refusal_and_not_a_failure() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(1).await;
        app.reserved(event, app.user(0).await).await;
        let late = app.user(0).await;
        let refused = app.reserve(event, late).await;
        assert!(!refused.headers.contains_key("retry-after"));
        refused.refused(409, "SOLD_OUT");
        assert_eq!(app.get("/readyz").await.status, 200);
        let text = app
            .client
            .get(app.server().url() + "/metrics")
            .send()
            .await
            .unwrap();
        let text = text.text().await.unwrap();
        assert!(
            text.contains(r#"route="/ticketing/reserve",status="409"} 1"#),
            "{text}"
        );
        assert!(!text.contains(r#"status="5"#), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_new_quantity_changes_the_stock_and_the_sales_limit() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(1).await;
        let first = app.purchase(event, app.user(0).await, 0).await;
        let next = app.user(0).await;
        app.reserve(event, next).await.refused(409, "SOLD_OUT");
        let raised = json!({
            "name": "Show", "ticketQuantity": 2, "price": PRICE, "version": 1,
        });
        app.put(&format!("/event/{event}"), raised).await.ok(200);
        app.stock_becomes(event, stock(2, 1, 0, 1)).await;
        let second = app.purchase(event, next, 0).await;
        app.paid(&first, "card-1").await;
        app.paid(&second, "card-2").await;
        app.restart().await;
        assert_eq!(app.stock(event).await, stock(2, 0, 2, 0));
    })
    .await;
}

#[tokio::test]
async fn the_points_of_an_expired_reservation_are_restored() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        app.purchase(event, user, 300).await;
        assert_eq!(app.points(user).await, 0);
        app.advance(HOLD_SECS + GRACE_SECS).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        app.points_become(user, 300).await;
        assert_eq!(
            app.ledger(user).await,
            entries(&[
                ("GRANTED", 300, 300),
                ("RESERVED", -300, 0),
                ("RESTORED", 300, 300)
            ])
        );
    })
    .await;
}

#[tokio::test]
async fn money_without_an_issued_ticket_is_refunded() {
    on_every_deployment(async |app: &mut TestApp| {
        // Given a charge with a lost answer, and a reservation that is released meanwhile.
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = app.purchase(event, user, 300).await;
        app.gateway.set_mode(GatewayMode::LosesAnswers);
        app.pay(&purchase, "card-1").await.ok(202);
        app.release(&purchase.ticket).await.ok(204);

        app.gateway.set_mode(GatewayMode::Normal);
        app.payment_becomes_in_time(&purchase, "CANCELLED").await;
        let charge = app.gateway.charge("card-1");
        assert_eq!(charge, Some(("CANCELED".to_owned(), 700, 0)));
        app.points_become(user, 300).await;
        app.has_no_ticket(&purchase.ticket).await;
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
    })
    .await;
}
