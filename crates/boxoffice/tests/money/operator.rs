//! What a person does at the end: a virtual account's money is refunded only to an account that a person names.
//! Nothing else may wait for a person: the service settles every other unknown outcome by itself.

use std::collections::BTreeMap;

use messaging::dead_letters::DeadLetterState;
use payment::record::Refund;
use serde_json::{Value, json};
use test_support::api::ApiRequest;

use crate::{gateway::Charge, idle::AllBooks, service::RestartableService};

/// Names an account for every parked refund and requests it again; returns the number of refunds.
pub async fn settle_what_is_parked(service: &RestartableService, all: &AllBooks) -> usize {
    let charges = service.gateway.charges();
    only_accounts_wait_for_a_person(all, &charges);
    let payments = all.books.payments.values();
    let parked = payments.filter(|it| it.refund == Refund::Parked);
    let mut settled = 0;
    for payment in parked {
        let path = format!("/payment/{}", payment.payment_id);
        let account = json!({ "bank": "20", "accountNumber": "456", "holderName": "Lee" });
        let named = ApiRequest::put(format!("{path}/refund-account"), account)
            .with_key(format!("operator-names-{settled}"));
        assert_eq!(service.send(&named).await.status, 204, "{payment:?}");
        let resumed = ApiRequest::post(format!("{path}/refund"), Value::Null)
            .with_key(format!("operator-{settled}"));
        assert_eq!(service.send(&resumed).await.status, 202, "{payment:?}");
        settled += 1;
    }
    settled
}

/// Reconciles the service with the gateway and expects no difference.
pub async fn reconcile(service: &RestartableService) {
    let asked =
        ApiRequest::post("/payment/reconciliation", json!({})).with_key("operator-reconciles");
    let report = service.send(&asked).await;
    assert_eq!(report.status, 200, "{report:?}");
    assert_eq!(report.body["differences"], json!([]), "{report:?}");
    assert_eq!(
        report.body["settled"], 0,
        "only reconciliation settled it: {report:?}"
    );
    let matched = report.body["matched"].as_u64();
    assert!(matched.is_some_and(|matched| matched > 0), "{report:?}");
}

fn only_accounts_wait_for_a_person(all: &AllBooks, charges: &BTreeMap<String, Charge>) {
    for payment in all.books.payments.values() {
        if payment.refund == Refund::Parked {
            let key = payment.pg_payment_id.as_deref().unwrap_or_default();
            let is_account = charges.get(key).is_some_and(|charge| charge.is_account);
            let has_no_refund_account = payment.refund_account.is_none();
            assert!(
                is_account && has_no_refund_account,
                "parked without need: {payment:?} for {:?}",
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
