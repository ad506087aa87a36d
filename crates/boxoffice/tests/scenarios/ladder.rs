//! The ladder of a payment whose outcome is not known: it is looked up until the truth is known, then there is a
//! ticket for the money, or the money goes back.

use serde_json::{Value, json};

use crate::{
    desk::{Purchase, entries, expiry_of, stock},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

/// Short, so that a gateway that hangs holds nobody up.
const PATIENCE_MILLIS: u64 = 400;
const HANG_MILLIS: u64 = 800;

/// Every way in which the gateway can leave it open what it has done, and whether it has done it.
fn silences() -> Vec<(Value, bool)> {
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

async fn play_impatiently(story: impl AsyncFn(&mut House)) {
    play(async |house: &mut House| {
        house.config.payment.gateway.request_timeout_millis = PATIENCE_MILLIS;
        house.restart().await;
        story(house).await;
    })
    .await;
}

#[tokio::test]
async fn whatever_the_gateway_answers_to_a_confirm_the_ticket_is_bought_for_one_charge() {
    play_impatiently(async |house: &mut House| {
        for (number, (fault, is_done)) in silences().into_iter().enumerate() {
            let (event, user) = (house.event(1).await, house.user(300).await);
            let purchase = house.purchase(event, user, 300).await;
            let card = format!("card-{number}");
            house
                .gateway
                .script(json!([{ "on": "confirm", "times": 1, "fault": fault }]));
            let told = house.pay(&purchase, &card).await;
            assert_eq!(told.status, 202, "{fault} {}", told.body);
            if is_done && !fault["delay"].is_object() {
                let charge = Some(("DONE".to_owned(), 700, 700));
                assert_eq!(house.gateway.charge(&card), charge, "{fault}");
            }
            house.is_bought(&purchase, &card).await;
            house.stock_becomes(event, stock(1, 0, 1, 0)).await;
            assert_eq!(house.payment(&purchase).await["attempt"], 1, "{fault}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_attempt_that_the_gateway_answers_strangely_for_ever_is_given_up_and_another_one_buys() {
    play(async |house: &mut House| {
        // It repeats them for the attempt's key, and shows no charge.
        for (code, status) in [("REJECT_CARD_PAYMENT", 503), ("A_CODE_OF_TOMORROW", 400)] {
            let (event, user) = (house.event(1).await, house.user(300).await);
            let purchase = house.purchase(event, user, 300).await;
            let fault = json!({ "refuse": { "code": code, "status": status } });
            house
                .gateway
                .script(json!([{ "on": "confirm", "times": 1, "fault": fault }]));
            house.pay(&purchase, code).await.ok(202);
            let failed = house.payment_becomes_in_time(&purchase, "FAILED").await;
            assert_eq!(failed["declineCode"], "NOT_CHARGED");
            assert_eq!(house.gateway.charge(code), None);
            house.paid(&purchase, code).await;
            house.is_bought(&purchase, code).await;
        }
    })
    .await;
}

#[tokio::test]
async fn whatever_the_gateway_answers_to_a_lookup_it_is_asked_until_it_says_the_truth() {
    play_impatiently(async |house: &mut House| {
        for (number, (fault, _)) in silences().into_iter().enumerate() {
            let (event, user) = (house.event(1).await, house.user(0).await);
            let purchase = house.purchase(event, user, 0).await;
            let card = format!("card-{number}");
            house.gateway.script(json!([
                { "on": "confirm", "times": 1, "fault": "doThenDrop" },
                { "on": "lookup", "times": 4, "fault": fault },
            ]));
            house.pay(&purchase, &card).await.ok(202);
            house.is_bought(&purchase, &card).await;
        }
    })
    .await;
}

#[tokio::test]
async fn whatever_the_gateway_answers_to_a_cancel_the_money_goes_back_once() {
    play_impatiently(async |house: &mut House| {
        for (number, (fault, _)) in silences().into_iter().enumerate() {
            let (event, user) = (house.event(1).await, house.user(300).await);
            let purchase = house.purchase(event, user, 300).await;
            let card = format!("card-{number}");
            house.gateway.turn(Mood::Well);
            house.paid(&purchase, &card).await;
            house
                .gateway
                .script(json!([{ "on": "cancel", "times": 2, "fault": fault }]));
            house.cancel(&purchase).await.ok(202);
            house.cancellation_becomes(&purchase, "COMPLETED").await;
            house.is_refunded(&purchase, &card).await;
            house.points_become(user, 300).await;
            house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        }
    })
    .await;
}

/// A purchase whose money is taken. The gateway says nothing of it so far.
async fn charged(house: &House, event: i64, user: i64) -> Purchase {
    let purchase = house.purchase(event, user, 300).await;
    house.gateway.turn(Mood::Dumb);
    house.pay(&purchase, "card-1").await.ok(202);
    purchase
}

/// The same, and its buyer has given the reservation back meanwhile.
async fn charged_and_released(house: &House, event: i64, user: i64) -> Purchase {
    let purchase = charged(house, event, user).await;
    house.release(&purchase.ticket).await.ok(204);
    house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    purchase
}

#[tokio::test]
async fn who_was_charged_in_time_has_the_seat_however_long_the_gateway_says_nothing() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = charged(house, event, user).await;
        house.pass(HOLD_SECS + GRACE_SECS).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        house
            .eventually(&path, |it| it["sagaState"] == "STARTED")
            .await;
        // Also where nobody was there for longer than that.
        house.stop().await;
        house
            .clock
            .advance_millis(2 * (HOLD_SECS + GRACE_SECS) * 1000);
        house.start().await;
        house.pass(GRACE_SECS + 61).await;
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
        let next = house.user(0).await;
        house.reserve(event, next).await.refused(409, "SOLD_OUT");
        let again = house.reserve(event, user).await;
        again.refused(409, "ALREADY_RESERVED");

        house.gateway.turn(Mood::Well);
        house.is_bought(&purchase, "card-1").await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
        let path = format!("/ticketing/process/{}", purchase.ticket);
        let told = house
            .eventually(&path, |it| it["ticketStatus"] == "RESERVED")
            .await;
        assert_eq!(told.get("failure"), None, "{told}");
        house.points_become(user, 0).await;
        let again = house.reserve(event, user).await;
        again.refused(409, "ALREADY_PURCHASED");
    })
    .await;
}

#[tokio::test]
async fn money_that_came_when_everything_was_sold_goes_back_and_the_buyer_can_read_it() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = charged_and_released(house, event, user).await;
        let next = house.purchase(event, house.user(0).await, 0).await;
        house.gateway.turn(Mood::Well);
        house.is_refunded(&purchase, "card-1").await;
        let path = format!("/ticketing/process/{}", purchase.ticket);
        let told = house
            .eventually(&path, |it| it["failure"] == "PAYMENT_REFUNDED")
            .await;
        assert_eq!(
            (&told["paymentStatus"], &told["refund"]),
            (&json!("CANCELLED"), &json!("DONE"))
        );
        assert_eq!(
            house.payment_history(&purchase).await,
            [
                "CREATED",
                "CONFIRMING",
                // The release wants it deleted: that is noted, and answered by its outcome.
                "CONFIRMING",
                "SUCCEEDED",
                "SUCCEEDED",
                "CANCELLED"
            ]
        );
        house.points_become(user, 300).await;
        house.paid(&next, "card-of-the-next").await;
    })
    .await;
}

#[tokio::test]
async fn money_of_a_buyer_who_has_reserved_again_meanwhile_goes_back() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = charged_and_released(house, event, user).await;
        let again = house.reserved(event, user).await;
        house.gateway.turn(Mood::Well);
        house.is_refunded(&purchase, "card-1").await;
        house.points_become(user, 300).await;
        let again = house.processed(&again, event, user, 300).await;
        house.paid(&again, "card-2").await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
        house.rest().await;
        let ledger = house.ledger(user).await;
        assert_eq!(ledger.last(), entries(&[("USED", 0, 0)]).last());
    })
    .await;
}

#[tokio::test]
async fn after_the_deadline_the_gateway_is_not_asked_even_where_an_attempt_was_made_before() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let purchase = house.purchase(event, user, 0).await;
        house
            .pay_with_refused_card(&purchase, "card-1")
            .await
            .ok(200);
        house.payment_becomes(&purchase, "FAILED").await;
        house.pass(HOLD_SECS).await;
        house.clock.advance_millis(1);
        let late = house.pay(&purchase, "card-2").await;
        late.refused(409, "DEADLINE_PASSED");
        assert_eq!(house.gateway.books().payments, 0, "it was asked");
        assert_eq!(house.payment(&purchase).await["attempt"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_reservation_does_not_lapse_while_an_attempt_in_time_is_under_way() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let purchase = house.purchase(event, user, 0).await;
        house.pass(HOLD_SECS).await;
        house.gateway.script(json!([
            { "on": "confirm", "times": 1, "fault": { "delay": { "millis": HANG_MILLIS } } },
        ]));
        let meanwhile = async {
            house.payment_becomes(&purchase, "CONFIRMING").await;
            house.pass(GRACE_SECS - 1).await;
            assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
        };
        let (paid, ()) = tokio::join!(house.pay(&purchase, "card-1"), meanwhile);
        assert_eq!(paid.ok(200)["succeeded"], true);
        // The clock stands until it has become a ticket: then nothing has lapsed, on any deployment.
        house.rest().await;
        house.is_bought(&purchase, "card-1").await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}
