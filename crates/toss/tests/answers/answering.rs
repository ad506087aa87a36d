//! What one answer proves of the money.

use serde_json::{Value, json};
use toss::{ChargeStatus, GatewayOutcome, protocol::RefundAccount};

use crate::peer::*;

async fn confirmed_by(say: PeerReply) -> GatewayOutcome {
    let peer = Peer::replying(vec![say]).await;
    peer.client().confirm(&confirm()).await
}

fn body_of(request: &str) -> Value {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn an_unsettled_code_is_unknown_whatever_its_status() {
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
async fn an_answer_with_nul_is_read_as_text_that_a_store_accepts() {
    let refusal = json!({"code": "REJECT_CARD_PAYMENT", "message": "not\0 this card"});
    let GatewayOutcome::Declined { message, .. } = confirmed_by(replies(403, &refusal)).await
    else {
        panic!("a refusal's code declines")
    };
    assert_eq!(message, "not\u{fffd} this card");
}

#[tokio::test]
async fn a_refusal_code_is_a_decline() {
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
        (PeerReply::All(cut.clone()), broken),
        (PeerReply::ThenReset(cut), broken),
        (PeerReply::ThenReset(format!("{head}\r\n\r\n")), broken),
        (PeerReply::ThenReset(String::new()), broken),
        (
            PeerReply::All(http(200, "application/json", &done[..60])),
            "the answer with status 200 cannot be read",
        ),
        (
            PeerReply::All(http(200, "application/json", "")),
            "the answer with status 200 cannot be read",
        ),
        (
            PeerReply::All(http(200, "text/plain", &done)),
            "the answer with status 200 is not JSON",
        ),
        (
            PeerReply::All(http(502, "text/html", "<h1>Bad Client</h1>")),
            "the answer with status 502 is not JSON",
        ),
        (
            PeerReply::All(http(
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
async fn an_answer_after_the_deadline_is_no_answer() {
    let whole = http(200, "application/json", &payment("DONE").to_string());
    for bytes in ["", &whole[..20], &whole[..whole.len() - 1]] {
        let peer = Peer::replying(vec![PeerReply::ThenHang(bytes.to_owned())]).await;
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
    assert_eq!(confirmed_by(replies(200, &body)).await, approved);
}

#[tokio::test]
async fn a_success_about_something_else_is_unknown() {
    let mut other = payment("DONE");
    other["paymentKey"] = json!("payment-key-2");
    let mut nameless = payment("DONE");
    nameless["orderId"] = json!(null);
    let refusal = json!({"code": "REJECT_CARD_PAYMENT", "message": "why"});
    for (say, expected) in [
        (
            replies(200, &other),
            "the answer is about another payment key than was asked",
        ),
        (
            replies(200, &nameless),
            "the answer with status 200 cannot be read",
        ),
        (
            replies(200, &refusal),
            "the answer with status 200 cannot be read",
        ),
        (
            replies(201, &payment("DONE")),
            "the answer with status 201 cannot be read",
        ),
        (
            replies(200, &payment("SOMETHING_NEW")),
            "the payment is SOMETHING_NEW",
        ),
        (
            replies(200, &payment("IN_PROGRESS")),
            "the payment is IN_PROGRESS",
        ),
    ] {
        assert_eq!(unknown_because(confirmed_by(say).await), expected);
    }
}

#[tokio::test]
async fn a_virtual_account_without_a_deposit_is_neither_approved_nor_declined() {
    let reason = unknown_because(confirmed_by(replies(200, &payment("WAITING_FOR_DEPOSIT"))).await);
    assert_eq!(
        reason,
        "the payment is WAITING_FOR_DEPOSIT: no money has come in so far, and some may later"
    );
}

#[tokio::test]
async fn a_partial_cancellation_sends_the_refund_account() {
    let mut body = payment("PARTIAL_CANCELED");
    body["balanceAmount"] = json!(600);
    body["cancels"] = json!([{"cancelAmount": 400}]);
    let peer = Peer::replying(vec![replies(200, &body)]).await;
    let mut asked = cancel(Some(400));
    asked.refund_account = Some(RefundAccount {
        bank: "88".into(),
        account_number: "110123456789".into(),
        holder_name: "김철수".into(),
    });
    let given_back = GatewayOutcome::Approved(charge(ChargeStatus::PartialCanceled, 600));
    assert_eq!(peer.client().cancel(&asked).await, given_back);

    let [request] = &peer.received()[..] else {
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
    let peer = Peer::replying(vec![replies(200, &body)]).await;
    let given_back = GatewayOutcome::Approved(charge(ChargeStatus::Canceled, 0));
    assert_eq!(peer.client().cancel(&cancel(None)).await, given_back);
    assert_eq!(
        body_of(&peer.received()[0]),
        json!({"cancelReason": "the buyer asked for it"})
    );
}
