//! Payments that are not paid in time, keys that nobody requested, and what the control API refuses.

use serde_json::json;
use toss_sandbox::{Error, Sandbox, SandboxSettings};

use crate::harness::{Harness, settings};

const MINUTE_MILLIS: i64 = 60_000;

#[tokio::test]
async fn a_payment_that_was_requested_must_be_authenticated_within_thirty_minutes() {
    for (minutes, expected) in [(29, 200), (30, 409)] {
        let sandbox = Harness::start().await;
        let key = sandbox
            .request(json!({ "orderId": "order-1", "amount": 1000, "authenticated": false }))
            .await;
        assert_eq!(sandbox.status(&key).await, "READY");
        let (status, told) = sandbox.confirm(&key, "order-1").await;
        assert_eq!(
            (status, &told["code"]),
            (404, &json!("NOT_FOUND_PAYMENT_SESSION"))
        );
        sandbox.clock.advance_millis(minutes * MINUTE_MILLIS);
        assert_eq!(sandbox.act(&key, "authenticate").await.0, expected);
    }
}

#[tokio::test]
async fn an_authenticated_payment_must_be_confirmed_within_ten_minutes() {
    let sandbox = Harness::start().await;
    let in_time = sandbox
        .request(json!({ "orderId": "order-1", "amount": 1000 }))
        .await;
    let late = sandbox
        .request(json!({ "orderId": "order-2", "amount": 1000 }))
        .await;
    sandbox.clock.advance_millis(10 * MINUTE_MILLIS - 1);
    assert_eq!(sandbox.confirm(&in_time, "order-1").await.0, 200);
    sandbox.clock.advance_millis(1);
    let (status, told) = sandbox.confirm(&late, "order-2").await;
    assert_eq!(
        (status, &told["code"]),
        (404, &json!("NOT_FOUND_PAYMENT_SESSION"))
    );
    assert_eq!(sandbox.status(&late).await, "EXPIRED");
    assert_eq!(sandbox.status(&in_time).await, "DONE");
}

#[tokio::test]
async fn an_unknown_key_is_a_card_payment_only_if_the_sandbox_is_lenient() {
    let strict = Harness::with(SandboxSettings {
        lenient: false,
        ..settings()
    })
    .await;
    let (status, told) = strict.confirm("key-1", "order-1").await;
    assert_eq!(
        (status, &told["code"]),
        (404, &json!("NOT_FOUND_PAYMENT_SESSION"))
    );
    let lenient = Harness::start().await;
    assert_eq!(lenient.confirm("key-1", "order-1").await.0, 200);
}

#[tokio::test]
async fn an_order_is_paid_by_one_of_its_payments_and_looked_up_by_it() {
    let sandbox = Harness::start().await;
    let order = json!({ "orderId": "order-1", "amount": 1000 });
    let first = sandbox.request(order.clone()).await;
    let second = sandbox.request(order).await;
    assert_ne!(first, second);
    assert_eq!(sandbox.confirm(&first, "order-1").await.0, 200);
    let (_, told) = sandbox.confirm(&second, "order-1").await;
    assert_eq!(told["code"], "DUPLICATED_ORDER_ID");
    let (_, found) = sandbox.get("/v1/payments/orders/order-1").await;
    assert_eq!(found["paymentKey"], *first);
}

#[tokio::test]
async fn an_aborted_payment_says_why_and_cannot_be_confirmed() {
    let sandbox = Harness::start().await;
    let key = sandbox
        .request(json!({ "orderId": "order-1", "amount": 1000 }))
        .await;
    let (_, aborted) = sandbox.act(&key, "abort").await;
    assert_eq!(aborted["status"], "ABORTED");
    assert_eq!(aborted["failure"]["code"], "PAY_PROCESS_ABORTED");
    assert_eq!(sandbox.confirm(&key, "order-1").await.0, 404);
}

#[tokio::test]
async fn an_invalid_control_request_is_refused_with_its_field() {
    let sandbox = Harness::start().await;
    for (body, field) in [
        (json!({ "amount": 1000 }), "orderId"),
        (json!({ "orderId": "short", "amount": 1000 }), "orderId"),
        (json!({ "orderId": "order-1", "amount": 0 }), "amount"),
        (json!({ "orderId": "order-1", "amount": 1.5 }), "amount"),
        (
            json!({ "orderId": "order-1", "amount": 1, "method": "CASH" }),
            "method",
        ),
        (
            json!({ "orderId": "order-1", "amount": 1, "paymentKey": "a/b" }),
            "paymentKey",
        ),
        (
            json!({ "orderId": "order-1", "amount": 1, "dueSecs": 0 }),
            "dueSecs",
        ),
        (
            json!({ "orderId": "order-1", "amount": 1, "paid": true }),
            "paid",
        ),
    ] {
        let (status, told) = sandbox.post("/sandbox/payments", body.clone()).await;
        assert_eq!((status, &told["code"]), (400, &json!("INVALID_REQUEST")));
        let message = told["message"].as_str().unwrap();
        assert!(message.contains(field), "{body}: {message}");
    }
    assert_eq!(sandbox.act("nobody", "deposit").await.0, 404);
    let key = sandbox
        .request(json!({ "orderId": "order-1", "amount": 1000, "paymentKey": "key-1" }))
        .await;
    let (status, told) = sandbox.act(&key, "withdraw").await;
    assert_eq!((status, &told["code"]), (409, &json!("WRONG_STATUS")));
    let again = json!({ "orderId": "order-2", "amount": 1000, "paymentKey": "key-1" });
    assert_eq!(sandbox.post("/sandbox/payments", again).await.0, 409);
}

#[test]
fn a_file_of_another_version_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch("CREATE TABLE charge (payment_key TEXT PRIMARY KEY)")
        .unwrap();
    drop(old);
    let opened = Sandbox::open(SandboxSettings {
        path: Some(path.clone()),
        ..settings()
    });
    assert!(matches!(opened, Err(Error::SchemaVersion)));
    let old = rusqlite::Connection::open(&path).unwrap();
    let tables: i64 = old
        .query_row(
            "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'",
            (),
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(tables, 1);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let with_url = |url: &str| SandboxSettings {
        webhook_url: Some(url.to_owned()),
        ..settings()
    };
    for url in ["https://shop.example/webhook", "ftp://shop.example", "shop"] {
        let opened = Sandbox::open(with_url(url));
        assert!(matches!(opened, Err(Error::WebhookUrl)), "{url}");
    }
    let opened = Sandbox::open(SandboxSettings {
        webhook_speed: 0,
        ..settings()
    });
    assert!(matches!(opened, Err(Error::WebhookSpeed)));
}
