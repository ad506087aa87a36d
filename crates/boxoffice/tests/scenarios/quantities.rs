//! The organiser changes the quantity while tickets are sold.

use serde_json::{Value, json};

use crate::{
    desk::{PRICE, Stock, stock},
    house::{Answer, House, play},
};

async fn change(house: &House, event: i64, quantity: i64, version: i64) -> Answer {
    let body: Value = json!({
        "name": "Show", "ticketQuantity": quantity, "price": PRICE, "version": version,
    });
    house.put(&format!("/event/{event}"), body).await
}

#[tokio::test]
async fn a_raised_quantity_is_on_sale_at_once() {
    play(async |house: &mut House| {
        let event = house.event(1).await;
        let first = house.purchase(event, house.user(0).await, 0).await;
        let next = house.user(0).await;
        house.reserve(event, next).await.refused(409, "SOLD_OUT");

        change(house, event, 3, 1).await.ok(200);
        house.stock_becomes(event, stock(3, 1, 0, 2)).await;
        let second = house.purchase(event, next, 0).await;
        house.paid(&first, "card-1").await;
        house.paid(&second, "card-2").await;
        assert_eq!(house.stock(event).await, stock(3, 0, 2, 1));
        change(house, event, 9, 1)
            .await
            .refused(409, "VERSION_CONFLICT");
        assert_eq!(house.stock(event).await, stock(3, 0, 2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_lowered_quantity_sells_no_more_than_it_says_and_takes_no_ticket_from_who_has_one() {
    play(async |house: &mut House| {
        let event = house.event(3).await;
        let (user, other) = (house.user(300).await, house.user(300).await);
        let first = house.purchase(event, user, 0).await;
        let second = house.purchase(event, other, 300).await;
        let third = house.reserved(event, house.user(0).await).await;

        // Three are promised, one may be sold.
        change(house, event, 1, 1).await.ok(200);
        let overdrawn = Stock {
            available: -2,
            ..stock(1, 3, 0, 0)
        };
        house.stock_becomes(event, overdrawn).await;
        let late = house.user(0).await;
        house.reserve(event, late).await.refused(409, "SOLD_OUT");
        house.paid(&first, "card-1").await;

        // The second gets the money and the points back.
        house.pay(&second, "card-2").await.ok(200);
        house.payment_becomes_in_time(&second, "CANCELLED").await;
        house.points_become(other, 300).await;
        house.has_no_ticket(&second.ticket).await;
        let charge = house.gateway.charge("card-2");
        assert_eq!(charge, Some(("CANCELED".to_owned(), 700, 0)));

        // Nothing takes the first one's ticket, whatever the organiser says.
        house.release(&third).await.ok(204);
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
        change(house, event, 0, 2).await.ok(200);
        house.rest().await;
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
        let ticket = house
            .get(&format!("/ticket/{}", first.ticket))
            .await
            .ok(200);
        assert_eq!(ticket["status"], "RESERVED");
    })
    .await;
}

#[tokio::test]
async fn an_older_word_about_an_event_changes_nothing() {
    play(async |house: &mut House| {
        let event = house.event(1).await;
        let said = house.get(&format!("/event/{event}")).await.ok(200);
        change(house, event, 5, 1).await.ok(200);
        house.stock_becomes(event, stock(5, 0, 0, 5)).await;
        let first_word = json!({
            "eventId": "late", "version": 1, "aggregateId": event.to_string(),
            "aggregateType": "event", "eventType": "create", "timeStamp": said["createdAt"],
            "payload": {
                "id": event, "name": "Show", "ticketQuantity": 1,
                "createdAt": said["createdAt"], "updatedAt": said["createdAt"],
            },
        });
        house
            .send_text("domain.event", &event.to_string(), &first_word.to_string())
            .await;
        assert_eq!(house.stock(event).await, stock(5, 0, 0, 5));
    })
    .await;
}
