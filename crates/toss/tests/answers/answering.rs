//! What one answer proves of the money.

use serde_json::{Value, json};
use toss::{ChargeStatus, GatewayOutcome, protocol::RefundAccount};

use crate::peer::*;

async fn confirmed_by(say: Say) -> GatewayOutcome {
    let peer = Peer::saying(vec![say]).await;
    peer.client().confirm(&confirm()).await
}

fn body_of(request: &str) -> Value {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_code_that_leaves_the_money_open_is_unknown_whatever_its_status() {
    for (status, code) in [
        (400, "ALREADY_PROCESSED_PAYMENT"),
        (409, "IDEMPOTENT_REQUEST_PROCESSING"),
        (400, "PROVIDER_ERROR"),
        (403, "FORBIDDEN_CONSECUTIVE_REQUEST"),
        (500, "COMMON_ERROR"),
        (500, "FAILED_INTERNAL_SYSTEM_PROCESSING"),
        (500, "FAILED_PAYMENT_INTERNAL_SYSTEM_PROCESSING"),
        (500, "UNKNOWN_PAYMENT_ERROR"),
        (500, "A_CODE_OF_TOMORROW"),
        (503, "A_CODE_OF_TOMORROW"),
        (400, "A_CODE_OF_TOMORROW"),
        (409, "A_CODE_OF_TOMORROW"),
        (500, "REJECT_CARD_PAYMENT"),
    ] {
        let reason = unknown_because(confirmed_by(error(status, code)).await);
        assert_eq!(reason, format!("the gateway answered {status} {code}"));
    }
}

#[tokio::test]
async fn a_code_that_says_that_nothing_was_taken_is_a_refusal() {
    for (status, code) in [
        (403, "REJECT_CARD_PAYMENT"),
        (403, "REJECT_CARD_COMPANY"),
        (400, "INVALID_REJECT_CARD"),
        (400, "INVALID_STOPPED_CARD"),
        (400, "INVALID_CARD_EXPIRATION"),
        (400, "EXCEED_MAX_AMOUNT"),
        (404, "NOT_FOUND_PAYMENT_SESSION"),
        (400, "NOT_SUPPORTED_INSTALLMENT_PLAN_CARD_OR_MERCHANT"),
    ] {
        let outcome = confirmed_by(error(status, code)).await;
        assert_eq!(declined_with(outcome), code);
    }
}

#[tokio::test]
async fn an_answer_that_is_not_whole_proves_nothing() {
    let done = payment("DONE").to_string();
    let whole = http(200, "application/json", &done);
    let (head, _) = whole.split_once("\r\n\r\n").unwrap();
    let cut = whole[..whole.len() - 20].to_owned();
    let broken = "the connection broke before the answer was complete";
    for (say, expected) in [
        (Say::All(cut.clone()), broken),
        (Say::ThenReset(cut), broken),
        (Say::ThenReset(format!("{head}\r\n\r\n")), broken),
        (Say::ThenReset(String::new()), broken),
        (
            Say::All(http(200, "application/json", &done[..60])),
            "the answer with status 200 cannot be read",
        ),
        (
            Say::All(http(200, "application/json", "")),
            "the answer with status 200 cannot be read",
        ),
        (
            Say::All(http(200, "text/plain", &done)),
            "the answer with status 200 is not JSON",
        ),
        (
            Say::All(http(502, "text/html", "<h1>Bad Client</h1>")),
            "the answer with status 502 is not JSON",
        ),
        (
            Say::All(http(
                400,
                "text/html",
                r#"{"code":"REJECT_CARD_PAYMENT","message":""}"#,
            )),
            "the answer with status 400 is not JSON",
        ),
    ] {
        let told = format!("{say:?}");
        assert_eq!(unknown_because(confirmed_by(say).await), expected, "{told}");
    }
}

#[tokio::test]
async fn bytes_that_come_too_slowly_are_no_answer() {
    let whole = http(200, "application/json", &payment("DONE").to_string());
    for bytes in ["", &whole[..20], &whole[..whole.len() - 1]] {
        let peer = Peer::saying(vec![Say::ThenHang(bytes.to_owned())]).await;
        let outcome = peer.impatient_client().confirm(&confirm()).await;
        assert_eq!(unknown_because(outcome), "no answer in time", "{bytes:?}");
    }
}

#[tokio::test]
async fn fields_that_are_null_or_new_change_nothing() {
    let mut body = payment("DONE");
    for name in [
        "currency",
        "method",
        "approvedAt",
        "cancels",
        "failure",
        "secret",
        "virtualAccount",
        "easyPay",
    ] {
        body[name] = json!(null);
    }
    body["card"] = json!({"number": "4330****", "installmentPlanMonths": 0});
    let approved = GatewayOutcome::Approved(charge(ChargeStatus::Done, 1_000));
    assert_eq!(confirmed_by(says(200, &body)).await, approved);
}

#[tokio::test]
async fn a_success_that_is_none_is_unknown() {
    let mut other = payment("DONE");
    other["paymentKey"] = json!("payment-key-2");
    let mut nameless = payment("DONE");
    nameless["orderId"] = json!(null);
    let refusal = json!({"code": "REJECT_CARD_PAYMENT", "message": "why"});
    for (say, expected) in [
        (
            says(200, &other),
            "the answer is about another payment key than was asked",
        ),
        (
            says(200, &nameless),
            "the answer with status 200 cannot be read",
        ),
        (
            says(200, &refusal),
            "the answer with status 200 cannot be read",
        ),
        (
            says(201, &payment("DONE")),
            "the answer with status 201 cannot be read",
        ),
        (
            says(200, &payment("SOMETHING_NEW")),
            "the payment is SOMETHING_NEW",
        ),
        (
            says(200, &payment("IN_PROGRESS")),
            "the payment is IN_PROGRESS",
        ),
    ] {
        assert_eq!(unknown_because(confirmed_by(say).await), expected);
    }
}

#[tokio::test]
async fn an_account_that_waits_for_its_money_is_not_paid_and_not_refused() {
    let reason = unknown_because(confirmed_by(says(200, &payment("WAITING_FOR_DEPOSIT"))).await);
    assert_eq!(
        reason,
        "the payment is WAITING_FOR_DEPOSIT: no money has come in so far, and some may later"
    );
}

#[tokio::test]
async fn money_of_a_virtual_account_goes_back_in_part_to_the_account_named() {
    let mut body = payment("PARTIAL_CANCELED");
    body["balanceAmount"] = json!(600);
    body["cancels"] = json!([{"cancelAmount": 400}]);
    let peer = Peer::saying(vec![says(200, &body)]).await;
    let mut asked = cancel(Some(400));
    asked.refund_account = Some(RefundAccount {
        bank: "88".into(),
        account_number: "110123456789".into(),
        holder_name: "김철수".into(),
    });
    let given_back = GatewayOutcome::Approved(charge(ChargeStatus::PartialCanceled, 600));
    assert_eq!(peer.client().cancel(&asked).await, given_back);

    let [request] = &peer.heard()[..] else {
        panic!("asked once");
    };
    assert!(
        request.starts_with("POST /v1/payments/payment-key-1/cancel HTTP/1.1\r\n"),
        "{request}"
    );
    let account = json!({"bank": "88", "accountNumber": "110123456789", "holderName": "김철수"});
    assert_eq!(
        body_of(request),
        json!({"cancelReason": "the buyer asked for it", "cancelAmount": 400, "refundReceiveAccount": account})
    );
}

#[tokio::test]
async fn a_full_cancellation_names_neither_amount_nor_account() {
    let mut body = payment("CANCELED");
    body["balanceAmount"] = json!(0);
    body["cancels"] = json!([{"cancelAmount": 1000}]);
    let peer = Peer::saying(vec![says(200, &body)]).await;
    let given_back = GatewayOutcome::Approved(charge(ChargeStatus::Canceled, 0));
    assert_eq!(peer.client().cancel(&cancel(None)).await, given_back);
    assert_eq!(
        body_of(&peer.heard()[0]),
        json!({"cancelReason": "the buyer asked for it"})
    );
}
