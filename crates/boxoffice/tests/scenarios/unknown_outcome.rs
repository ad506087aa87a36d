//! A payment with an unknown outcome is looked up until the gateway answers; then the buyer has a ticket or a refund.

use serde_json::{Value, json};

use crate::{
    actions::{Purchase, entries, expiry_of, stock},
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

/// Short, so that a hanging gateway does not slow the tests.
const GATEWAY_TIMEOUT_MILLIS: u64 = 400;
const HANG_MILLIS: u64 = 800;

/// Every ambiguous answer of the gateway, and whether it has executed the request.
fn ambiguous_answers() -> Vec<(Value, bool)> {
    let refuse = |code: &str, status: u16| json!({ "refuse": { "code": code, "status": status } });
    vec![
        (json!("dropBefore"), false),
        (json!({ "hang": { "millis": HANG_MILLIS } }), false),
        (json!("doThenDrop"), true),
        (json!("doAnswerThenDrop"), true),
        (json!({ "doThenHang": { "millis": HANG_MILLIS } }), true),
        (json!({ "delay": { "millis": HANG_MILLIS } }), true),
        (json!("doThen500"), true),
        (json!("inFlight"), false),
        (json!("wrongContentType"), true),
        (json!("truncatedBody"), true),
        (json!("lieProviderError"), true),
        (refuse("PROVIDER_ERROR", 400), false),
        (refuse("FORBIDDEN_CONSECUTIVE_REQUEST", 403), false),
        (refuse("COMMON_ERROR", 500), false),
        (refuse("UNKNOWN_PAYMENT_ERROR", 500), false),
        (refuse("TOO_MANY_REQUESTS", 429), false),
    ]
}

async fn with_short_gateway_timeout(scenario: impl AsyncFn(&mut TestApp)) {
    on_every_deployment(async |app: &mut TestApp| {
        app.config.payment.gateway.request_timeout_millis = GATEWAY_TIMEOUT_MILLIS;
        app.restart().await;
        scenario(app).await;
    })
    .await;
}

#[tokio::test]
async fn after_any_ambiguous_answer_to_a_confirm_the_ticket_is_bought_for_one_charge() {
    with_short_gateway_timeout(async |app: &mut TestApp| {
        for (number, (fault, is_done)) in ambiguous_answers().into_iter().enumerate() {
            let (event, user) = (app.event(1).await, app.user(300).await);
            let purchase = app.purchase(event, user, 300).await;
            let card = format!("card-{number}");
            app.gateway
                .script(json!([{ "on": "confirm", "times": 1, "fault": fault }]));
            let answer = app.pay(&purchase, &card).await;
            assert_eq!(answer.status, 202, "{fault} {}", answer.body);
            if is_done && !fault["delay"].is_object() {
                let charge = Some(("DONE".to_owned(), 700, 700));
                assert_eq!(app.gateway.charge(&card), charge, "{fault}");
            }
            app.is_bought(&purchase, &card).await;
            app.stock_becomes(event, stock(1, 0, 1, 0)).await;
            assert_eq!(app.payment(&purchase).await["attempt"], 1, "{fault}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_attempt_with_only_unexpected_answers_is_given_up_and_another_one_buys() {
    on_every_deployment(async |app: &mut TestApp| {
        // The gateway repeats the answer for the attempt's key and shows no charge.
        for (code, status) in [("REJECT_CARD_PAYMENT", 503), ("A_CODE_OF_TOMORROW", 400)] {
            let (event, user) = (app.event(1).await, app.user(300).await);
            let purchase = app.purchase(event, user, 300).await;
            let fault = json!({ "refuse": { "code": code, "status": status } });
            app.gateway
                .script(json!([{ "on": "confirm", "times": 1, "fault": fault }]));
            app.pay(&purchase, code).await.ok(202);
            let failed = app.payment_becomes_in_time(&purchase, "FAILED").await;
            assert_eq!(failed["declineCode"], "NOT_CHARGED");
            assert_eq!(app.gateway.charge(code), None);
            app.paid(&purchase, code).await;
            app.is_bought(&purchase, code).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_ambiguously_answered_lookup_is_repeated_until_the_outcome_is_known() {
    with_short_gateway_timeout(async |app: &mut TestApp| {
        for (number, (fault, _)) in ambiguous_answers().into_iter().enumerate() {
            let (event, user) = (app.event(1).await, app.user(0).await);
            let purchase = app.purchase(event, user, 0).await;
            let card = format!("card-{number}");
            app.gateway.script(json!([
                { "on": "confirm", "times": 1, "fault": "doThenDrop" },
                { "on": "lookup", "times": 4, "fault": fault },
            ]));
            app.pay(&purchase, &card).await.ok(202);
            app.is_bought(&purchase, &card).await;
        }
    })
    .await;
}

#[tokio::test]
async fn after_any_ambiguous_answer_to_a_cancel_the_money_is_refunded_once() {
    with_short_gateway_timeout(async |app: &mut TestApp| {
        for (number, (fault, _)) in ambiguous_answers().into_iter().enumerate() {
            let (event, user) = (app.event(1).await, app.user(300).await);
            let purchase = app.purchase(event, user, 300).await;
            let card = format!("card-{number}");
            app.gateway.set_mode(GatewayMode::Normal);
            app.paid(&purchase, &card).await;
            app.gateway
                .script(json!([{ "on": "cancel", "times": 2, "fault": fault }]));
            app.cancel(&purchase).await.ok(202);
            app.cancellation_becomes(&purchase, "COMPLETED").await;
            app.is_refunded(&purchase, &card).await;
            app.points_become(user, 300).await;
            app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        }
    })
    .await;
}

/// A purchase that was charged. The gateway does not answer yet.
async fn charged(app: &TestApp, event: i64, user: i64) -> Purchase {
    let purchase = app.purchase(event, user, 300).await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay(&purchase, "card-1").await.ok(202);
    purchase
}

/// The same, and the buyer has released the reservation.
async fn charged_and_released(app: &TestApp, event: i64, user: i64) -> Purchase {
    let purchase = charged(app, event, user).await;
    app.release(&purchase.ticket).await.ok(204);
    app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    purchase
}

#[tokio::test]
async fn a_buyer_charged_in_time_keeps_the_seat_however_long_the_gateway_is_silent() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = charged(app, event, user).await;
        app.advance(HOLD_SECS + GRACE_SECS).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        app.eventually(&path, |it| it["sagaState"] == "STARTED")
            .await;
        // Also if no server ran for longer than that.
        app.stop().await;
        app.clock
            .advance_millis(2 * (HOLD_SECS + GRACE_SECS) * 1000);
        app.start().await;
        app.advance(GRACE_SECS + 61).await;
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
        let next = app.user(0).await;
        app.reserve(event, next).await.refused(409, "SOLD_OUT");
        let again = app.reserve(event, user).await;
        again.refused(409, "ALREADY_RESERVED");

        app.gateway.set_mode(GatewayMode::Normal);
        app.is_bought(&purchase, "card-1").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
        let path = format!("/ticketing/process/{}", purchase.ticket);
        let answer = app
            .eventually(&path, |it| it["ticketStatus"] == "RESERVED")
            .await;
        assert_eq!(answer.get("failure"), None, "{answer}");
        app.points_become(user, 0).await;
        let again = app.reserve(event, user).await;
        again.refused(409, "ALREADY_PURCHASED");
    })
    .await;
}

#[tokio::test]
async fn a_payment_after_the_event_is_sold_out_is_refunded_and_the_buyer_can_read_it() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = charged_and_released(app, event, user).await;
        let next = app.purchase(event, app.user(0).await, 0).await;
        app.gateway.set_mode(GatewayMode::Normal);
        app.is_refunded(&purchase, "card-1").await;
        let path = format!("/ticketing/process/{}", purchase.ticket);
        let answer = app
            .eventually(&path, |it| it["failure"] == "PAYMENT_REFUNDED")
            .await;
        assert_eq!(
            (&answer["paymentStatus"], &answer["refund"]),
            (&json!("CANCELLED"), &json!("DONE"))
        );
        assert_eq!(
            app.payment_history(&purchase).await,
            [
                "CREATED",
                "CONFIRMING",
                // The release requests its deletion; that is stored and answered with the outcome.
                "CONFIRMING",
                "SUCCEEDED",
                "SUCCEEDED",
                "CANCELLED"
            ]
        );
        app.points_become(user, 300).await;
        app.paid(&next, "card-of-the-next").await;
    })
    .await;
}

#[tokio::test]
async fn a_payment_for_a_released_reservation_is_refunded_though_the_buyer_has_reserved_again() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = charged_and_released(app, event, user).await;
        let again = app.reserved(event, user).await;
        app.gateway.set_mode(GatewayMode::Normal);
        app.is_refunded(&purchase, "card-1").await;
        app.points_become(user, 300).await;
        let again = app.processed(&again, event, user, 300).await;
        app.paid(&again, "card-2").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
        app.wait_until_idle().await;
        let ledger = app.ledger(user).await;
        assert_eq!(ledger.last(), entries(&[("USED", 0, 0)]).last());
    })
    .await;
}

#[tokio::test]
async fn after_the_deadline_the_gateway_is_not_called_even_after_an_earlier_attempt() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let purchase = app.purchase(event, user, 0).await;
        app.pay_with_refused_card(&purchase, "card-1").await.ok(200);
        app.payment_becomes(&purchase, "FAILED").await;
        app.advance(HOLD_SECS).await;
        app.clock.advance_millis(1);
        let late = app.pay(&purchase, "card-2").await;
        late.refused(409, "DEADLINE_PASSED");
        assert_eq!(app.gateway.books().payments, 0, "it was asked");
        assert_eq!(app.payment(&purchase).await["attempt"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_reservation_does_not_expire_during_an_attempt_that_began_in_time() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let purchase = app.purchase(event, user, 0).await;
        app.advance(HOLD_SECS).await;
        app.gateway.script(json!([
            { "on": "confirm", "times": 1, "fault": { "delay": { "millis": HANG_MILLIS } } },
        ]));
        let meanwhile = async {
            app.payment_becomes(&purchase, "CONFIRMING").await;
            app.advance(GRACE_SECS - 1).await;
            assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
        };
        let (paid, ()) = tokio::join!(app.pay(&purchase, "card-1"), meanwhile);
        assert_eq!(paid.ok(200)["succeeded"], true);
        // The clock does not advance before the ticket is issued, so nothing has expired on any deployment.
        app.wait_until_idle().await;
        app.is_bought(&purchase, "card-1").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}
