//! The totals of the gateway add up after any sequence of requests.

use std::sync::Arc;

use axum::{Router, body::Body, http::Request};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use toss_sandbox::{ManualClock, Sandbox, SandboxSettings};
use tower::ServiceExt;

use crate::harness::{START, settings};

const AUTHORIZATION: &str = "Basic dGVzdF9za19vZl90aGVfdGVzdHM6";

#[derive(Clone, Copy, Debug)]
enum Step {
    Confirm,
    Cancel(Option<i64>),
    Deposit,
    Withdraw,
    CancelByMerchant,
    Abort,
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        4 => Just(Step::Confirm),
        3 => proptest::option::of(1_i64..1_200).prop_map(Step::Cancel),
        4 => Just(Step::Deposit),
        2 => Just(Step::Withdraw),
        1 => Just(Step::CancelByMerchant),
        1 => Just(Step::Abort),
        1 => (0_i64..400_000).prop_map(Step::Wait),
    ];
    proptest::collection::vec((0_usize..4, step), 1..30)
}

async fn post(router: &Router, path: &str, body: Value) -> Value {
    let request = Request::post(path)
        .header("authorization", AUTHORIZATION)
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    assert!(answer.status().as_u16() < 500, "{path}");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// Two cards for one order, and two virtual accounts.
async fn request(router: &Router) {
    for (number, order, method) in [
        (0, "order-0", "CARD"),
        (1, "order-0", "CARD"),
        (2, "order-2", "VIRTUAL_ACCOUNT"),
        (3, "order-3", "VIRTUAL_ACCOUNT"),
    ] {
        let body = json!({
            "orderId": order, "amount": 1000, "method": method,
            "paymentKey": format!("key-{number}"), "dueSecs": 1_000
        });
        post(router, "/sandbox/payments", body).await;
    }
}

async fn take(router: &Router, clock: &ManualClock, payment: usize, step: Step) {
    let order = if payment < 2 { 0 } else { payment };
    let act = |verb: &str| format!("/sandbox/payments/key-{payment}/{verb}");
    let (path, body) = match step {
        Step::Confirm => (
            "/v1/payments/confirm".to_owned(),
            json!({ "paymentKey": format!("key-{payment}"), "orderId": format!("order-{order}"), "amount": 1000 }),
        ),
        Step::Cancel(amount) => (
            format!("/v1/payments/key-{payment}/cancel"),
            json!({ "cancelReason": "test", "cancelAmount": amount,
                "refundReceiveAccount": { "bank": "20", "accountNumber": "1", "holderName": "Kim" } }),
        ),
        Step::Deposit => (act("deposit"), json!({})),
        Step::Withdraw => (act("withdraw"), json!({})),
        Step::CancelByMerchant => (act("cancel-by-merchant"), json!({})),
        Step::Abort => (act("abort"), json!({})),
        Step::Wait(millis) => return clock.advance_millis(millis),
    };
    post(router, &path, body).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_balance_is_what_was_charged_less_what_was_refunded(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = Arc::new(ManualClock::new(START));
            let settings = SandboxSettings { clock: clock.clone(), ..settings() };
            let sandbox = Sandbox::open(settings).unwrap();
            let router = sandbox.router();
            request(&router).await;
            for (payment, step) in steps {
                take(&router, &clock, payment, step).await;
                let totals = sandbox.totals().unwrap();
                assert_eq!(totals.held, totals.charged - totals.refunded, "{totals:?}");
                assert!(totals.held >= 0 && totals.orders_charged_twice.is_empty(), "{totals:?}");
            }
        });
    }
}
