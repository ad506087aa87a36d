//! The table of what every answer means.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn confirm() -> Confirm {
    Confirm {
        payment_key: "key-1".into(),
        order_id: "order-1".into(),
        amount: 1000,
        idempotency_key: "once".into(),
        test_code: None,
    }
}

fn cancel(amount: Option<i64>) -> Cancel {
    Cancel {
        payment_key: "key-1".into(),
        reason: "test".into(),
        amount,
        refund_account: None,
        idempotency_key: "once".into(),
        test_code: None,
    }
}

fn payment(status: &str) -> Value {
    json!({"paymentKey": "key-1", "orderId": "order-1", "status": status, "totalAmount": 1000, "balanceAmount": 1000})
}

fn answer(status: u16, body: &Value) -> RawAnswer {
    RawAnswer {
        status,
        is_json: true,
        body: body.to_string().into_bytes(),
    }
}

fn error(status: u16, code: &str) -> RawAnswer {
    answer(status, &json!({"code": code, "message": "why"}))
}

fn name(outcome: &GatewayOutcome) -> &'static str {
    match outcome {
        GatewayOutcome::Approved(_) => "approved",
        GatewayOutcome::Declined { .. } => "declined",
        GatewayOutcome::Unknown { .. } => "unknown",
    }
}

#[test]
fn an_error_declines_only_if_it_proves_that_nothing_was_charged() {
    for (status, code, expected) in [
        (403, "REJECT_CARD_PAYMENT", "declined"),
        (403, "REJECT_CARD_COMPANY", "declined"),
        (400, "INVALID_REJECT_CARD", "declined"),
        (400, "INVALID_STOPPED_CARD", "declined"),
        (400, "INVALID_CARD_EXPIRATION", "declined"),
        (400, "EXCEED_MAX_AMOUNT", "declined"),
        (404, "NOT_FOUND_PAYMENT_SESSION", "declined"),
        (404, "NOT_FOUND_PAYMENT", "declined"),
        (400, "A_CODE_OF_TOMORROW", "unknown"),
        (404, "A_CODE_OF_TOMORROW", "unknown"),
        (422, "A_CODE_OF_TOMORROW", "unknown"),
        (400, "ALREADY_PROCESSED_PAYMENT", "unknown"),
        (400, "ALREADY_CANCELED_PAYMENT", "unknown"),
        (400, "DUPLICATED_ORDER_ID", "unknown"),
        (409, "IDEMPOTENT_REQUEST_PROCESSING", "unknown"),
        (422, "IDEMPOTENCY_KEY_REUSED", "unknown"),
        (400, "PROVIDER_ERROR", "unknown"),
        (403, "FORBIDDEN_CONSECUTIVE_REQUEST", "unknown"),
        (400, "COMMON_ERROR", "unknown"),
        (500, "COMMON_ERROR", "unknown"),
        (500, "FAILED_INTERNAL_SYSTEM_PROCESSING", "unknown"),
        (500, "FAILED_PAYMENT_INTERNAL_SYSTEM_PROCESSING", "unknown"),
        (500, "UNKNOWN_PAYMENT_ERROR", "unknown"),
        (500, "A_CODE_OF_TOMORROW", "unknown"),
        (503, "A_CODE_OF_TOMORROW", "unknown"),
        (401, "A_CODE_OF_TOMORROW", "unknown"),
        (403, "A_CODE_OF_TOMORROW", "unknown"),
        (409, "A_CODE_OF_TOMORROW", "unknown"),
        (429, "A_CODE_OF_TOMORROW", "unknown"),
        // The code and the status contradict each other.
        (500, "REJECT_CARD_PAYMENT", "unknown"),
        (200, "REJECT_CARD_PAYMENT", "unknown"),
        (302, "REJECT_CARD_PAYMENT", "unknown"),
        // Not a code.
        (400, "", "unknown"),
        (400, "<script>", "unknown"),
    ] {
        let outcome = of_confirm(&confirm(), &error(status, code));
        assert_eq!(name(&outcome), expected, "{status} {code}: {outcome:?}");
    }
}

#[test]
fn every_known_code_with_its_own_status_means_what_the_table_says() {
    for code in ErrorCode::ALL {
        let expected = match code.meaning() {
            Meaning::Refused => "declined",
            Meaning::Unsettled => "unknown",
        };
        let answer = error(code.http_status(), code.name());
        assert_eq!(name(&of_confirm(&confirm(), &answer)), expected, "{code:?}");
        assert_eq!(
            name(&of_cancel(&cancel(None), &answer)),
            expected,
            "{code:?}"
        );
    }
}

#[test]
fn a_confirmed_payment_is_judged_by_its_status() {
    for (status, expected) in [
        ("DONE", "approved"),
        ("ABORTED", "declined"),
        ("EXPIRED", "declined"),
        ("CANCELED", "declined"),
        ("READY", "unknown"),
        ("IN_PROGRESS", "unknown"),
        ("WAITING_FOR_DEPOSIT", "unknown"),
        ("PARTIAL_CANCELED", "unknown"),
        ("A_STATUS_OF_TOMORROW", "unknown"),
    ] {
        let outcome = of_confirm(&confirm(), &answer(200, &payment(status)));
        assert_eq!(name(&outcome), expected, "{status}: {outcome:?}");
    }
}

#[test]
fn an_approval_of_anything_else_than_the_request_is_unknown() {
    for (field, value) in [
        ("paymentKey", json!("key-2")),
        ("orderId", json!("order-2")),
        ("totalAmount", json!(999)),
        ("totalAmount", json!(1001)),
        ("totalAmount", json!("1000")),
        ("totalAmount", json!(null)),
        ("status", json!(null)),
    ] {
        let mut lie = payment("DONE");
        lie[field] = value;
        assert_eq!(
            name(&of_confirm(&confirm(), &answer(200, &lie))),
            "unknown",
            "{lie}"
        );
    }
}

#[test]
fn an_amount_of_another_currency_proves_nothing() {
    let mut dollars = payment("DONE");
    dollars["currency"] = json!("USD");
    let answered = answer(200, &dollars);
    for outcome in [
        of_confirm(&confirm(), &answered),
        of_cancel(&cancel(None), &answered),
    ] {
        assert_eq!(name(&outcome), "unknown", "{outcome:?}");
    }
    let looked_up = of_lookup(&answered, |_| true);
    assert!(
        matches!(&looked_up, Lookup::Unknown { reason } if reason.contains("currency")),
        "{looked_up:?}"
    );

    let mut won = payment("DONE");
    won["currency"] = json!("KRW");
    assert_eq!(
        name(&of_confirm(&confirm(), &answer(200, &won))),
        "approved"
    );
}

#[test]
fn nulls_and_new_fields_are_tolerated() {
    let mut body = payment("DONE");
    body["method"] = json!(null);
    body["cancels"] = json!(null);
    body["card"] = json!({"number": "4330****"});
    assert_eq!(
        name(&of_confirm(&confirm(), &answer(200, &body))),
        "approved"
    );
}

#[test]
fn a_missing_balance_follows_from_the_status() {
    for (status, balance) in [("DONE", 1000), ("CANCELED", 0), ("PARTIAL_CANCELED", 1000)] {
        let mut null = payment(status);
        null["balanceAmount"] = json!(null);
        let mut missing = payment(status);
        missing.as_object_mut().unwrap().remove("balanceAmount");
        for body in [null, missing] {
            let found = of_lookup(&answer(200, &body), |_| true);
            assert!(
                matches!(&found, Lookup::Found(charge) if charge.balance_amount == balance),
                "{body}: {found:?}"
            );
        }
    }
}

#[test]
fn a_failure_without_a_message_is_a_failure() {
    for failure in [
        json!({"code": null, "message": null}),
        json!({"code": "PAY_PROCESS_ABORTED"}),
        json!({}),
    ] {
        let mut body = payment("ABORTED");
        body["failure"] = failure;
        let outcome = of_confirm(&confirm(), &answer(200, &body));
        assert_eq!(
            outcome,
            GatewayOutcome::Declined {
                code: "ABORTED".to_owned(),
                message: "the payment has ended".to_owned()
            }
        );
    }
    let nameless = json!({"code": null, "message": "why"});
    let outcome = of_confirm(&confirm(), &answer(400, &nameless));
    assert_eq!(name(&outcome), "unknown", "{outcome:?}");
}

#[test]
fn an_amount_is_any_json_number_that_is_whole() {
    let confirmed = |total: &str| {
        let text = payment("DONE").to_string();
        let text = text.replace("\"totalAmount\":1000", &format!("\"totalAmount\":{total}"));
        let told = RawAnswer {
            body: text.into_bytes(),
            ..answer(200, &json!(null))
        };
        name(&of_confirm(&confirm(), &told))
    };
    for total in ["1000", "1000.0", "1e3", "1000.00"] {
        assert_eq!(confirmed(total), "approved", "{total}");
    }
    for total in [
        "1000.5",
        "999.9999999",
        "-1000.0",
        "1e300",
        "1e400",
        "true",
        "\"1000\"",
    ] {
        assert_eq!(confirmed(total), "unknown", "{total}");
    }
}

#[test]
fn a_cancellation_in_progress_is_unknown() {
    let told = |status: Value, amount: Value| {
        let mut body = payment("CANCELED");
        body["balanceAmount"] = json!(0);
        body["cancels"] = json!([{"cancelAmount": amount, "cancelStatus": status}]);
        answer(200, &body)
    };
    for (status, expected) in [
        (json!("DONE"), "approved"),
        (json!(null), "approved"),
        (json!("IN_PROGRESS"), "unknown"),
        (json!("ABORTED"), "unknown"),
    ] {
        let answer = told(status.clone(), json!(1000));
        for amount in [None, Some(1000)] {
            let outcome = of_cancel(&cancel(amount), &answer);
            assert_eq!(name(&outcome), expected, "{status}: {outcome:?}");
        }
        let is_found = matches!(of_lookup(&answer, |_| true), Lookup::Found(_));
        assert_eq!(is_found, expected == "approved", "{status}");
    }
    let unnamed = told(json!("DONE"), json!(null));
    assert_eq!(name(&of_cancel(&cancel(None), &unnamed)), "approved");
    assert_eq!(name(&of_cancel(&cancel(Some(1000)), &unnamed)), "unknown");
}

#[test]
fn a_body_that_is_not_the_gateways_proves_nothing() {
    let html = RawAnswer {
        is_json: false,
        ..answer(200, &payment("DONE"))
    };
    let refusal = RawAnswer {
        is_json: false,
        ..error(400, "REJECT_CARD_PAYMENT")
    };
    let mut cut = answer(200, &payment("DONE"));
    cut.body.truncate(40);
    let no_content = answer(204, &payment("DONE"));
    for answer in [html, refusal, cut, no_content] {
        assert_eq!(
            name(&of_confirm(&confirm(), &answer)),
            "unknown",
            "{answer:?}"
        );
    }
}

#[test]
fn a_cancellation_is_approved_only_for_the_requested_amount() {
    let given_back = |status: &str, balance: i64, last: i64| {
        let mut body = payment(status);
        body["balanceAmount"] = json!(balance);
        body["cancels"] = json!([{"cancelAmount": 1}, {"cancelAmount": last}]);
        answer(200, &body)
    };
    for (amount, answer, expected) in [
        (None, given_back("CANCELED", 0, 999), "approved"),
        (None, given_back("CANCELED", 1, 999), "unknown"),
        (None, given_back("PARTIAL_CANCELED", 500, 499), "unknown"),
        (
            Some(499),
            given_back("PARTIAL_CANCELED", 500, 499),
            "approved",
        ),
        (
            Some(500),
            given_back("PARTIAL_CANCELED", 500, 499),
            "unknown",
        ),
        (Some(1), given_back("DONE", 1000, 1), "unknown"),
        (
            Some(1),
            answer(200, &payment("PARTIAL_CANCELED")),
            "unknown",
        ),
    ] {
        let outcome = of_cancel(&cancel(amount), &answer);
        assert_eq!(name(&outcome), expected, "{amount:?}: {outcome:?}");
    }
}

#[test]
fn only_the_gateways_documented_codes_prove_that_a_payment_does_not_exist() {
    let is_asked = |charge: &Charge| charge.payment_key == "key-1";
    let found = of_lookup(&answer(200, &payment("DONE")), is_asked);
    assert!(matches!(found, Lookup::Found(charge) if charge.status == ChargeStatus::Done));
    for code in ["NOT_FOUND_PAYMENT", "NOT_FOUND"] {
        let looked_up = of_lookup(&error(404, code), is_asked);
        assert_eq!(looked_up, Lookup::NotFound, "{code}");
    }
    let mut other = payment("DONE");
    other["paymentKey"] = json!("key-2");
    let no_page = RawAnswer {
        is_json: false,
        ..error(404, "NOT_FOUND_PAYMENT")
    };
    for answer in [
        error(404, "NOT_FOUND_MERCHANT"),
        error(500, "NOT_FOUND"),
        error(500, "NOT_FOUND_PAYMENT"),
        no_page,
        answer(200, &other),
    ] {
        let looked_up = of_lookup(&answer, is_asked);
        assert!(
            matches!(looked_up, Lookup::Unknown { .. }),
            "{answer:?}: {looked_up:?}"
        );
    }
}

proptest! {
    #[test]
    fn no_noise_is_ever_taken_for_a_decision(status in 100_u16..1000, is_json: bool, body: Vec<u8>) {
        let outcome = of_confirm(&confirm(), &RawAnswer { status, is_json, body });
        prop_assert_eq!(name(&outcome), "unknown");
    }
}
