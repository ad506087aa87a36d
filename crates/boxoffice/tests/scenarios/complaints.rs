//! What buyers complain of elsewhere, each told in every way in which it comes about there, and how it ends here.

use contract::domain::Refund;
use serde_json::{Value, json};

use crate::{
    desk::{confirmation, expiry_of, stock},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

#[tokio::test]
async fn charged_without_a_ticket() {
    play(async |house: &mut House| {
        the_answer_was_lost(house).await;
        the_gateway_lied(house).await;
        the_service_went_away_while_money_was_taken(house).await;
        the_gateway_said_nothing_until_the_reservation_was_overdue(house).await;
        the_reservation_was_given_back_and_the_last_ticket_is_gone(house).await;
    })
    .await;
}

async fn the_answer_was_lost(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(300).await);
    let purchase = house.purchase(event, user, 300).await;
    house.gateway.turn(Mood::Dumb);
    house.pay(&purchase, "lost").await.ok(202);
    house.gateway.turn(Mood::Well);
    house.is_bought(&purchase, "lost").await;
    house.stock_becomes(event, stock(1, 0, 1, 0)).await;
}

async fn the_gateway_lied(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house
        .gateway
        .script(json!([{ "on": "confirm", "times": 1, "fault": "lieProviderError" }]));
    let told = house.pay(&purchase, "lied").await.ok(202);
    assert_eq!(told["status"], "CONFIRMING", "a 400 is not a refusal");
    house.is_bought(&purchase, "lied").await;
}

async fn the_service_went_away_while_money_was_taken(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house.gateway.turn(Mood::Dumb);
    house.pay(&purchase, "gone").await.ok(202);
    house.stop().await;
    house.gateway.turn(Mood::Well);
    house.start().await;
    house.is_bought(&purchase, "gone").await;
}

async fn the_gateway_said_nothing_until_the_reservation_was_overdue(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(300).await);
    let purchase = house.purchase(event, user, 300).await;
    house.gateway.turn(Mood::Dumb);
    house.pay(&purchase, "late").await.ok(202);
    house.pass(HOLD_SECS + GRACE_SECS).await;
    let path = format!("/saga/{}", expiry_of(&purchase.ticket));
    house
        .eventually(&path, |it| it["sagaState"] == "STARTED")
        .await;
    assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
    house.gateway.turn(Mood::Well);
    house.is_bought(&purchase, "late").await;
    house.stock_becomes(event, stock(1, 0, 1, 0)).await;
    house.points_become(user, 0).await;
}

async fn the_reservation_was_given_back_and_the_last_ticket_is_gone(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(300).await);
    let purchase = house.purchase(event, user, 300).await;
    house.gateway.turn(Mood::Dumb);
    house.pay(&purchase, "too-late").await.ok(202);
    house.release(&purchase.ticket).await.ok(204);
    house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    let next = house.purchase(event, house.user(0).await, 0).await;
    house.gateway.turn(Mood::Well);
    house.paid(&next, "card-of-the-next").await;
    house.is_refunded(&purchase, "too-late").await;
    house.points_become(user, 300).await;
}

#[tokio::test]
async fn charged_twice() {
    play(async |house: &mut House| {
        a_double_click(house).await;
        two_tabs_with_two_cards(house).await;
        an_answer_that_was_lost_and_asked_for_again(house).await;
        a_gateway_that_is_still_at_it(house).await;
        a_gateway_that_charges_the_order_a_second_time(house).await;
    })
    .await;
}

async fn a_double_click(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    let click = || house.pay_by_key(&purchase, "clicked", "click");
    let (one, other) = tokio::join!(click(), click());
    let paid = |it: &Value| it["succeeded"] == true;
    let times = usize::from(paid(&one.body)) + usize::from(paid(&other.body));
    assert!(times > 0, "{one:?} {other:?}");
    let again = click().await;
    assert!(again.is_replayed() && paid(&again.body), "{again:?}");
    house.is_bought(&purchase, "clicked").await;
    let history = house.payment_history(&purchase).await;
    assert_eq!(history, ["CREATED", "CONFIRMING", "SUCCEEDED"]);
}

async fn two_tabs_with_two_cards(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    let (one, other) = tokio::join!(
        house.pay_by_key(&purchase, "tab-1", "tab-1"),
        house.pay_by_key(&purchase, "tab-2", "tab-2")
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
    house.is_bought(&purchase, card).await;
    let unused = if card == "tab-1" { "tab-2" } else { "tab-1" };
    assert_eq!(house.gateway.charge(unused), None);
}

async fn an_answer_that_was_lost_and_asked_for_again(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house.gateway.turn(Mood::Dumb);
    house.pay_by_key(&purchase, "first", "first").await.ok(202);
    for (card, key) in [("first", "second"), ("second", "third")] {
        let again = house.pay_by_key(&purchase, card, key).await;
        again.refused(409, "CONFIRMATION_IN_PROGRESS");
    }
    house.gateway.turn(Mood::Well);
    house.is_bought(&purchase, "first").await;
    let again = house.pay_by_key(&purchase, "second", "fourth").await;
    again.refused(409, "ALREADY_CONFIRMED");
    assert_eq!(house.gateway.charge("second"), None);
}

async fn a_gateway_that_is_still_at_it(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house.gateway.script(json!([
        { "on": "confirm", "times": 1, "fault": "doThenDrop" },
        { "on": "lookup", "times": 2, "fault": { "refuse": { "code": "NOT_FOUND_PAYMENT" } } },
        { "on": "confirm", "times": 2, "fault": "inFlight" },
    ]));
    house.pay(&purchase, "slow").await.ok(202);
    house.is_bought(&purchase, "slow").await;
    let payment = house.payment(&purchase).await;
    assert_eq!(payment["attempt"], 1, "asked again with the key it had");
    house.gateway.turn(Mood::Well);
}

async fn a_gateway_that_charges_the_order_a_second_time(house: &mut House) {
    house.hear_webhooks();
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house.paid(&purchase, "once").await;
    house.gateway.told_all().await;
    let gateway = &house.gateway;
    gateway.take_again("twice", &purchase.payment, 1000).await;
    house.orders_charged_twice = 1;

    let data = json!({ "paymentKey": "twice", "orderId": purchase.payment, "status": "DONE" });
    house.tell("second-charge", &data).await.ok(200);
    let is_back = |it: &Value| it["items"][0]["refund"] == json!(Refund::Done);
    house.pass_until("/payment/stray", is_back).await;
    let back = Some(("CANCELED".to_owned(), 1000, 0));
    assert_eq!(house.gateway.charge("twice"), back);
    house.is_bought(&purchase, "once").await;
}

#[tokio::test]
async fn a_webhook_retry_that_does_nothing() {
    play(async |house: &mut House| {
        house.hear_webhooks();
        the_first_delivery_found_nobody(house).await;
        the_gateway_could_not_be_asked_at_the_first_delivery(house).await;
        the_service_went_away_between_its_answer_and_its_work(house).await;
        it_came_again_before_it_had_served(house).await;
    })
    .await;
}

async fn the_first_delivery_found_nobody(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(300).await);
    let purchase = house.purchase(event, user, 300).await;
    house.paid(&purchase, "w-1").await;
    house.gateway.told_all().await;
    house.stop().await;
    house.gateway.act("w-1", "cancel-by-merchant").await;
    house.gateway.told_in_vain().await;
    house.start().await;
    assert_eq!(house.payment(&purchase).await["status"], "SUCCEEDED");

    house.clock.advance_millis(60_000);
    house.gateway.told_all().await;
    house.webhooks_are_heeded().await;
    house.is_refunded(&purchase, "w-1").await;
    house.points_become(user, 300).await;
    house.stock_becomes(event, stock(1, 0, 0, 1)).await;
}

async fn the_gateway_could_not_be_asked_at_the_first_delivery(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house.paid(&purchase, "w-2").await;
    house.gateway.told_all().await;
    house.webhooks_are_heeded().await;
    house.gateway.turn(Mood::Away);
    house.gateway.act("w-2", "cancel-by-merchant").await;
    house.gateway.told_all().await;
    assert_eq!(house.payment(&purchase).await["status"], "SUCCEEDED");
    house.gateway.turn(Mood::Well);
    house.webhooks_are_heeded().await;
    house.is_refunded(&purchase, "w-2").await;
}

async fn the_service_went_away_between_its_answer_and_its_work(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house.paid(&purchase, "w-3").await;
    house.gateway.told_all().await;
    house.webhooks_are_heeded().await;
    house.gateway.turn(Mood::Away);
    house.gateway.act("w-3", "cancel-by-merchant").await;
    house.gateway.told_all().await;
    house.stop().await;
    house.gateway.turn(Mood::Well);
    house.start().await;
    house.webhooks_are_heeded().await;
    house.is_refunded(&purchase, "w-3").await;
}

async fn it_came_again_before_it_had_served(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    house.paid(&purchase, "w-4").await;
    house.gateway.told_all().await;
    house.webhooks_are_heeded().await;
    house.gateway.tell(None);
    house.gateway.turn(Mood::Away);
    house.gateway.act("w-4", "cancel-by-merchant").await;
    let data = json!({ "paymentKey": "w-4", "orderId": purchase.payment, "status": "CANCELED" });
    for _ in 0..3 {
        house.tell("the-same", &data).await.ok(200);
    }
    house.gateway.turn(Mood::Well);
    house.webhooks_are_heeded().await;
    house.is_refunded(&purchase, "w-4").await;
    let before = house.payment_history(&purchase).await;
    house.tell("the-same", &data).await.ok(200);
    house.webhooks_are_heeded().await;
    assert_eq!(house.payment_history(&purchase).await, before);
}

#[tokio::test]
async fn a_decline_that_can_never_be_tried_again() {
    play(async |house: &mut House| {
        the_same_card_is_tried_again(house).await;
        an_unclear_outcome_that_was_a_decline(house).await;
        the_key_of_a_decline_is_used_again(house).await;
    })
    .await;
}

/// Elsewhere the order's own idempotency key repeats the decline for ever.
async fn the_same_card_is_tried_again(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    let refusal = json!({ "refuse": { "code": "EXCEED_MAX_ONE_DAY_AMOUNT" } });
    house
        .gateway
        .script(json!([{ "on": "confirm", "times": 2, "fault": refusal }]));
    for _ in 0..2 {
        let declined = house.pay(&purchase, "d-1").await.ok(200);
        assert_eq!(declined["declineCode"], "EXCEED_MAX_ONE_DAY_AMOUNT");
        house.payment_becomes(&purchase, "FAILED").await;
    }
    house.paid(&purchase, "d-1").await;
    house.is_bought(&purchase, "d-1").await;
    assert_eq!(house.payment(&purchase).await["attempt"], 3);
}

async fn an_unclear_outcome_that_was_a_decline(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    let refusal = json!({ "refuse": { "code": "REJECT_CARD_COMPANY" } });
    house.gateway.script(json!([
        { "on": "confirm", "times": 1, "fault": "dropBefore" },
        { "on": "confirm", "times": 1, "fault": refusal },
    ]));
    house.pay(&purchase, "d-2").await.ok(202);
    let failed = house.payment_becomes_in_time(&purchase, "FAILED").await;
    assert_eq!(failed["declineCode"], "REJECT_CARD_COMPANY");
    house.paid(&purchase, "d-3").await;
    house.is_bought(&purchase, "d-3").await;
    assert_eq!(house.gateway.charge("d-2"), None);
}

async fn the_key_of_a_decline_is_used_again(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(0).await);
    let purchase = house.purchase(event, user, 0).await;
    let refusal = json!({ "refuse": { "code": "REJECT_CARD_PAYMENT" } });
    house
        .gateway
        .script(json!([{ "on": "confirm", "times": 1, "fault": refusal }]));
    let declined = house.pay_by_key(&purchase, "d-4", "mine").await;
    assert_eq!(declined.body["succeeded"], false);
    house.payment_becomes(&purchase, "FAILED").await;

    // The same request is the same answer, another one under its key is refused, and neither stands in the way.
    let again = house.pay_by_key(&purchase, "d-4", "mine").await;
    assert!(again.is_replayed());
    assert_eq!(again.body, declined.body);
    let body = confirmation(&purchase, "d-5");
    let header = ("Idempotency-Key", "mine");
    let reused = house.post_with("/payment/confirmed", header, &body).await;
    reused.refused(422, "IDEMPOTENCY_KEY_REUSED");
    house.pay_by_key(&purchase, "d-4", "next").await.ok(200);
    house.is_bought(&purchase, "d-4").await;
}
