//! Virtual accounts: issued, paid, taken back, closed, given back, expired.

use serde_json::{Value, json};

use crate::harness::{Harness, settings};

async fn issued(sandbox: &Harness, due_secs: i64) -> (String, Value) {
    let key = sandbox
        .request(json!({
            "orderId": "order-1", "amount": 1000, "method": "VIRTUAL_ACCOUNT", "dueSecs": due_secs
        }))
        .await;
    let (status, payment) = sandbox.confirm(&key, "order-1").await;
    assert_eq!(status, 200);
    (key, payment)
}

fn money(sandbox: &Harness) -> (i64, i64, i64) {
    let totals = sandbox.inner.totals().unwrap();
    (totals.charged, totals.refunded, totals.held)
}

#[tokio::test]
async fn a_confirmed_account_waits_for_its_deposit_and_no_money_has_moved() {
    let sandbox = Harness::start().await;
    let (key, payment) = issued(&sandbox, 3_600).await;
    assert_eq!(payment["status"], "WAITING_FOR_DEPOSIT");
    assert_eq!(payment["approvedAt"], Value::Null);
    assert!(!payment["secret"].as_str().unwrap().is_empty());
    let account = &payment["virtualAccount"];
    assert_eq!(account["accountNumber"].as_str().unwrap().len(), 14);
    assert_eq!(account["bankCode"], "20");
    assert_eq!(account["dueDate"], "2027-01-15T18:00:00+09:00");
    assert_eq!(account["expired"], false);
    assert_eq!(money(&sandbox), (0, 0, 0));
    let (_, told) = sandbox.confirm(&key, "order-1").await;
    assert_eq!(told["code"], "ALREADY_PROCESSED_PAYMENT");
}

#[tokio::test]
async fn a_deposit_can_be_reversed_and_repeated() {
    let sandbox = Harness::start().await;
    let (key, _) = issued(&sandbox, 3_600).await;
    assert_eq!(sandbox.act(&key, "deposit").await.1["status"], "DONE");
    assert_eq!(money(&sandbox), (1000, 0, 1000));
    assert_eq!(sandbox.act(&key, "deposit").await.0, 409);

    let (_, back) = sandbox.act(&key, "withdraw").await;
    assert_eq!(back["status"], "WAITING_FOR_DEPOSIT");
    assert_eq!(money(&sandbox), (1000, 1000, 0));

    assert_eq!(sandbox.act(&key, "deposit").await.1["status"], "DONE");
    assert_eq!(money(&sandbox), (2000, 1000, 1000));
    let totals = sandbox.inner.totals().unwrap();
    assert_eq!(totals.orders_charged_twice, Vec::<String>::new());
}

#[tokio::test]
async fn a_deposit_is_refunded_only_with_an_account() {
    let sandbox = Harness::start().await;
    let (key, _) = issued(&sandbox, 3_600).await;
    sandbox.act(&key, "deposit").await;
    let path = format!("/v1/payments/{key}/cancel");
    let without = json!({ "cancelReason": "test" });
    let (status, told) = sandbox.post(&path, without).await;
    assert_eq!((status, &told["code"]), (400, &json!("INVALID_REQUEST")));
    let with = json!({
        "cancelReason": "test", "cancelAmount": 400,
        "refundReceiveAccount": { "bank": "20", "accountNumber": "1234567", "holderName": "Kim" }
    });
    let (status, part) = sandbox.post(&path, with).await;
    assert_eq!((status, &part["balanceAmount"]), (200, &json!(600)));
    assert_eq!(money(&sandbox), (1000, 400, 600));
}

#[tokio::test]
async fn cancelling_an_account_without_a_deposit_closes_it() {
    let sandbox = Harness::start().await;
    let (key, _) = issued(&sandbox, 3_600).await;
    let path = format!("/v1/payments/{key}/cancel");
    let (status, closed) = sandbox.post(&path, json!({ "cancelReason": "test" })).await;
    assert_eq!((status, &closed["status"]), (200, &json!("CANCELED")));
    assert_eq!(closed["balanceAmount"], 0);
    assert_eq!(money(&sandbox), (0, 0, 0));
    assert_eq!(
        sandbox.act(&key, "deposit").await.0,
        409,
        "it takes no money"
    );
}

#[tokio::test]
async fn an_account_expires_after_its_due_date_even_if_its_deposit_was_reversed() {
    let sandbox = Harness::start().await;
    let (key, _) = issued(&sandbox, 3_600).await;
    sandbox.act(&key, "deposit").await;
    sandbox.clock.advance_millis(3_600_000);
    assert_eq!(sandbox.status(&key).await, "DONE", "paid is paid");
    sandbox.act(&key, "withdraw").await;
    let (_, payment) = sandbox.get(&format!("/v1/payments/{key}")).await;
    assert_eq!(payment["status"], "EXPIRED");
    assert_eq!(payment["virtualAccount"]["expired"], true);
    assert_eq!(sandbox.act(&key, "deposit").await.0, 409);
}

#[tokio::test]
async fn the_merchant_can_cancel_at_the_console_of_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.db");
    let sandbox = Harness::with(toss_sandbox::SandboxSettings {
        path: Some(path.clone()),
        ..settings()
    })
    .await;
    let (key, _) = issued(&sandbox, 3_600).await;
    sandbox.act(&key, "deposit").await;
    let (status, cancelled) = sandbox.act(&key, "cancel-by-merchant").await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("CANCELED")));
    assert_eq!(money(&sandbox), (1000, 1000, 0));
    let waiting = json!({ "orderId": "order-2", "amount": 7 });
    sandbox.request(waiting).await;
    sandbox.stop().await;

    // The file lists only payments for which money was taken.
    let file = rusqlite::Connection::open(path).unwrap();
    let text = "SELECT order_id, status, total_amount, balance_amount FROM charge";
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let charges: Vec<(String, String, i64, i64)> = file
        .prepare(text)
        .unwrap()
        .query_map((), row)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(charges, [("order-1".into(), "CANCELED".into(), 1000, 0)]);
}
