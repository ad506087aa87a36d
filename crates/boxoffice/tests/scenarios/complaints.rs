//! Complaints of buyers about other systems, each with all its known causes, and how each case ends here.

use contract::domain::Refund;
use serde_json::{Value, json};

use crate::{
    actions::{confirmation, expiry_of, stock},
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

#[tokio::test]
async fn charged_without_a_ticket() {
    on_every_deployment(async |app: &mut TestApp| {
        the_answer_was_lost(app).await;
        the_gateway_lied(app).await;
        the_service_went_away_while_money_was_taken(app).await;
        the_gateway_said_nothing_until_the_reservation_was_overdue(app).await;
        the_reservation_was_given_back_and_the_last_ticket_is_gone(app).await;
    })
    .await;
}

async fn the_answer_was_lost(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(300).await);
    let purchase = app.purchase(event, user, 300).await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay(&purchase, "lost").await.ok(202);
    app.gateway.set_mode(GatewayMode::Normal);
    app.is_bought(&purchase, "lost").await;
    app.stock_becomes(event, stock(1, 0, 1, 0)).await;
}

async fn the_gateway_lied(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.gateway
        .script(json!([{ "on": "confirm", "times": 1, "fault": "lieProviderError" }]));
    let answer = app.pay(&purchase, "lied").await.ok(202);
    assert_eq!(answer["status"], "CONFIRMING", "a 400 is not a refusal");
    app.is_bought(&purchase, "lied").await;
}

async fn the_service_went_away_while_money_was_taken(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay(&purchase, "gone").await.ok(202);
    app.stop().await;
    app.gateway.set_mode(GatewayMode::Normal);
    app.start().await;
    app.is_bought(&purchase, "gone").await;
}

async fn the_gateway_said_nothing_until_the_reservation_was_overdue(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(300).await);
    let purchase = app.purchase(event, user, 300).await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay(&purchase, "late").await.ok(202);
    app.advance(HOLD_SECS + GRACE_SECS).await;
    let path = format!("/saga/{}", expiry_of(&purchase.ticket));
    app.eventually(&path, |it| it["sagaState"] == "STARTED")
        .await;
    assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
    app.gateway.set_mode(GatewayMode::Normal);
    app.is_bought(&purchase, "late").await;
    app.stock_becomes(event, stock(1, 0, 1, 0)).await;
    app.points_become(user, 0).await;
}

async fn the_reservation_was_given_back_and_the_last_ticket_is_gone(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(300).await);
    let purchase = app.purchase(event, user, 300).await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay(&purchase, "too-late").await.ok(202);
    app.release(&purchase.ticket).await.ok(204);
    app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    let next = app.purchase(event, app.user(0).await, 0).await;
    app.gateway.set_mode(GatewayMode::Normal);
    app.paid(&next, "card-of-the-next").await;
    app.is_refunded(&purchase, "too-late").await;
    app.points_become(user, 300).await;
}

#[tokio::test]
async fn charged_twice() {
    on_every_deployment(async |app: &mut TestApp| {
        a_double_click(app).await;
        two_tabs_with_two_cards(app).await;
        an_answer_that_was_lost_and_asked_for_again(app).await;
        a_gateway_that_is_still_at_it(app).await;
        a_gateway_that_charges_the_order_a_second_time(app).await;
    })
    .await;
}

async fn a_double_click(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    let click = || app.pay_by_key(&purchase, "clicked", "click");
    let (one, other) = tokio::join!(click(), click());
    let paid = |it: &Value| it["succeeded"] == true;
    let times = usize::from(paid(&one.body)) + usize::from(paid(&other.body));
    assert!(times > 0, "{one:?} {other:?}");
    let again = click().await;
    assert!(again.is_replayed() && paid(&again.body), "{again:?}");
    app.is_bought(&purchase, "clicked").await;
    let history = app.payment_history(&purchase).await;
    assert_eq!(history, ["CREATED", "CONFIRMING", "SUCCEEDED"]);
}

async fn two_tabs_with_two_cards(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    let (one, other) = tokio::join!(
        app.pay_by_key(&purchase, "tab-1", "tab-1"),
        app.pay_by_key(&purchase, "tab-2", "tab-2")
    );
    let (card, late) = match one.status {
        200 => ("tab-1", other),
        _ => ("tab-2", one),
    };
    let code = late.body["code"].as_str().unwrap().to_owned();
    assert!(
        ["CONFIRMATION_IN_PROGRESS", "ALREADY_CONFIRMED"].contains(&code.as_str()),
        "{late:?}"
    );
    app.is_bought(&purchase, card).await;
    let unused = if card == "tab-1" { "tab-2" } else { "tab-1" };
    assert_eq!(app.gateway.charge(unused), None);
}

async fn an_answer_that_was_lost_and_asked_for_again(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay_by_key(&purchase, "first", "first").await.ok(202);
    for (card, key) in [("first", "second"), ("second", "third")] {
        let again = app.pay_by_key(&purchase, card, key).await;
        again.refused(409, "CONFIRMATION_IN_PROGRESS");
    }
    app.gateway.set_mode(GatewayMode::Normal);
    app.is_bought(&purchase, "first").await;
    let again = app.pay_by_key(&purchase, "second", "fourth").await;
    again.refused(409, "ALREADY_CONFIRMED");
    assert_eq!(app.gateway.charge("second"), None);
}

async fn a_gateway_that_is_still_at_it(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.gateway.script(json!([
        { "on": "confirm", "times": 1, "fault": "doThenDrop" },
        { "on": "lookup", "times": 2, "fault": { "refuse": { "code": "NOT_FOUND_PAYMENT" } } },
        { "on": "confirm", "times": 2, "fault": "inFlight" },
    ]));
    app.pay(&purchase, "slow").await.ok(202);
    app.is_bought(&purchase, "slow").await;
    let payment = app.payment(&purchase).await;
    assert_eq!(
        payment["attempt"], 1,
        "repeated with the key of the first attempt"
    );
    app.gateway.set_mode(GatewayMode::Normal);
}

async fn a_gateway_that_charges_the_order_a_second_time(app: &mut TestApp) {
    app.receive_webhooks();
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.paid(&purchase, "once").await;
    app.gateway.wait_for_all_webhooks().await;
    let gateway = &app.gateway;
    gateway.charge_again("twice", &purchase.payment, 1000).await;
    app.orders_charged_twice = 1;

    let data = json!({ "paymentKey": "twice", "orderId": purchase.payment, "status": "DONE" });
    app.deliver_webhook("second-charge", &data).await.ok(200);
    let is_back = |it: &Value| it["items"][0]["refund"] == json!(Refund::Done);
    app.advance_until("/payment/stray", is_back).await;
    let back = Some(("CANCELED".to_owned(), 1000, 0));
    assert_eq!(app.gateway.charge("twice"), back);
    app.is_bought(&purchase, "once").await;
}

#[tokio::test]
async fn a_webhook_retry_that_does_nothing() {
    on_every_deployment(async |app: &mut TestApp| {
        app.receive_webhooks();
        the_first_delivery_found_nobody(app).await;
        the_gateway_could_not_be_asked_at_the_first_delivery(app).await;
        the_service_went_away_between_its_answer_and_its_work(app).await;
        it_came_again_before_it_had_served(app).await;
    })
    .await;
}

async fn the_first_delivery_found_nobody(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(300).await);
    let purchase = app.purchase(event, user, 300).await;
    app.paid(&purchase, "w-1").await;
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;
    app.stop().await;
    app.gateway.perform("w-1", "cancel-by-merchant").await;
    app.gateway.wait_for_failed_webhook().await;
    app.start().await;
    assert_eq!(app.payment(&purchase).await["status"], "SUCCEEDED");

    app.clock.advance_millis(60_000);
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;
    app.is_refunded(&purchase, "w-1").await;
    app.points_become(user, 300).await;
    app.stock_becomes(event, stock(1, 0, 0, 1)).await;
}

async fn the_gateway_could_not_be_asked_at_the_first_delivery(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.paid(&purchase, "w-2").await;
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;
    app.gateway.set_mode(GatewayMode::Unreachable);
    app.gateway.perform("w-2", "cancel-by-merchant").await;
    app.gateway.wait_for_all_webhooks().await;
    assert_eq!(app.payment(&purchase).await["status"], "SUCCEEDED");
    app.gateway.set_mode(GatewayMode::Normal);
    app.webhooks_are_applied().await;
    app.is_refunded(&purchase, "w-2").await;
}

async fn the_service_went_away_between_its_answer_and_its_work(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.paid(&purchase, "w-3").await;
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;
    app.gateway.set_mode(GatewayMode::Unreachable);
    app.gateway.perform("w-3", "cancel-by-merchant").await;
    app.gateway.wait_for_all_webhooks().await;
    app.stop().await;
    app.gateway.set_mode(GatewayMode::Normal);
    app.start().await;
    app.webhooks_are_applied().await;
    app.is_refunded(&purchase, "w-3").await;
}

async fn it_came_again_before_it_had_served(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    app.paid(&purchase, "w-4").await;
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;
    app.gateway.send_webhooks_to(None);
    app.gateway.set_mode(GatewayMode::Unreachable);
    app.gateway.perform("w-4", "cancel-by-merchant").await;
    let data = json!({ "paymentKey": "w-4", "orderId": purchase.payment, "status": "CANCELED" });
    for _ in 0..3 {
        app.deliver_webhook("the-same", &data).await.ok(200);
    }
    app.gateway.set_mode(GatewayMode::Normal);
    app.webhooks_are_applied().await;
    app.is_refunded(&purchase, "w-4").await;
    let before = app.payment_history(&purchase).await;
    app.deliver_webhook("the-same", &data).await.ok(200);
    app.webhooks_are_applied().await;
    assert_eq!(app.payment_history(&purchase).await, before);
}

#[tokio::test]
async fn a_decline_that_can_never_be_tried_again() {
    on_every_deployment(async |app: &mut TestApp| {
        the_same_card_is_tried_again(app).await;
        an_unclear_outcome_that_was_a_decline(app).await;
        the_key_of_a_decline_is_used_again(app).await;
    })
    .await;
}

/// Other systems use the order's idempotency key, which repeats the decline for ever.
async fn the_same_card_is_tried_again(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    let refusal = json!({ "refuse": { "code": "EXCEED_MAX_ONE_DAY_AMOUNT" } });
    app.gateway
        .script(json!([{ "on": "confirm", "times": 2, "fault": refusal }]));
    for _ in 0..2 {
        let declined = app.pay(&purchase, "d-1").await.ok(200);
        assert_eq!(declined["declineCode"], "EXCEED_MAX_ONE_DAY_AMOUNT");
        app.payment_becomes(&purchase, "FAILED").await;
    }
    app.paid(&purchase, "d-1").await;
    app.is_bought(&purchase, "d-1").await;
    assert_eq!(app.payment(&purchase).await["attempt"], 3);
}

async fn an_unclear_outcome_that_was_a_decline(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    let refusal = json!({ "refuse": { "code": "REJECT_CARD_COMPANY" } });
    app.gateway.script(json!([
        { "on": "confirm", "times": 1, "fault": "dropBefore" },
        { "on": "confirm", "times": 1, "fault": refusal },
    ]));
    app.pay(&purchase, "d-2").await.ok(202);
    let failed = app.payment_becomes_in_time(&purchase, "FAILED").await;
    assert_eq!(failed["declineCode"], "REJECT_CARD_COMPANY");
    app.paid(&purchase, "d-3").await;
    app.is_bought(&purchase, "d-3").await;
    assert_eq!(app.gateway.charge("d-2"), None);
}

async fn the_key_of_a_decline_is_used_again(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(0).await);
    let purchase = app.purchase(event, user, 0).await;
    let refusal = json!({ "refuse": { "code": "REJECT_CARD_PAYMENT" } });
    app.gateway
        .script(json!([{ "on": "confirm", "times": 1, "fault": refusal }]));
    let declined = app.pay_by_key(&purchase, "d-4", "mine").await;
    assert_eq!(declined.body["succeeded"], false);
    app.payment_becomes(&purchase, "FAILED").await;

    // The same request gets the same answer, another one with its key is refused, and a new attempt is still possible.
    let again = app.pay_by_key(&purchase, "d-4", "mine").await;
    assert!(again.is_replayed());
    assert_eq!(again.body, declined.body);
    let other = confirmation(&purchase, "d-5");
    let reused = app.call(other.with_key("mine")).await;
    reused.refused(422, "IDEMPOTENCY_KEY_REUSED");
    app.pay_by_key(&purchase, "d-4", "next").await.ok(200);
    app.is_bought(&purchase, "d-4").await;
}
