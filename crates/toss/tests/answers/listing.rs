//! The list of transactions, as it is asked for and as it comes.

use serde_json::{Value, json};
use toss::{ChargeStatus, Listing, Period, Transaction};

use crate::peer::*;

fn period() -> Period {
    Period {
        from: "2024-06-18T15:00:00Z".parse().unwrap(),
        to: "2024-06-19T14:59:59.999Z".parse().unwrap(),
    }
}

fn row(key: usize) -> Value {
    json!({
        "mId": "tosspayments", "transactionKey": format!("txrd_a01jq71h2m1gaa9g678k{key:06}"), "paymentKey": format!("key-{key}"),
        "orderId": format!("order-{key}"), "status": "CANCELED", "amount": -1000, "currency": "KRW", "method": "카드",
        "customerKey": "ANONYMOUS", "useEscrow": false, "receiptUrl": "https://dashboard.tosspayments.com/receipt/".repeat(4),
        "transactionAt": "2024-06-19T12:00:00+09:00",
    })
}

/// The first line of a request, its query decoded as far as this client encodes.
fn asked(request: &str) -> String {
    request.lines().next().unwrap().replace("%3A", ":")
}

#[tokio::test]
async fn a_period_is_requested_in_korean_time_page_by_page() {
    let peer = Peer::replying(vec![replies(200, &json!([]))]).await;
    let gateway = peer.client();
    gateway.transactions(&period(), None, 100).await;
    gateway
        .transactions(&period(), Some("t/1&limit=9"), 0)
        .await;
    gateway.transactions(&period(), None, 5_001).await;

    let received = peer.received();
    let lines: Vec<String> = received.iter().map(|request| asked(request)).collect();
    let dates = "startDate=2024-06-19T00:00:00.000&endDate=2024-06-19T23:59:59.999";
    assert_eq!(
        lines,
        [
            format!("GET /v1/transactions?{dates}&limit=100 HTTP/1.1"),
            format!(
                "GET /v1/transactions?{dates}&limit=1&startingAfter=t%2F1%26limit%3D9 HTTP/1.1"
            ),
            format!("GET /v1/transactions?{dates}&limit=5000 HTTP/1.1"),
        ]
    );
    assert!(received[0].contains("\r\nauthorization: Basic dGVzdF9za19vZl90aGVfdGVzdHM6\r\n"));
}

#[tokio::test]
async fn the_longest_page_comes_whole_and_a_row_that_cannot_be_read_hides_no_other() {
    let mut rows: Vec<Value> = (0..5_000).map(row).collect();
    rows[17]["amount"] = json!("many");
    let body = Value::Array(rows);
    assert!(body.to_string().len() > 2_000_000, "as long as a real one");
    let peer = Peer::replying(vec![replies(200, &body)]).await;

    let listing = peer.client().transactions(&period(), None, 5_000).await;
    let Listing::Page {
        transactions,
        is_last,
        unreadable,
    } = listing
    else {
        panic!("expected a page, got {listing:?}");
    };
    assert_eq!((transactions.len(), is_last, unreadable), (4_999, false, 1));
    let last = Transaction {
        transaction_key: "txrd_a01jq71h2m1gaa9g678k004999".into(),
        payment_key: "key-4999".into(),
        order_id: "order-4999".into(),
        status: ChargeStatus::Canceled,
        amount: -1_000,
        at: Some("2024-06-19T03:00:00Z".parse().unwrap()),
    };
    assert_eq!(transactions.last(), Some(&last));
}

#[tokio::test]
async fn a_page_above_the_size_limit_is_given_up() {
    let endless = http(200, "application/json", &" ".repeat(8 * 1024 * 1024 + 1));
    let peer = Peer::replying(vec![PeerReply::All(endless)]).await;
    let listing = peer.client().transactions(&period(), None, 1).await;
    let reason = "the answer is too large".into();
    assert_eq!(listing, Listing::Unknown { reason });
}
