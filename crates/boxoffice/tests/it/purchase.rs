//! The services wired together: one purchase from the event to the ticket, and one that is compensated.

use serde_json::{Value, json};
use test_support::api::{ApiRequest, Purchase};

use crate::support::{PRICE, Running};

/// Processes a reservation of one of five tickets with 300 points; returns event, ticket and the purchase at its end.
async fn buy(it: &Running, user_status: &str, end: &str) -> (i64, String, Value) {
    let event = it.event(5).await;
    let user = it.user(user_status, 300).await;
    let ticket = it.reserved(event, user).await;
    let purchase = Purchase {
        ticket: &ticket,
        event,
        user,
        total_amount: PRICE,
        points: 300,
    };
    let progress = it.processed(purchase, end).await;
    (event, ticket, progress)
}

#[tokio::test]
async fn a_ticket_is_reserved_processed_paid_and_issued() {
    let it = Running::start().await;
    let (event, ticket, progress) = buy(&it, "ACTIVE", "COMPLETED").await;
    assert_eq!(progress["finalAmount"], 700);

    let payment = progress["paymentId"].as_str().unwrap();
    let confirmed = it.call(ApiRequest::confirm(payment, "pg-1", 700)).await;
    let confirmed = confirmed.ok(200);
    assert_eq!(confirmed["succeeded"], true);

    let path = format!("/ticket/{ticket}");
    it.eventually(&path, |it| it["status"] == "RESERVED").await;
    let stock = it
        .eventually(&format!("/ticketing/event/{event}"), |it| it["sold"] == 1)
        .await;
    assert_eq!(
        (&stock["available"], &stock["waiting"], &stock["completed"]),
        (&json!(4), &json!(0), &json!(1))
    );
    let saga: Value = it
        .get(&format!("/saga/{}", progress["sagaId"].as_str().unwrap()))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(saga["stepHistory"].as_array().unwrap().len(), 4);
    let letters: Value = it.get("/dead-letter").await.json().await.unwrap();
    assert_eq!(letters["items"], json!([]));
    let metrics = it.get("/metrics").await.text().await.unwrap();
    for line in [
        r#"boxoffice_sagas_total{saga_type="ticketing.process",state="STARTED"} 1"#,
        r#"boxoffice_sagas_total{saga_type="ticketing.process",state="COMPLETED"} 1"#,
        r#"boxoffice_reservations_total{outcome="granted"} 1"#,
        r#"boxoffice_tickets_total{outcome="issued"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing:\n{metrics}");
    }
}

#[tokio::test]
async fn a_refused_purchase_gives_everything_back() {
    let it = Running::start().await;
    let (event, _, progress) = buy(&it, "INACTIVE", "COMPENSATED").await;
    assert_eq!(progress["failure"], "USER_NOT_ACTIVE");
    let stock = format!("/ticketing/event/{event}");
    it.eventually(&stock, |stock| stock["available"] == 5).await;
}
