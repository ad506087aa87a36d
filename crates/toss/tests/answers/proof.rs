//! The promise over everything that a peer can say: approved only where the answer proves it.

use proptest::prelude::*;
use serde_json::{Value, json};
use toss::{ChargeStatus, GatewayOutcome};

use crate::peer::*;

/// What a field may hold: mostly what was asked, else its neighbours and what is no value of it at all.
fn field(good: Value, strange: Vec<Value>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        8 => Just(Some(good)),
        2 => proptest::sample::select(strange).prop_map(Some),
        1 => Just(None),
    ]
}

/// A payment, nearly one, or something else that may be JSON.
fn body() -> impl Strategy<Value = String> {
    let statuses = [
        "DONE ",
        "done",
        "READY",
        "IN_PROGRESS",
        "WAITING_FOR_DEPOSIT",
        "CANCELED",
        "PARTIAL_CANCELED",
        "ABORTED",
        "EXPIRED",
        "SOMETHING_NEW",
    ];
    let payment = (
        field(
            json!("payment-key-1"),
            vec![json!("payment-key-2"), json!(null), json!(1)],
        ),
        field(
            json!("order-1"),
            vec![json!("order-2"), json!(""), json!(null)],
        ),
        field(
            json!("DONE"),
            statuses
                .into_iter()
                .map(Value::from)
                .chain([json!(null)])
                .collect(),
        ),
        field(
            json!(1000),
            vec![
                json!(999),
                json!(1001),
                json!(-1000),
                json!("1000"),
                json!(1000.5),
                json!(null),
            ],
        ),
        field(json!(1000), vec![json!(0), json!(null)]),
    );
    let payment = payment
        .prop_map(|(key, order, status, total, balance)| {
            let fields = [
                ("paymentKey", key),
                ("orderId", order),
                ("status", status),
                ("totalAmount", total),
                ("balanceAmount", balance),
            ];
            let fields = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)));
            Value::Object(fields.collect()).to_string()
        })
        .boxed();
    let cut = (payment.clone(), any::<proptest::sample::Index>())
        .prop_map(|(text, at)| text[..at.index(text.len())].to_owned());
    prop_oneof![
        8 => payment.clone(),
        1 => payment.prop_map(|text| format!("[{text}]")),
        1 => cut,
        1 => Just(r#"{"code":"REJECT_CARD_PAYMENT","message":"why"}"#.to_owned()),
        1 => "[ -~]{0,40}",
    ]
}

fn content_type() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just("application/json"),
        1 => Just("application/json;charset=UTF-8"),
        1 => proptest::sample::select(vec!["text/html", "text/plain; application/json", "application/problem+json", "json", ""]),
    ]
}

/// Read with other eyes than the client's.
fn is_proof(status: u16, content_type: &str, body: &str) -> bool {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    status == 200
        && content_type.starts_with("application/json")
        && body["status"] == "DONE"
        && body["paymentKey"] == "payment-key-1"
        && body["orderId"] == "order-1"
        && body["totalAmount"] == 1000
}

proptest! {
    #[test]
    fn only_a_done_payment_of_our_key_order_and_amount_is_approved(
        status in prop_oneof![4 => Just(200_u16), 1 => 200_u16..600],
        content_type in content_type(),
        body in body(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let peer = Peer::replying(vec![PeerReply::All(http(status, content_type, &body))]).await;
            peer.client().confirm(&confirm()).await
        });
        if let GatewayOutcome::Approved(charge) = &outcome {
            prop_assert!(is_proof(status, content_type, &body), "{status} {content_type} {body}");
            prop_assert_eq!(&charge.status, &ChargeStatus::Done);
        }
        // And what is proven to the last field is believed.
        if is_proof(status, content_type, &body) && body.contains(r#""balanceAmount":1"#) && body.starts_with('{') {
            prop_assert!(matches!(outcome, GatewayOutcome::Approved(_)), "{outcome:?} {body}");
        }
    }
}
