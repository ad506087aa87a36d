//! What a person does at the end: money of virtual accounts goes back only to an account that somebody names. Nothing
//! else may wait for a person: whatever the ladder could have settled, it has.

use std::collections::BTreeMap;

use messaging::dead_letters::DeadLetterState;
use payment::record::Refund;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{gateway::Charge, house::House, ledger::Ask, rest::AllBooks};

/// Names an account for every parked refund, and asks for it again; returns how many there were.
pub async fn settle_what_is_parked(house: &House, all: &AllBooks) -> usize {
    let charges = house.gateway.charges();
    only_accounts_wait_for_a_person(all, &charges);
    let payments = all.books.payments.values();
    let parked = payments.filter(|it| it.refund == Refund::Parked);
    let mut settled = 0;
    for payment in parked {
        let path = format!("/payment/{}", payment.payment_id);
        let account = json!({ "bank": "20", "accountNumber": "456", "holderName": "Lee" });
        let named = Ask {
            method: Method::PUT,
            path: format!("{path}/refund-account"),
            key: format!("operator-names-{settled}"),
            body: account,
        };
        assert_eq!(house.ask(&named).await.status, 204, "{payment:?}");
        let key = format!("operator-{settled}");
        let resumed = Ask::post(&format!("{path}/refund"), key, Value::Null);
        assert_eq!(house.ask(&resumed).await.status, 202, "{payment:?}");
        settled += 1;
    }
    settled
}

/// Lets everything that the gateway lists be compared once more with everything that stands here.
pub async fn reconcile(house: &House) {
    let key = "operator-reconciles".to_owned();
    let asked = Ask::post("/payment/reconciliation", key, json!({}));
    let report = house.ask(&asked).await;
    assert_eq!(report.status, 200, "{report:?}");
    assert_eq!(report.body["differences"], json!([]), "{report:?}");
    assert_eq!(report.body["settled"], 0, "it was left to this: {report:?}");
    let matched = report.body["matched"].as_u64();
    assert!(matched.is_some_and(|matched| matched > 0), "{report:?}");
}

fn only_accounts_wait_for_a_person(all: &AllBooks, charges: &BTreeMap<String, Charge>) {
    for payment in all.books.payments.values() {
        if payment.refund == Refund::Parked {
            let key = payment.pg_payment_id.as_deref().unwrap_or_default();
            let is_account = charges.get(key).is_some_and(|charge| charge.is_account);
            let nobody_said_where_to = payment.refund_account.is_none();
            assert!(
                is_account && nobody_said_where_to,
                "it needs no person: {payment:?} for {:?}",
                charges.get(key)
            );
        }
    }
    nothing_else_is_parked(all);
}

pub fn nothing_else_is_parked(all: &AllBooks) {
    for stray in all.strays.values() {
        assert_eq!(stray.refund, Refund::Done, "{stray:?}");
    }
    for saga in all.books.sagas.values() {
        assert!(saga.state.is_terminal(), "{saga:?}");
    }
    for letter in &all.dead_letters {
        assert!(letter.state != DeadLetterState::Parked, "{letter:?}");
    }
}
