//! Everything that a request causes carries its trace.

use std::collections::BTreeSet;

use axum::{Router, routing};
use contract::topic;
use messaging::{Bus, Message};
use serde_json::Value;
use test_support::api::{ApiRequest, Purchase};

use crate::support::{PRICE, Running};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn traceparent() -> String {
    format!("00-{TRACE}-00f067aa0ba902b7-01")
}

impl Running {
    async fn call_traced(&self, traceparent: &str, request: ApiRequest) -> Value {
        let answer = self.call(request.with_header("traceparent", traceparent));
        let answer = answer.await;
        assert!(answer.status < 300, "{answer:?}");
        answer.body
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
    let event = it.event(5).await;
    let user = it.user("ACTIVE", 300).await;

    let parent = traceparent();
    let reserved = it
        .call_traced(&parent, ApiRequest::reserve(event, user))
        .await;
    let ticket = reserved["ticketId"].as_str().unwrap();
    let purchase = Purchase {
        ticket,
        event,
        user,
        total_amount: PRICE,
        points: 300,
    };
    it.call_traced(&parent, ApiRequest::process(purchase)).await;
    let path = format!("/ticketing/process/{ticket}");
    let bought = it
        .eventually(&path, |it| it["sagaState"] == "COMPLETED")
        .await;
    let payment = bought["paymentId"].as_str().unwrap();
    it.call_traced(&parent, ApiRequest::confirm(payment, "pg-1", 700))
        .await;
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
