//! The organiser changes the quantity while tickets are sold.

use serde_json::{Value, json};
use test_support::api::ApiAnswer;

use crate::{
    actions::{PRICE, Stock, stock},
    test_app::{TestApp, on_every_deployment},
};

async fn change(app: &TestApp, event: i64, quantity: i64, version: i64) -> ApiAnswer {
    let body: Value = json!({
        "name": "Show", "ticketQuantity": quantity, "price": PRICE, "version": version,
    });
    app.put(&format!("/event/{event}"), body).await
}

#[tokio::test]
async fn a_raised_quantity_is_on_sale_at_once() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(1).await;
        let first = app.purchase(event, app.user(0).await, 0).await;
        let next = app.user(0).await;
        app.reserve(event, next).await.refused(409, "SOLD_OUT");

        change(app, event, 3, 1).await.ok(200);
        app.stock_becomes(event, stock(3, 1, 0, 2)).await;
        let second = app.purchase(event, next, 0).await;
        app.paid(&first, "card-1").await;
        app.paid(&second, "card-2").await;
        assert_eq!(app.stock(event).await, stock(3, 0, 2, 1));
        change(app, event, 9, 1)
            .await
            .refused(409, "VERSION_CONFLICT");
        assert_eq!(app.stock(event).await, stock(3, 0, 2, 1));
    })
    .await;
}

#[tokio::test]
async fn a_lowered_quantity_limits_new_sales_and_cancels_no_sold_ticket() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(3).await;
        let (user, other) = (app.user(300).await, app.user(300).await);
        let first = app.purchase(event, user, 0).await;
        let second = app.purchase(event, other, 300).await;
        let third = app.reserved(event, app.user(0).await).await;

        // Three are reserved, one may be sold.
        change(app, event, 1, 1).await.ok(200);
        let overdrawn = Stock {
            available: -2,
            ..stock(1, 3, 0, 0)
        };
        app.stock_becomes(event, overdrawn).await;
        let late = app.user(0).await;
        app.reserve(event, late).await.refused(409, "SOLD_OUT");
        app.paid(&first, "card-1").await;

        // The second buyer gets money and points back.
        app.pay(&second, "card-2").await.ok(200);
        app.payment_becomes_in_time(&second, "CANCELLED").await;
        app.points_become(other, 300).await;
        app.has_no_ticket(&second.ticket).await;
        let charge = app.gateway.charge("card-2");
        assert_eq!(charge, Some(("CANCELED".to_owned(), 700, 0)));

        // The first buyer keeps the ticket, whatever the quantity is.
        app.release(&third).await.ok(204);
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
        change(app, event, 0, 2).await.ok(200);
        app.wait_until_idle().await;
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
        let ticket = app.get(&format!("/ticket/{}", first.ticket)).await.ok(200);
        assert_eq!(ticket["status"], "RESERVED");
    })
    .await;
}

#[tokio::test]
async fn an_older_message_about_an_event_changes_nothing() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(1).await;
        let published = app.get(&format!("/event/{event}")).await.ok(200);
        change(app, event, 5, 1).await.ok(200);
        app.stock_becomes(event, stock(5, 0, 0, 5)).await;
        let first_word = json!({
            "eventId": "late", "version": 1, "aggregateId": event.to_string(),
            "aggregateType": "event", "eventType": "create", "timeStamp": published["createdAt"],
            "payload": {
                "id": event, "name": "Show", "ticketQuantity": 1,
                "createdAt": published["createdAt"], "updatedAt": published["createdAt"],
            },
        });
        app.send_text("domain.event", &event.to_string(), &first_word.to_string())
            .await;
        assert_eq!(app.stock(event).await, stock(5, 0, 0, 5));
    })
    .await;
}
