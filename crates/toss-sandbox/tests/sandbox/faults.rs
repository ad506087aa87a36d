//! Every fault for calls, as the client sees it on the wire, and what has been done behind it.

use std::time::{Duration, Instant};

use axum::{body::Body, http::Request};
use http_body_util::BodyExt;
use reqwest::Method;
use serde_json::{Value, json};
use tower::ServiceExt;

use test_support::eventually;

use crate::harness::{Harness, POLLING, SECRET};

/// An answer as bytes, taken apart.
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        Self {
            head: String::from_utf8(bytes[..end].to_vec())
                .unwrap()
                .to_lowercase(),
            body: bytes[end + 4..].to_vec(),
        }
    }

    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn length(&self) -> usize {
        let line = self
            .head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        line.expect("a length").parse().unwrap()
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The first confirm of a payment is struck; returns what came back.
async fn struck(sandbox: &Harness, fault: Value) -> Vec<u8> {
    sandbox.play(json!([{ "on": "confirm", "times": 1, "fault": fault }]));
    sandbox.raw_confirm("key-1", "once").await
}

/// The same request again, by the same idempotency key, is answered well; so the money was taken once.
async fn assert_replayed(sandbox: &Harness) {
    let again = Seen::of(&sandbox.raw_confirm("key-1", "once").await);
    assert_eq!(again.status(), "200");
    assert_eq!(again.json().unwrap()["status"], "DONE");
    let totals = sandbox.inner.totals().unwrap();
    assert_eq!((totals.charged, totals.held), (1000, 1000));
}

async fn assert_nothing_done(sandbox: &Harness) {
    assert_eq!(sandbox.get("/v1/payments/key-1").await.0, 404);
    assert_eq!(sandbox.inner.totals().unwrap().charged, 0);
    assert_replayed(sandbox).await;
}

async fn assert_done(sandbox: &Harness) {
    assert_eq!(sandbox.status("key-1").await, "DONE");
    assert_replayed(sandbox).await;
}

#[tokio::test]
async fn a_connection_dropped_before_execution_sends_and_changes_nothing() {
    for fault in [json!("dropBefore"), json!({ "hang": { "millis": 20 } })] {
        let sandbox = Harness::start().await;
        assert_eq!(struck(&sandbox, fault.clone()).await, b"", "{fault}");
        assert_nothing_done(&sandbox).await;
    }
}

#[tokio::test]
async fn a_connection_dropped_after_the_charge_sends_nothing() {
    for fault in [
        json!("doThenDrop"),
        json!({ "doThenHang": { "millis": 20 } }),
    ] {
        let sandbox = Harness::start().await;
        assert_eq!(struck(&sandbox, fault.clone()).await, b"", "{fault}");
        assert_done(&sandbox).await;
    }
}

#[tokio::test]
async fn a_partial_answer_is_shorter_than_its_content_length() {
    let sandbox = Harness::start().await;
    let seen = Seen::of(&struck(&sandbox, json!("doAnswerThenDrop")).await);
    assert_eq!(seen.status(), "200");
    assert!(!seen.body.is_empty() && seen.body.len() < seen.length());
    assert_done(&sandbox).await;
}

#[tokio::test]
async fn a_truncated_body_keeps_its_length_and_is_no_json() {
    let sandbox = Harness::start().await;
    let seen = Seen::of(&struck(&sandbox, json!("truncatedBody")).await);
    assert_eq!((seen.status(), seen.body.len()), ("200", seen.length()));
    assert!(!seen.body.is_empty() && seen.json().is_none());
    assert_done(&sandbox).await;
}

#[tokio::test]
async fn a_charge_can_be_answered_as_a_failure_and_as_a_refusal() {
    for (fault, status, code) in [
        ("doThen500", "500", "FAILED_INTERNAL_SYSTEM_PROCESSING"),
        ("lieProviderError", "400", "PROVIDER_ERROR"),
    ] {
        let sandbox = Harness::start().await;
        let seen = Seen::of(&struck(&sandbox, json!(fault)).await);
        assert_eq!(seen.status(), status);
        assert_eq!(seen.json().unwrap()["code"], code);
        assert_done(&sandbox).await;
    }
}

#[tokio::test]
async fn a_charge_can_be_answered_as_a_web_page() {
    let sandbox = Harness::start().await;
    let seen = Seen::of(&struck(&sandbox, json!("wrongContentType")).await);
    assert!(
        seen.head.contains("content-type: text/html"),
        "{}",
        seen.head
    );
    assert_eq!(seen.json().unwrap()["status"], "DONE");
    assert_done(&sandbox).await;
}

#[tokio::test]
async fn a_delayed_call_succeeds() {
    let sandbox = Harness::start().await;
    let begun = Instant::now();
    let seen = Seen::of(&struck(&sandbox, json!({ "delay": { "millis": 30 } })).await);
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert_eq!(seen.status(), "200");
    assert_done(&sandbox).await;
}

#[tokio::test]
async fn a_slow_gateway_charges_although_its_caller_has_disconnected() {
    let sandbox = Harness::start().await;
    sandbox.play(json!([{ "on": "confirm", "times": 1, "fault": { "delay": { "millis": 200 } } }]));
    let patience = Duration::from_millis(50);
    let hung_up = tokio::time::timeout(patience, sandbox.raw_confirm("key-1", "once")).await;
    assert!(hung_up.is_err(), "it was not slow");
    eventually(POLLING, "the payment is charged", async || {
        let status = sandbox.status("key-1").await;
        if status == "DONE" {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    assert_done(&sandbox).await;
}

#[tokio::test]
async fn a_request_answered_as_in_flight_changes_nothing_and_can_be_retried() {
    let sandbox = Harness::start().await;
    let seen = Seen::of(&struck(&sandbox, json!("inFlight")).await);
    assert_eq!(seen.status(), "409");
    assert_eq!(
        seen.json().unwrap()["code"],
        "IDEMPOTENT_REQUEST_PROCESSING"
    );
    assert_nothing_done(&sandbox).await;
}

#[tokio::test]
async fn a_refusal_is_stored_for_its_idempotency_key_only() {
    let sandbox = Harness::start().await;
    let refuse = json!({ "refuse": { "code": "REJECT_CARD_PAYMENT" } });
    let seen = Seen::of(&struck(&sandbox, refuse).await);
    assert_eq!(seen.status(), "403");
    let again = Seen::of(&sandbox.raw_confirm("key-1", "once").await);
    assert_eq!(again.json().unwrap()["code"], "REJECT_CARD_PAYMENT");
    assert_eq!(sandbox.get("/v1/payments/key-1").await.0, 404);
    let other = Seen::of(&sandbox.raw_confirm("key-1", "twice").await);
    assert_eq!(other.status(), "200");
}

#[tokio::test]
async fn a_server_error_is_not_stored_for_its_idempotency_key() {
    let sandbox = Harness::start().await;
    let refuse = json!({ "refuse": { "code": "COMMON_ERROR" } });
    assert_eq!(Seen::of(&struck(&sandbox, refuse).await).status(), "500");
    assert_nothing_done(&sandbox).await;
}

#[tokio::test]
async fn a_scripted_refusal_never_applies_to_a_charged_payment() {
    let sandbox = Harness::start().await;
    assert_eq!(sandbox.confirm("key-1", "order-1").await.0, 200);
    sandbox.play(json!([{
        "on": "confirm", "fault": { "refuse": { "code": "REJECT_CARD_PAYMENT" } }
    }]));
    let (_, told) = sandbox.confirm("key-1", "order-1").await;
    assert_eq!(told["code"], "ALREADY_PROCESSED_PAYMENT");
}

#[tokio::test]
async fn a_fault_applies_to_repeated_requests_as_often_as_its_rule_says() {
    let sandbox = Harness::start().await;
    sandbox.play(json!([{ "on": "confirm", "times": 2, "fault": "doThenDrop" }]));
    assert_eq!(sandbox.raw_confirm("key-1", "once").await, b"");
    assert_eq!(sandbox.raw_confirm("key-1", "once").await, b"");
    assert_done(&sandbox).await;
}

#[tokio::test]
async fn faults_apply_to_cancels_lookups_and_lists_too() {
    let sandbox = Harness::start().await;
    assert_eq!(sandbox.confirm("key-1", "order-1").await.0, 200);
    sandbox.play(json!([
        { "on": "lookup", "times": 1, "fault": { "refuse": { "code": "ODD_CODE", "status": 503 } } },
        { "on": "cancel", "orderId": "order-1", "times": 1, "fault": "doThen500" },
        { "on": "transactions", "times": 1, "fault": "lieProviderError" },
    ]));
    let (status, told) = sandbox.get("/v1/payments/orders/order-1").await;
    assert_eq!((status, &told["code"]), (503, &json!("ODD_CODE")));
    let cancel = json!({ "cancelReason": "test" });
    let (status, _) = sandbox.post("/v1/payments/key-1/cancel", cancel).await;
    assert_eq!(status, 500);
    assert_eq!(sandbox.status("key-1").await, "CANCELED");
    let list = "/v1/transactions?startDate=2000-01-01T00:00:00&endDate=2100-01-01T00:00:00";
    assert_eq!(sandbox.get(list).await.1["code"], "PROVIDER_ERROR");
    assert_eq!(sandbox.get(list).await.1.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_router_alone_breaks_its_answers_too() {
    let sandbox = Harness::start().await;
    sandbox.play(json!([{ "on": "confirm", "fault": "doThenDrop" }]));
    let body = json!({ "paymentKey": "key-1", "orderId": "order-1", "amount": 1000 });
    let request = Request::post("/v1/payments/confirm")
        .header("authorization", "Basic dGVzdF9za19vZl90aGVfdGVzdHM6")
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = sandbox.inner.router().oneshot(request).await.unwrap();
    assert!(answer.into_body().collect().await.is_err(), "{SECRET}");
    assert_eq!(sandbox.status("key-1").await, "DONE");
}

#[tokio::test]
async fn a_script_is_set_shown_and_removed_by_http() {
    let sandbox = Harness::start().await;
    let script =
        json!({ "seed": 3, "rules": [{ "on": "confirm", "times": 1, "fault": "inFlight" }] });
    let put = |body: Value| {
        let body = body.to_string();
        let sandbox = &sandbox;
        async move { sandbox.ask(Method::PUT, "/sandbox/faults", &body).await }
    };
    assert_eq!(put(script.clone()).await, (200, script.clone()));
    assert_eq!(sandbox.get("/sandbox/faults").await.1, script);
    assert_eq!(sandbox.confirm("key-1", "order-1").await.0, 409);

    let (status, told) = put(json!({ "rules": [{ "on": "confirm", "fault": "reorder" }] })).await;
    assert_eq!((status, &told["code"]), (400, &json!("INVALID_REQUEST")));
    let message = told["message"].as_str().unwrap();
    assert!(message.starts_with("rules[0].fault"), "{message}");
    assert_eq!(
        sandbox.get("/sandbox/faults").await.1,
        script,
        "it plays on"
    );

    assert_eq!(
        sandbox.ask(Method::DELETE, "/sandbox/faults", "").await.0,
        204
    );
    assert_eq!(sandbox.confirm("key-1", "order-2").await.0, 200);
}
