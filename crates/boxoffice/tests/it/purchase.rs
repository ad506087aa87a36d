//! The services wired together: one purchase from the event to the ticket, and one that is compensated.

use serde_json::{Value, json};

use crate::support::Running;

impl Running {
    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(self.url(path)).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{path}: {answer}");
        answer
    }

    /// An event of five tickets on sale at 1000, and a user with 300 points.
    async fn on_sale(&self, user_status: &str) -> (Value, Value) {
        let event = json!({ "name": "Show", "ticketQuantity": 5, "price": 1000 });
        let event = self.post("/event", event).await["id"].clone();
        let user = json!({ "name": "Buyer", "status": user_status, "points": 300 });
        let user = self.post("/user", user).await["id"].clone();
        let stock = format!("/ticketing/event/{event}");
        self.eventually(&stock, |stock| stock["available"] == 5)
            .await;
        (event, user)
    }

    /// Reserves and processes; returns the ticket and the purchase at its end.
    async fn buy(&self, event: &Value, user: &Value, end: &str) -> (String, Value) {
        let reserved = self
            .post(
                "/ticketing/reserve",
                json!({ "eventId": event, "userId": user }),
            )
            .await;
        let ticket = reserved["ticketId"].as_str().unwrap().to_owned();
        let process = json!({
            "ticketId": ticket, "eventId": event, "userId": user, "totalAmount": 1000, "point": 300,
        });
        self.post("/ticketing/process", process).await;
        let path = format!("/ticketing/process/{ticket}");
        let progress = self.eventually(&path, |it| it["sagaState"] == end).await;
        (ticket, progress)
    }
}

#[tokio::test]
async fn a_ticket_is_reserved_processed_paid_and_issued() {
    let it = Running::start().await;
    let (event, user) = it.on_sale("ACTIVE").await;
    let (ticket, progress) = it.buy(&event, &user, "COMPLETED").await;
    assert_eq!(progress["finalAmount"], 700);

    let confirm =
        json!({ "paymentId": progress["paymentId"], "pgPaymentId": "pg-1", "amount": 700 });
    let confirmed = it.post("/payment/confirmed", confirm).await;
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
    let (event, user) = it.on_sale("INACTIVE").await;
    let (_, progress) = it.buy(&event, &user, "COMPENSATED").await;
    assert_eq!(progress["failure"], "USER_NOT_ACTIVE");
    let stock = format!("/ticketing/event/{event}");
    it.eventually(&stock, |stock| stock["available"] == 5).await;
}
