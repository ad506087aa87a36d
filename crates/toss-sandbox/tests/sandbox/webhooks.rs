//! Webhooks: who is told what, how often, in what order, and what survives.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{Router, http::StatusCode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use toss_sandbox::SandboxSettings;

use crate::harness::{DEADLINE, Harness, Merchant, settings};

const MINUTE_MILLIS: i64 = 60_000;

async fn told_to(merchant: &Merchant) -> Harness {
    Harness::with(SandboxSettings {
        webhook_url: Some(merchant.url.clone()),
        ..settings()
    })
    .await
}

fn in_file(path: &Path, url: &str) -> SandboxSettings {
    SandboxSettings {
        path: Some(path.to_owned()),
        webhook_url: Some(url.to_owned()),
        ..settings()
    }
}

fn ids(webhooks: &Value) -> Vec<&str> {
    let webhooks = webhooks.as_array().unwrap();
    webhooks
        .iter()
        .map(|it| it["id"].as_str().unwrap())
        .collect()
}

fn attempts_of_first(webhooks: &Value) -> &Value {
    &webhooks["pending"][0]["attempts"]
}

#[tokio::test]
async fn every_change_of_a_card_payment_is_sent_once_in_order() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    sandbox.confirm("key-1", "order-1").await;
    for amount in [300, 200, 500] {
        let cancel = json!({ "cancelReason": "test", "cancelAmount": amount });
        sandbox.post("/v1/payments/key-1/cancel", cancel).await;
    }
    let mut ids = Vec::new();
    for expected in ["DONE", "PARTIAL_CANCELED", "PARTIAL_CANCELED", "CANCELED"] {
        let heard = merchant.hear().await;
        assert_eq!((heard.status(), heard.retried), (expected, 0));
        assert_eq!(heard.body["eventType"], "PAYMENT_STATUS_CHANGED");
        assert_eq!(heard.body["data"]["paymentKey"], "key-1");
        ids.push(heard.id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each has an id of its own");
    sandbox
        .webhooks_until(|all| all["delivered"].as_array().unwrap().len() == 4)
        .await;
    assert!(!merchant.heard_more());
}

#[tokio::test]
async fn a_virtual_account_sends_two_webhooks_and_the_callback_carries_its_secret() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    let account = json!({ "orderId": "order-1", "amount": 1000, "method": "VIRTUAL_ACCOUNT" });
    let key = sandbox.request(account).await;
    let (_, issued) = sandbox.confirm(&key, "order-1").await;
    sandbox.act(&key, "deposit").await;
    sandbox.act(&key, "withdraw").await;
    for expected in ["WAITING_FOR_DEPOSIT", "DONE", "WAITING_FOR_DEPOSIT"] {
        let (status, callback) = (merchant.hear().await, merchant.hear().await);
        assert_eq!((status.status(), status.is_deposit()), (expected, false));
        assert_eq!((callback.status(), callback.is_deposit()), (expected, true));
        assert_eq!(callback.body["secret"], issued["secret"]);
        assert_eq!(callback.body["orderId"], "order-1");
    }
}

#[tokio::test]
async fn an_expired_payment_is_announced_without_a_request() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    sandbox
        .request(json!({ "orderId": "order-1", "amount": 1000 }))
        .await;
    sandbox.clock.advance_millis(10 * MINUTE_MILLIS);
    assert_eq!(merchant.hear().await.status(), "EXPIRED");
}

#[tokio::test]
async fn a_refused_webhook_is_retried_with_the_same_id_and_given_up_in_the_end() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    // A redirect is not followed, and no other success is a 200.
    merchant.answer([500, 404, 204, 302, 500, 500, 500, 500]);
    sandbox.confirm("key-1", "order-1").await;
    let first = merchant.hear().await;
    for (retried, minutes) in (1..).zip([1, 4, 16, 64, 256, 1024, 4096]) {
        let failed = retried;
        let all = sandbox
            .webhooks_until(|all| *attempts_of_first(all) == json!(failed))
            .await;
        assert_eq!(
            all["pending"][0]["nextAt"],
            sandbox.shown_after(minutes * MINUTE_MILLIS)
        );
        sandbox.clock.advance_millis(minutes * MINUTE_MILLIS - 1);
        assert!(!merchant.heard_more(), "not a moment before its time");
        sandbox.clock.advance_millis(1);
        let again = merchant.hear().await;
        assert_eq!((&again.id, again.retried), (&first.id, retried));
        assert_eq!(again.body, first.body);
    }
    let all = sandbox
        .webhooks_until(|all| all["givenUp"] != json!([]))
        .await;
    assert_eq!(ids(&all["givenUp"]), [first.id]);
    assert_eq!(all["givenUp"][0]["lastOutcome"], "answered 500");
    assert_eq!(
        (&all["pending"], &all["delivered"]),
        (&json!([]), &json!([]))
    );
}

#[tokio::test]
async fn a_refused_webhook_is_sent_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let sandbox = Harness::with(in_file(&path, "http://127.0.0.1:9/webhook")).await;
    sandbox.confirm("key-1", "order-1").await;
    let all = sandbox
        .webhooks_until(|all| *attempts_of_first(all) == json!(1))
        .await;
    assert_eq!(all["pending"][0]["lastOutcome"], "no connection");
    let id = ids(&all["pending"])[0].to_owned();
    sandbox.stop().await;

    let mut merchant = Merchant::start().await;
    let sandbox = Harness::with(in_file(&path, &merchant.url)).await;
    sandbox.clock.advance_millis(MINUTE_MILLIS);
    let heard = merchant.hear().await;
    assert_eq!((heard.id, heard.retried), (id, 1));
    assert_eq!(heard.body["data"]["status"], "DONE");
}

#[tokio::test]
async fn a_change_without_a_webhook_address_sends_nothing() {
    let mut merchant = Merchant::start().await;
    let sandbox = Harness::start().await;
    sandbox.confirm("key-1", "order-1").await;
    let to = json!({ "url": merchant.url }).to_string();
    let (status, told) = sandbox.ask(Method::PUT, "/sandbox/webhooks", &to).await;
    assert_eq!((status, &told["url"]), (200, &json!(merchant.url)));
    sandbox.confirm("key-2", "order-2").await;
    assert_eq!(merchant.hear().await.body["data"]["paymentKey"], "key-2");

    let nowhere = r#"{"url":null}"#;
    let (status, told) = sandbox.ask(Method::PUT, "/sandbox/webhooks", nowhere).await;
    assert_eq!((status, &told["url"]), (200, &Value::Null));
    for (bad, named) in [("{}", "url"), (r#"{"url":"https://shop"}"#, "url")] {
        let (status, told) = sandbox.ask(Method::PUT, "/sandbox/webhooks", bad).await;
        let message = told["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(named), "{message}");
    }
}

#[tokio::test]
async fn a_dropped_webhook_is_sent_a_minute_later_as_its_first_retry() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    sandbox.play(json!([{ "on": "webhook", "times": 1, "fault": "drop" }]));
    sandbox.confirm("key-1", "order-1").await;
    let all = sandbox
        .webhooks_until(|all| *attempts_of_first(all) == json!(1))
        .await;
    assert_eq!(all["pending"][0]["lastOutcome"], "dropped by the script");
    assert!(!merchant.heard_more());
    sandbox.clock.advance_millis(MINUTE_MILLIS);
    assert_eq!(merchant.hear().await.retried, 1);
}

#[tokio::test]
async fn a_duplicate_is_sent_at_once_and_a_repetition_later_with_the_same_id() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    sandbox.play(json!([
        { "on": "webhook", "orderId": "order-1", "fault": { "duplicate": { "times": 2 } } },
        { "on": "webhook", "orderId": "order-2", "fault": { "repeat": { "times": 1 } } },
    ]));
    sandbox.confirm("key-1", "order-1").await;
    let first = merchant.hear().await;
    for _ in 0..2 {
        let again = merchant.hear().await;
        assert_eq!((again.id, again.retried), (first.id.clone(), 0));
    }

    sandbox.confirm("key-2", "order-2").await;
    let taken = merchant.hear().await;
    sandbox
        .webhooks_until(|all| all["pending"][0]["lastOutcome"] == "answered 200")
        .await;
    sandbox.clock.advance_millis(MINUTE_MILLIS);
    let again = merchant.hear().await;
    assert_eq!((again.id, again.retried), (taken.id, 1));
    sandbox
        .webhooks_until(|all| all["delivered"].as_array().unwrap().len() == 2)
        .await;
    assert!(!merchant.heard_more());
}

#[tokio::test]
async fn a_delayed_webhook_waits_by_the_clock() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    sandbox.play(json!([{ "on": "webhook", "fault": { "delay": { "millis": 5_000 } } }]));
    sandbox.confirm("key-1", "order-1").await;
    let at = sandbox.shown_after(5_000);
    sandbox
        .webhooks_until(|all| all["pending"][0]["nextAt"] == *at)
        .await;
    assert!(!merchant.heard_more());
    sandbox.clock.advance_millis(5_000);
    assert_eq!(merchant.hear().await.retried, 0);
}

#[tokio::test]
async fn a_reordered_webhook_is_sent_after_the_next_one_of_its_payment_or_after_two_seconds() {
    let mut merchant = Merchant::start().await;
    let sandbox = told_to(&merchant).await;
    sandbox.play(json!([{ "on": "webhook", "times": 1, "fault": "reorder" }]));
    sandbox.confirm("key-1", "order-1").await;
    let cancel = json!({ "cancelReason": "test" });
    sandbox.post("/v1/payments/key-1/cancel", cancel).await;
    assert_eq!(merchant.hear().await.status(), "CANCELED");
    assert_eq!(merchant.hear().await.status(), "DONE");

    sandbox.confirm("key-2", "order-2").await;
    let at = sandbox.shown_after(2_000);
    sandbox
        .webhooks_until(|all| all["pending"][0]["nextAt"] == *at)
        .await;
    assert!(!merchant.heard_more());
    sandbox.clock.advance_millis(2_000);
    assert_eq!(merchant.hear().await.status(), "DONE");
}

#[tokio::test]
async fn at_most_sixteen_webhooks_are_in_flight() {
    // Given a merchant who answers nobody until his door opens.
    let door = watch::Sender::new(false);
    let inside = watch::Sender::new(0_usize);
    let most = Arc::new(AtomicUsize::new(0));
    let slow = {
        let (door, inside, most) = (door.clone(), inside.clone(), most.clone());
        move || async move {
            inside.send_modify(|count| *count += 1);
            most.fetch_max(*inside.borrow(), SeqCst);
            door.subscribe().wait_for(|open| *open).await.unwrap();
            inside.send_modify(|count| *count -= 1);
            StatusCode::OK
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(slow)).await });

    // When twenty payments have something to tell.
    let sandbox = Harness::with(SandboxSettings {
        webhook_url: Some(url),
        ..settings()
    })
    .await;
    for number in 0..20 {
        let (key, order) = (format!("key-{number}"), format!("order-{number}"));
        assert_eq!(sandbox.confirm(&key, &order).await.0, 200);
    }
    let full = async {
        inside
            .subscribe()
            .wait_for(|count| *count == 16)
            .await
            .is_ok()
    };
    assert!(tokio::time::timeout(DEADLINE, full).await.unwrap());

    // Then sixteen were there together, never more, and all are told in the end.
    door.send_replace(true);
    sandbox
        .webhooks_until(|all| all["delivered"].as_array().unwrap().len() == 20)
        .await;
    assert_eq!(most.load(SeqCst), 16);
}
