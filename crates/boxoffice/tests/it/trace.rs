//! Everything that a request causes carries its trace.

use std::collections::BTreeSet;

use axum::{Router, routing};
use contract::topic;
use messaging::{Bus, Message};
use serde_json::{Value, json};

use crate::support::Running;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn traceparent() -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-01")
}

impl Running {
    async fn post_traced(&self, path: &str, traceparent: Option<&str>, body: Value) -> Value {
        let mut request = self.client.post(self.url(path)).json(&body);
        if let Some(text) = traceparent {
            request = request.header("traceparent", text);
        }
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json().await.unwrap()
    }

    /// All messages so far except `domain.event`.
    async fn published(&self) -> Vec<Message> {
        let bus = Bus::Local(self.app.store().clone());
        let mut reader = bus.subscribe("reader", topic::ALL).unwrap();
        let mut all = Vec::new();
        while let Some(batch) = reader.try_next(100).await.unwrap() {
            all.extend(batch.messages.iter().map(|it| Message::clone(it)));
        }
        all.retain(|message| message.topic != "domain.event");
        all
    }
}

#[tokio::test]
async fn every_message_of_a_purchase_carries_the_trace_of_its_requests() {
    let it = Running::start().await;
    let show = json!({ "name": "Show", "ticketQuantity": 5, "price": 1000 });
    let event = it.post_traced("/event", None, show).await["id"].clone();
    let user = json!({ "name": "Buyer", "points": 300 });
    let user = it.post_traced("/user", None, user).await["id"].clone();
    it.eventually(&format!("/ticketing/event/{event}"), |it| {
        it["available"] == 5
    })
    .await;

    let parent = traceparent();
    let parent = Some(parent.as_str());
    let body = json!({ "eventId": event, "userId": user });
    let ticket = it.post_traced("/ticketing/reserve", parent, body).await["ticketId"].clone();
    let purchase = json!({ "ticketId": ticket, "eventId": event, "userId": user,
        "totalAmount": 1000, "point": 300 });
    it.post_traced("/ticketing/process", parent, purchase).await;
    let ticket = ticket.as_str().unwrap();
    let path = format!("/ticketing/process/{ticket}");
    let bought = it.eventually(&path, |it| it["sagaState"] == "COMPLETED");
    let payment = bought.await["paymentId"].clone();
    let paid = json!({ "paymentId": payment, "pgPaymentId": "pg-1", "amount": 700 });
    it.post_traced("/payment/confirmed", parent, paid).await;
    it.eventually(&format!("/ticket/{ticket}"), |it| {
        it["status"] == "RESERVED"
    })
    .await;

    let published = it.published().await;
    let mut spans = BTreeSet::new();
    for message in &published {
        let trace = message.trace.expect("it has a trace");
        assert_eq!(trace.trace_id(), TRACE, "{message:?}");
        spans.insert(trace.to_string());
    }
    assert!(
        !spans.contains(&traceparent()),
        "the caller's span is not reused"
    );
    let topics: BTreeSet<&str> = published.iter().map(|it| it.topic.as_str()).collect();
    for topic in [
        "ticketing.process",
        "user.check.active.request",
        "user.reserve.point.response",
        "payment.create.response",
        "payment.confirmed.request",
        "domain.payment",
        "domain.ticket",
    ] {
        assert!(topics.contains(topic), "{topic} is missing: {topics:?}");
    }
    // The process request, each handled message that published another one, and the confirmation have their own spans.
    assert!(spans.len() > 10, "{spans:?}");
}

#[tokio::test]
async fn a_request_without_a_valid_trace_begins_one_and_a_problem_names_it() {
    let fails = || async { web::Problem::unavailable("UNAVAILABLE", "not now") };
    let extra = Router::new().route("/fails", routing::get(fails));
    let it = Running::start_with(|_| {}, extra).await;
    let ask = async |headers: &[&str]| {
        let mut request = it.client.get(it.url("/fails"));
        for text in headers {
            request = request.header("traceparent", *text);
        }
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["traceId"].as_str().unwrap().to_owned()
    };
    let proper = traceparent();
    assert_eq!(ask(&[&proper]).await, TRACE);
    let mut begun = BTreeSet::new();
    let zeros = proper.replace(TRACE, &"0".repeat(32));
    let improper: [&[&str]; 4] = [&[], &["nonsense"], &[&zeros], &[&proper, &proper]];
    for headers in improper {
        let id = ask(headers).await;
        assert_eq!(id.len(), 32);
        assert_ne!(id, TRACE);
        begun.insert(id);
    }
    assert_eq!(begun.len(), 4, "each request has its own trace");
}
