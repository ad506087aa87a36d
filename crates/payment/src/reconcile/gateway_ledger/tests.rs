//! What a list of transactions says by itself, and where it is left when it is too long.

use super::*;
use crate::record::sample::{NOW, payment};
use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};

fn row(payment_key: &str, status: ChargeStatus, amount: i64) -> LedgerRow {
    LedgerRow {
        transaction_key: format!("{payment_key}-{status:?}-{amount}"),
        payment_key: payment_key.to_owned(),
        status,
        amount,
        at: None,
    }
}

fn done(key: &str) -> LedgerRow {
    row(key, ChargeStatus::Done, 700)
}

fn canceled(key: &str, amount: i64) -> LedgerRow {
    row(key, ChargeStatus::Canceled, amount)
}

/// The charges that must be looked up.
fn open(status: PaymentStatus, refund: Refund, rows: &[LedgerRow]) -> Vec<String> {
    let open = open_charges(&payment(status, refund), rows);
    open.into_iter().map(|charge| charge.payment_key).collect()
}

#[test]
fn only_what_both_sides_agree_on_needs_no_lookup() {
    let (none, back) = (Refund::None, Refund::Done);
    let nothing: [&str; 0] = [];
    let given_back = [done("pg-1"), canceled("pg-1", 700)];
    assert_eq!(open(Succeeded, none, &[done("pg-1")]), nothing);
    assert_eq!(open(Cancelled, back, &given_back), nothing);
    for status in [Created, Failed, Deleted] {
        assert_eq!(open(status, none, &[]), nothing, "{status:?}");
        assert_eq!(open(status, none, &given_back), nothing, "{status:?}");
        assert_eq!(open(status, none, &[done("pg-1")]), ["pg-1"], "{status:?}");
    }
    for (status, refund, rows) in [
        (Succeeded, none, vec![]),
        (Succeeded, none, given_back.to_vec()),
        (Succeeded, none, vec![row("pg-1", ChargeStatus::Done, 699)]),
        (Succeeded, none, vec![done("pg-1"), canceled("pg-1", 100)]),
        (Succeeded, Refund::Requested, vec![done("pg-1")]),
        (Succeeded, Refund::Parked, vec![done("pg-1")]),
        (Cancelled, back, vec![done("pg-1")]),
        (Cancelled, back, vec![]),
        (Confirming, none, vec![]),
        (Confirming, none, given_back.to_vec()),
    ] {
        assert_eq!(open(status, refund, &rows), ["pg-1"], "{status:?} {rows:?}");
    }
}

#[test]
fn an_orphan_charge_is_looked_up_after_the_payments_own_unless_it_is_refunded() {
    let beside = [done("pg-0"), done("pg-1")];
    assert_eq!(open(Succeeded, Refund::None, &beside), ["pg-0"]);
    assert_eq!(open(Confirming, Refund::None, &beside), ["pg-1", "pg-0"]);
    let gone = [canceled("pg-0", 700), done("pg-1"), done("pg-0")];
    assert_eq!(open(Succeeded, Refund::None, &gone), [""; 0]);
}

#[test]
fn a_list_that_is_too_long_ends_the_period_at_its_last_row() {
    let period = Period {
        from: NOW,
        to: NOW.plus_secs(86_400),
    };
    let ledger = || GatewayLedger {
        orders: BTreeMap::new(),
        unreadable: 0,
        to: period.to,
    };
    let cut = |latest| ledger().cut(&period, latest).map(|ledger| ledger.to);
    let margin = NOW.plus_millis(MARGIN_MILLIS);
    assert_eq!(cut(Some(margin.plus_millis(1))), Some(NOW.plus_millis(1)));
    assert_eq!(cut(Some(period.to.plus_secs(9_999))), Some(period.to));
    assert_eq!(cut(Some(margin)), Some(margin), "the margin did not fit");
    assert_eq!(cut(Some(NOW.plus_millis(1))), Some(NOW.plus_millis(1)));
    assert_eq!(cut(Some(NOW)), None, "nothing of the period was read");
    assert_eq!(cut(None), None);
}

/// A gateway that lists a charge every second, and a service that asks it.
async fn one_charge_a_second(folder: &std::path::Path) -> Service {
    use std::collections::HashMap;

    use axum::{Json, Router, extract::Query, routing::get};
    use serde_json::{Value, json};

    async fn page(Query(asked): Query<HashMap<String, String>>) -> Json<Value> {
        let after = asked.get("startingAfter").map_or("", String::as_str);
        let rows = (-700..700).map(|second| {
            let at = NOW.plus_secs(second);
            let key = format!("tx-{:04}", second + 1_000);
            // The query is in Korea's time.
            let is_asked = at.plus_secs(9 * 3_600).to_string() >= asked["startDate"];
            let row = json!({
                "transactionKey": key, "paymentKey": key, "orderId": key, "status": "DONE",
                "amount": 7, "transactionAt": at.to_string(),
            });
            (is_asked && key.as_str() > after).then_some(row)
        });
        let limit = asked["limit"].parse().unwrap();
        Json(rows.flatten().take(limit).collect())
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = crate::Settings::default();
    settings.gateway.base_url = format!("http://{}", listener.local_addr().unwrap());
    settings.gateway.secret_key = toss::SecretKey::new("test_sk_of_the_tests");
    let router = Router::new().route("/v1/transactions", get(page));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let metrics = messaging::Metrics::unregistered();
    let store = messaging::Store::open_embedded(folder, crate::TABLES, metrics).unwrap();
    let (clock, random) = (messaging::Clock::manual(NOW), messaging::Random::seeded(1));
    Service::new(store, clock, random, settings, crate::Metrics::default()).unwrap()
}

#[tokio::test]
async fn a_busy_gateway_is_compared_in_pieces_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let service = one_charge_a_second(folder.path()).await;
    let end = NOW.plus_secs(20);
    let (mut from, mut seen, mut pieces) = (NOW, Vec::new(), 0);
    while from < end {
        let period = Period { from, to: end };
        // Eight rows at a time, of which the margin before the period alone has hundreds.
        let ledger = service.read_gateway_ledger(period, 8).await.unwrap();
        assert!(ledger.to > from, "it goes on");
        let piece = Period {
            to: ledger.to,
            ..period
        };
        let rows = ledger.orders.values().flatten();
        seen.extend(rows.filter(|row| row.is_inside(&piece)).map(|row| row.at));
        (from, pieces) = (ledger.to, pieces + 1);
    }
    assert_eq!(pieces, 3);
    let every: Vec<_> = (0..20).map(|second| Some(NOW.plus_secs(second))).collect();
    assert_eq!(seen, every, "each once");
}

#[test]
fn a_row_before_a_period_is_late_and_one_after_it_belongs_to_the_next() {
    let period = Period {
        from: NOW,
        to: NOW.plus_secs(60),
    };
    let place = |at| {
        let row = LedgerRow { at, ..done("pg-1") };
        (row.is_late(&period), row.is_inside(&period))
    };
    assert_eq!(place(Some(NOW.plus_millis(-1))), (true, false));
    assert_eq!(place(Some(NOW)), (false, true));
    assert_eq!(place(None), (false, true));
    assert_eq!(place(Some(period.to)), (false, false));
}
