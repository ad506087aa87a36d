//! A purchase that goes well.

use contract::Timestamp;
use serde_json::json;

use crate::{
    actions::{entries, pairs, stock},
    test_app::{HOLD_SECS, OPENING, TestApp, on_every_deployment},
};

#[tokio::test]
async fn all_books_are_exact_at_every_stage_of_a_purchase_with_points() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(5).await, app.user(500).await);

        // A reservation takes a ticket off sale.
        let reserved = app.reserve(event, user).await.ok(200);
        let ticket = reserved["ticketId"].as_str().unwrap().to_owned();
        let expires_at: Timestamp = reserved["expiresAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(expires_at, OPENING.plus_secs(HOLD_SECS));
        assert_eq!(app.stock(event).await, stock(5, 1, 0, 4));
        assert_eq!(app.points(user).await, 500);

        // The purchase reserves points and creates a payment.
        let purchase = app.processed(&ticket, event, user, 300).await;
        assert_eq!(purchase.amount, 700);
        let steps = app.steps(purchase.saga.parse().unwrap()).await;
        let names = [
            "user.check.active",
            "user.reserve.point",
            "user.check.fraud",
            "payment.create",
        ];
        assert_eq!(steps, pairs(&names.map(|name| (name, "SUCCEEDED"))));
        assert_eq!(app.stock(event).await, stock(5, 1, 0, 4));
        assert_eq!(
            app.ledger(user).await,
            entries(&[("GRANTED", 500, 500), ("RESERVED", -300, 200)])
        );
        assert_eq!(app.payment_history(&purchase).await, ["CREATED"]);
        app.has_no_ticket(&ticket).await;

        // The payment issues the ticket.
        app.paid(&purchase, "card-1").await;
        app.wait_until_idle().await;
        assert_eq!(app.stock(event).await, stock(5, 0, 1, 4));
        assert_eq!(
            app.payment_history(&purchase).await,
            ["CREATED", "CONFIRMING", "SUCCEEDED"]
        );
        assert_eq!(app.ledger(user).await[2..], entries(&[("USED", 0, 200)]));
        let charge = app.gateway.charge("card-1");
        assert_eq!(charge, Some(("DONE".to_owned(), 700, 700)));
        let owned = app.get(&format!("/ticket?userId={user}")).await.ok(200);
        assert_eq!(owned["items"][0]["ticketId"], ticket);
        assert_eq!(owned["items"].as_array().unwrap().len(), 1);
        assert_eq!(app.get("/dead-letter").await.ok(200)["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn a_purchase_paid_with_points_needs_no_gateway() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(1000).await);
        let purchase = app.purchase(event, user, 1000).await;
        assert_eq!(purchase.amount, 0);
        app.paid(&purchase, "points-only").await;
        assert_eq!(app.gateway.charge("points-only"), None);
        assert_eq!(app.points(user).await, 0);
    })
    .await;
}

#[tokio::test]
async fn one_user_buys_tickets_of_several_events_side_by_side() {
    on_every_deployment(async |app: &mut TestApp| {
        let user = app.user(100).await;
        let (one, other) = (app.event(1).await, app.event(1).await);
        let first = app.purchase(one, user, 100).await;
        let second = app.purchase(other, user, 0).await;
        app.paid(&second, "card-2").await;
        app.paid(&first, "card-1").await;
        assert_eq!(app.stock(one).await, stock(1, 0, 1, 0));
        assert_eq!(app.stock(other).await, stock(1, 0, 1, 0));
    })
    .await;
}
