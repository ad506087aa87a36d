//! The list of transactions, for whoever reconciles.

use serde_json::{Value, json};

use crate::harness::Harness;

/// The day of the tests in Korea.
const DAY: &str = "startDate=2027-01-15T00:00:00&endDate=2027-01-15T23:59:59.999";

async fn list(sandbox: &Harness, query: &str) -> (u16, Value) {
    sandbox.get(&format!("/v1/transactions?{query}")).await
}

fn keys(page: &Value) -> Vec<&str> {
    let page = page.as_array().unwrap();
    page.iter()
        .map(|it| it["transactionKey"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn every_approval_and_cancellation_is_listed_once_in_order_and_by_pages() {
    let sandbox = Harness::start().await;
    for (key, order) in [("key-b", "order-2"), ("key-a", "order-1")] {
        assert_eq!(sandbox.confirm(key, order).await.0, 200);
    }
    sandbox.clock.advance_millis(1_500);
    let cancel = json!({ "cancelReason": "test", "cancelAmount": 300 });
    sandbox.post("/v1/payments/key-a/cancel", cancel).await;

    let (status, all) = list(&sandbox, DAY).await;
    assert_eq!(status, 200);
    assert_eq!(keys(&all), ["key-a.0", "key-b.0", "key-a.1"]);
    let last = json!({
        "transactionKey": "key-a.1", "paymentKey": "key-a", "orderId": "order-1",
        "status": "PARTIAL_CANCELED", "amount": -300, "currency": "KRW", "method": "카드",
        "transactionAt": "2027-01-15T17:00:01+09:00"
    });
    assert_eq!(all[2], last);

    let (_, first) = list(&sandbox, &format!("{DAY}&limit=2")).await;
    assert_eq!(keys(&first), ["key-a.0", "key-b.0"]);
    let (_, rest) = list(&sandbox, &format!("{DAY}&limit=2&startingAfter=key-b.0")).await;
    assert_eq!(keys(&rest), ["key-a.1"]);
    let early = "startDate=2027-01-15T00:00:00&endDate=2027-01-15T17:00:01.499";
    assert_eq!(keys(&list(&sandbox, early).await.1).len(), 2);
}

#[tokio::test]
async fn an_invalid_list_request_is_refused_with_its_parameter() {
    let sandbox = Harness::start().await;
    for (query, parameter) in [
        ("endDate=2027-01-15T00:00:00".to_owned(), "startDate"),
        (
            "startDate=2027-01-15&endDate=2027-01-15T00:00:00".to_owned(),
            "startDate",
        ),
        (format!("{DAY}&limit=0"), "limit"),
        (format!("{DAY}&limit=5001"), "limit"),
    ] {
        let (status, told) = list(&sandbox, &query).await;
        assert_eq!((status, &told["code"]), (400, &json!("INVALID_REQUEST")));
        let message = told["message"].as_str().unwrap();
        assert!(message.starts_with(parameter), "{query}: {message}");
    }
    let (status, told) = list(&sandbox, &format!("{DAY}&startingAfter=nothing")).await;
    assert_eq!(
        (status, &told["code"]),
        (400, &json!("INVALID_TRANSACTION_KEY"))
    );
}
