//! Virtual accounts: the money comes when its buyer sends it, or never, or too late, and the bank may take it back.

use serde_json::json;

use crate::{
    desk::{Purchase, expiry_of, stock},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House, play},
};

/// A purchase of 700 won and 300 points that waits for its deposit.
async fn awaited(house: &House, event: i64, user: i64, key: &str) -> Purchase {
    let purchase = house.purchase(event, user, 300).await;
    house.gateway.open_account(&purchase, key).await;
    let told = house.pay(&purchase, key).await.ok(202);
    assert_eq!(told["status"], "CONFIRMING");
    assert_eq!(status(house, key), "WAITING_FOR_DEPOSIT");
    purchase
}

fn status(house: &House, key: &str) -> String {
    house.gateway.charge(key).unwrap().0
}

fn secret(house: &House, key: &str) -> String {
    let text = "SELECT secret FROM payment WHERE payment_key = ?1";
    let file = house.gateway.file();
    file.query_row(text, [key], |row| row.get(0)).unwrap()
}

async fn heed(house: &House) {
    house.gateway.told_all().await;
    house.webhooks_are_heeded().await;
}

#[tokio::test]
async fn a_deposit_buys_the_ticket_and_only_who_knows_its_secret_is_heard() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = awaited(house, event, user, "account").await;
        house.gateway.act("account", "deposit").await;
        let call = |secret: &str, transaction: &str| {
            json!({ "createdAt": "2026-11-22T10:00:00.000000", "secret": secret,
                "status": "DONE", "transactionKey": transaction, "orderId": purchase.payment })
        };
        let path = "/payment/webhook/toss";
        house.post(path, call("guessed", "t1")).await.ok(200);
        let heard = house.webhooks();
        assert_eq!(heard.len(), 1);
        house.webhooks_are_heeded().await;
        let secret = secret(house, "account");
        house.post(path, call(&secret, "t2")).await.ok(200);
        house.webhooks_are_heeded().await;
        house.is_bought(&purchase, "account").await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
        let states: Vec<_> = house.webhooks().iter().map(|it| it.state).collect();
        assert!(states.contains(&payment::record::WebhookState::Ignored));
    })
    .await;
}

#[tokio::test]
async fn the_gateways_own_webhooks_of_a_deposit_buy_the_ticket() {
    play(async |house: &mut House| {
        house.hear_webhooks();
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = awaited(house, event, user, "account").await;
        heed(house).await;
        assert_eq!(house.payment(&purchase).await["status"], "CONFIRMING");
        house.gateway.act("account", "deposit").await;
        heed(house).await;
        house.is_bought(&purchase, "account").await;
        let kinds: Vec<_> = house.webhooks().into_iter().map(|it| it.kind).collect();
        assert!(kinds.contains(&"DEPOSIT_CALLBACK".to_owned()), "{kinds:?}");
    })
    .await;
}

#[tokio::test]
async fn an_account_that_nobody_pays_into_is_closed_at_the_deadline_and_gives_everything_back() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = awaited(house, event, user, "account").await;
        house.pass(HOLD_SECS).await;
        assert_eq!(status(house, "account"), "WAITING_FOR_DEPOSIT");
        house.payment_becomes_in_time(&purchase, "FAILED").await;
        assert_eq!(house.payment(&purchase).await["declineCode"], "NO_DEPOSIT");
        assert_eq!(status(house, "account"), "CANCELED");
        house.pass(GRACE_SECS).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        house.points_become(user, 300).await;
        house.payment_becomes_in_time(&purchase, "DELETED").await;

        // The bank takes no money for an account that is closed.
        let (refused, _) = house.gateway.try_to("account", "deposit").await;
        assert_eq!(refused, 409);
    })
    .await;
}

/// A deposit that came when the reservation was released and before the gateway could be told to close the account.
async fn deposited_too_late(house: &House, event: i64, user: i64) -> Purchase {
    let purchase = awaited(house, event, user, "account").await;
    house.gateway.turn(Mood::Away);
    house.release(&purchase.ticket).await.ok(204);
    house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    house.gateway.act("account", "deposit").await;
    purchase
}

#[tokio::test]
async fn a_deposit_after_the_deadline_buys_the_ticket_that_its_open_account_has_kept() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = awaited(house, event, user, "account").await;
        house.gateway.turn(Mood::Away);
        house.pass(HOLD_SECS + GRACE_SECS).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        house
            .eventually(&path, |it| it["sagaState"] == "STARTED")
            .await;
        house.gateway.act("account", "deposit").await;
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));
        house.gateway.turn(Mood::Well);
        house.is_bought(&purchase, "account").await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
        house.points_become(user, 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_refund_that_needs_an_account_waits_for_one_in_sight_and_is_done_when_it_is_named() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = deposited_too_late(house, event, user).await;
        let next = house.purchase(event, house.user(0).await, 0).await;
        house.gateway.turn(Mood::Well);
        house.paid(&next, "card-of-the-next").await;

        let path = format!("/payment/{}", purchase.payment);
        let parked = house.pass_until(&path, |it| it["refund"] == "PARKED").await;
        assert_eq!(parked["refundCode"], "INVALID_REQUEST");
        let listed = house.get("/payment?refund=PARKED").await.ok(200);
        assert_eq!(listed["items"][0]["paymentId"], purchase.payment.as_str());
        let process = format!("/ticketing/process/{}", purchase.ticket);
        house
            .eventually(&process, |it| it["failure"] == "PAYMENT_REFUND_PARKED")
            .await;

        let account = json!({ "bank": "20", "accountNumber": "1234", "holderName": "Buyer" });
        let named = house.put(&format!("{path}/refund-account"), account).await;
        assert_eq!(named.status, 204);
        let resume = format!("{path}/refund");
        assert_eq!(house.post(&resume, json!(null)).await.status, 202);
        house.is_refunded(&purchase, "account").await;
        let again = house.post(&resume, json!(null)).await;
        again.refused(409, "REFUND_NOT_PARKED");
        house
            .eventually(&process, |it| it["failure"] == "PAYMENT_REFUNDED")
            .await;
        house.points_become(user, 300).await;
    })
    .await;
}

#[tokio::test]
async fn a_ticket_whose_deposit_the_bank_takes_back_is_cancelled_and_its_account_closed() {
    play(async |house: &mut House| {
        house.hear_webhooks();
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = awaited(house, event, user, "account").await;
        house.gateway.act("account", "deposit").await;
        heed(house).await;
        house.is_bought(&purchase, "account").await;

        house.gateway.act("account", "withdraw").await;
        heed(house).await;
        let payment = house.payment_becomes_in_time(&purchase, "CANCELLED").await;
        assert_eq!(payment["refund"], "DONE");
        house.ticket_becomes(&purchase, "CANCELLED").await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        house.points_become(user, 300).await;
        assert_eq!(status(house, "account"), "CANCELED");
        let (refused, _) = house.gateway.try_to("account", "deposit").await;
        assert_eq!(refused, 409);
        heed(house).await;
    })
    .await;
}
