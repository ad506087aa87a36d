//! A purchase that goes well.

use contract::Timestamp;
use serde_json::json;

use crate::{
    desk::{entries, pairs, stock},
    house::{HOLD_SECS, House, OPENING, play},
};

#[tokio::test]
async fn every_book_is_exact_at_every_stage_of_a_purchase_with_points() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(5).await, house.user(500).await);

        // A reservation takes a ticket off sale.
        let reserved = house.reserve(event, user).await.ok(200);
        let ticket = reserved["ticketId"].as_str().unwrap().to_owned();
        let expires_at: Timestamp = reserved["expiresAt"].as_str().unwrap().parse().unwrap();
        assert_eq!(expires_at, OPENING.plus_secs(HOLD_SECS));
        assert_eq!(house.stock(event).await, stock(5, 1, 0, 4));
        assert_eq!(house.points(user).await, 500);

        // The purchase takes points and opens a payment.
        let purchase = house.processed(&ticket, event, user, 300).await;
        assert_eq!(purchase.amount, 700);
        let steps = house.steps(purchase.saga.parse().unwrap()).await;
        let names = [
            "user.check.active",
            "user.reserve.point",
            "user.check.fraud",
            "payment.create",
        ];
        assert_eq!(steps, pairs(&names.map(|name| (name, "SUCCEEDED"))));
        assert_eq!(house.stock(event).await, stock(5, 1, 0, 4));
        assert_eq!(
            house.ledger(user).await,
            entries(&[("GRANTED", 500, 500), ("RESERVED", -300, 200)])
        );
        assert_eq!(house.payment_history(&purchase).await, ["CREATED"]);
        house.has_no_ticket(&ticket).await;

        // The payment makes it a ticket.
        house.paid(&purchase, "card-1").await;
        house.rest().await;
        assert_eq!(house.stock(event).await, stock(5, 0, 1, 4));
        assert_eq!(
            house.payment_history(&purchase).await,
            ["CREATED", "CONFIRMING", "SUCCEEDED"]
        );
        assert_eq!(house.ledger(user).await[2..], entries(&[("USED", 0, 200)]));
        let charge = house.gateway.charge("card-1");
        assert_eq!(charge, Some(("DONE".to_owned(), 700, 700)));
        let owned = house.get(&format!("/ticket?userId={user}")).await.ok(200);
        assert_eq!(owned["items"][0]["ticketId"], ticket);
        assert_eq!(owned["items"].as_array().unwrap().len(), 1);
        assert_eq!(house.get("/dead-letter").await.ok(200)["items"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn points_that_pay_for_everything_leave_nothing_to_ask_the_gateway_for() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(1000).await);
        let purchase = house.purchase(event, user, 1000).await;
        assert_eq!(purchase.amount, 0);
        house.paid(&purchase, "points-only").await;
        assert_eq!(house.gateway.charge("points-only"), None);
        assert_eq!(house.points(user).await, 0);
    })
    .await;
}

#[tokio::test]
async fn one_user_buys_tickets_of_several_events_side_by_side() {
    play(async |house: &mut House| {
        let user = house.user(100).await;
        let (one, other) = (house.event(1).await, house.event(1).await);
        let first = house.purchase(one, user, 100).await;
        let second = house.purchase(other, user, 0).await;
        house.paid(&second, "card-2").await;
        house.paid(&first, "card-1").await;
        assert_eq!(house.stock(one).await, stock(1, 0, 1, 0));
        assert_eq!(house.stock(other).await, stock(1, 0, 1, 0));
    })
    .await;
}
