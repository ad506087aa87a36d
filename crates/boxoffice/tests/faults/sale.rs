//! Faults of the sale: what a buyer loses, or is told wrongly.

use contract::{EventId, TicketId, UserId, ticketing::Release};
use serde_json::json;

use crate::{
    desk::{PRICE, entries, stock},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

#[tokio::test]
async fn a_rollback_takes_the_reservation_it_names_and_never_another_of_the_same_user() {
    play(async |house: &mut House| {
        // Given a user whose first purchase came to nothing, and who has reserved again.
        let (event, user) = (house.event(2).await, house.user(300).await);
        house.judge(user, "INACTIVE", false).await;
        let first = house.reserved(event, user).await;
        house.process(&first, event, user, 300).await.ok(202);
        house.progress_becomes(&first, "COMPENSATED").await;
        house.stock_becomes(event, stock(2, 0, 0, 2)).await;
        house.judge(user, "ACTIVE", false).await;
        let second = house.reserved(event, user).await;

        // When the first one is rolled back once more, by message and by hand.
        let rollback = Release {
            ticket_id: first.parse::<TicketId>().unwrap(),
            event_id: EventId(event),
            user_id: UserId(user),
        };
        house.send(&rollback).await;
        house
            .release(&first)
            .await
            .refused(404, "RESERVATION_NOT_FOUND");

        // Then the second stands, and buys a ticket, which stands too.
        assert_eq!(house.stock(event).await, stock(2, 1, 0, 1));
        let purchase = house.processed(&second, event, user, 300).await;
        house.paid(&purchase, "card-1").await;
        house.send(&rollback).await;
        assert_eq!(house.stock(event).await, stock(2, 0, 1, 1));
        house
            .reserve(event, user)
            .await
            .refused(409, "ALREADY_PURCHASED");
    })
    .await;
}

#[tokio::test]
async fn sold_out_is_an_answer_and_no_failure() {
    play(async |house: &mut House| {
        let event = house.event(1).await;
        house.reserved(event, house.user(0).await).await;
        let late = house.user(0).await;
        let refused = house.reserve(event, late).await;
        assert!(!refused.headers.contains_key("retry-after"));
        refused.refused(409, "SOLD_OUT");
        assert_eq!(house.get("/readyz").await.status, 200);
        let text = house
            .client
            .get(house.app().url() + "/metrics")
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
async fn a_new_quantity_is_followed_by_the_stock_and_by_what_may_be_sold() {
    play(async |house: &mut House| {
        let event = house.event(1).await;
        let first = house.purchase(event, house.user(0).await, 0).await;
        let next = house.user(0).await;
        house.reserve(event, next).await.refused(409, "SOLD_OUT");
        let raised = json!({
            "name": "Show", "ticketQuantity": 2, "price": PRICE, "version": 1,
        });
        house.put(&format!("/event/{event}"), raised).await.ok(200);
        house.stock_becomes(event, stock(2, 1, 0, 1)).await;
        let second = house.purchase(event, next, 0).await;
        house.paid(&first, "card-1").await;
        house.paid(&second, "card-2").await;
        house.restart().await;
        assert_eq!(house.stock(event).await, stock(2, 0, 2, 0));
    })
    .await;
}

#[tokio::test]
async fn the_points_of_a_hold_that_lapsed_come_back() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        house.purchase(event, user, 300).await;
        assert_eq!(house.points(user).await, 0);
        house.pass(HOLD_SECS + GRACE_SECS).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        house.points_become(user, 300).await;
        assert_eq!(
            house.ledger(user).await,
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
async fn money_for_which_no_ticket_was_issued_goes_back() {
    play(async |house: &mut House| {
        // Given money that was taken, and a reservation that is gone before anybody knows.
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = house.purchase(event, user, 300).await;
        house.gateway.turn(Mood::Dumb);
        house.pay(&purchase, "card-1").await.ok(202);
        house.release(&purchase.ticket).await.ok(204);

        house.gateway.turn(Mood::Well);
        house.payment_becomes_in_time(&purchase, "CANCELLED").await;
        let charge = house.gateway.charge("card-1");
        assert_eq!(charge, Some(("CANCELED".to_owned(), 700, 0)));
        house.points_become(user, 300).await;
        house.has_no_ticket(&purchase.ticket).await;
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
    })
    .await;
}
