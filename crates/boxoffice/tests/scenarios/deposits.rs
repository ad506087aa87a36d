//! Virtual accounts: the deposit comes in time, too late or never, and the bank may withdraw it.

use serde_json::json;

use crate::{
    actions::{Purchase, expiry_of, stock},
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp, on_every_deployment},
};

/// Processes a purchase of 700 won and 300 points until it waits for its deposit.
async fn awaited(app: &TestApp, event: i64, user: i64, key: &str) -> Purchase {
    let purchase = app.purchase(event, user, 300).await;
    app.open_virtual_account(&purchase, key).await;
    let answer = app.pay(&purchase, key).await.ok(202);
    assert_eq!(answer["status"], "CONFIRMING");
    assert_eq!(status(app, key), "WAITING_FOR_DEPOSIT");
    purchase
}

fn status(app: &TestApp, key: &str) -> String {
    app.gateway.charge(key).unwrap().0
}

fn secret(app: &TestApp, key: &str) -> String {
    let text = "SELECT secret FROM payment WHERE payment_key = ?1";
    let file = app.gateway.file();
    file.query_row(text, [key], |row| row.get(0)).unwrap()
}

async fn webhooks_are_delivered_and_applied(app: &TestApp) {
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;
}

#[tokio::test]
async fn a_deposit_buys_the_ticket_and_its_webhook_needs_the_secret() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = awaited(app, event, user, "account").await;
        app.gateway.perform("account", "deposit").await;
        let call = |secret: &str, transaction: &str| {
            json!({ "createdAt": "2026-11-22T10:00:00.000000", "secret": secret,
                "status": "DONE", "transactionKey": transaction, "orderId": purchase.payment })
        };
        let path = "/payment/webhook/toss";
        app.post(path, call("guessed", "t1")).await.ok(200);
        let consumed = app.webhooks();
        assert_eq!(consumed.len(), 1);
        app.webhooks_are_applied().await;
        let secret = secret(app, "account");
        app.post(path, call(&secret, "t2")).await.ok(200);
        app.webhooks_are_applied().await;
        app.is_bought(&purchase, "account").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
        let states: Vec<_> = app.webhooks().iter().map(|it| it.state).collect();
        assert!(states.contains(&payment::record::WebhookState::Ignored));
    })
    .await;
}

#[tokio::test]
async fn the_gateways_own_deposit_webhooks_buy_the_ticket() {
    on_every_deployment(async |app: &mut TestApp| {
        app.receive_webhooks();
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = awaited(app, event, user, "account").await;
        webhooks_are_delivered_and_applied(app).await;
        assert_eq!(app.payment(&purchase).await["status"], "CONFIRMING");
        app.gateway.perform("account", "deposit").await;
        webhooks_are_delivered_and_applied(app).await;
        app.is_bought(&purchase, "account").await;
        let kinds: Vec<_> = app.webhooks().into_iter().map(|it| it.kind).collect();
        assert!(kinds.contains(&"DEPOSIT_CALLBACK".to_owned()), "{kinds:?}");
    })
    .await;
}

#[tokio::test]
async fn an_unpaid_account_is_closed_at_the_deadline_and_everything_is_released() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = awaited(app, event, user, "account").await;
        app.advance(HOLD_SECS).await;
        assert_eq!(status(app, "account"), "WAITING_FOR_DEPOSIT");
        app.payment_becomes_in_time(&purchase, "FAILED").await;
        assert_eq!(app.payment(&purchase).await["declineCode"], "NO_DEPOSIT");
        assert_eq!(status(app, "account"), "CANCELED");
        app.advance(GRACE_SECS).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        app.points_become(user, 300).await;
        app.payment_becomes_in_time(&purchase, "DELETED").await;

        // The bank accepts no deposit for a closed account.
        let (refused, _) = app.gateway.client.try_perform("account", "deposit").await;
        assert_eq!(refused, 409);
    })
    .await;
}

/// A deposit after the reservation was released and before the gateway could close the account.
async fn deposited_too_late(app: &TestApp, event: i64, user: i64) -> Purchase {
    let purchase = awaited(app, event, user, "account").await;
    app.gateway.set_mode(GatewayMode::Unreachable);
    app.release(&purchase.ticket).await.ok(204);
    app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    app.gateway.perform("account", "deposit").await;
    purchase
}

#[tokio::test]
async fn a_deposit_after_the_deadline_buys_the_ticket_while_the_account_is_open() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = awaited(app, event, user, "account").await;
        app.gateway.set_mode(GatewayMode::Unreachable);
        app.advance(HOLD_SECS + GRACE_SECS).await;
        let path = format!("/saga/{}", expiry_of(&purchase.ticket));
        app.eventually(&path, |it| it["sagaState"] == "STARTED")
            .await;
        app.gateway.perform("account", "deposit").await;
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));
        app.gateway.set_mode(GatewayMode::Normal);
        app.is_bought(&purchase, "account").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
        app.points_become(user, 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_refund_that_needs_an_account_is_parked_visibly_until_one_is_named() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = deposited_too_late(app, event, user).await;
        let next = app.purchase(event, app.user(0).await, 0).await;
        app.gateway.set_mode(GatewayMode::Normal);
        app.paid(&next, "card-of-the-next").await;

        let path = format!("/payment/{}", purchase.payment);
        let parked = app
            .advance_until(&path, |it| it["refund"] == "PARKED")
            .await;
        assert_eq!(parked["refundCode"], "INVALID_REQUEST");
        let listed = app.get("/payment?refund=PARKED").await.ok(200);
        assert_eq!(listed["items"][0]["paymentId"], purchase.payment.as_str());
        let process = format!("/ticketing/process/{}", purchase.ticket);
        app.eventually(&process, |it| it["failure"] == "PAYMENT_REFUND_PARKED")
            .await;

        let account = json!({ "bank": "20", "accountNumber": "1234", "holderName": "Buyer" });
        let named = app.put(&format!("{path}/refund-account"), account).await;
        assert_eq!(named.status, 204);
        let resume = format!("{path}/refund");
        assert_eq!(app.post(&resume, json!(null)).await.status, 202);
        app.is_refunded(&purchase, "account").await;
        let again = app.post(&resume, json!(null)).await;
        again.refused(409, "REFUND_NOT_PARKED");
        app.eventually(&process, |it| it["failure"] == "PAYMENT_REFUNDED")
            .await;
        app.points_become(user, 300).await;
    })
    .await;
}

#[tokio::test]
async fn a_ticket_whose_deposit_the_bank_withdraws_is_cancelled_and_its_account_closed() {
    on_every_deployment(async |app: &mut TestApp| {
        app.receive_webhooks();
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = awaited(app, event, user, "account").await;
        app.gateway.perform("account", "deposit").await;
        webhooks_are_delivered_and_applied(app).await;
        app.is_bought(&purchase, "account").await;

        app.gateway.perform("account", "withdraw").await;
        webhooks_are_delivered_and_applied(app).await;
        let payment = app.payment_becomes_in_time(&purchase, "CANCELLED").await;
        assert_eq!(payment["refund"], "DONE");
        app.ticket_becomes(&purchase, "CANCELLED").await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        app.points_become(user, 300).await;
        assert_eq!(status(app, "account"), "CANCELED");
        let (refused, _) = app.gateway.client.try_perform("account", "deposit").await;
        assert_eq!(refused, 409);
        webhooks_are_delivered_and_applied(app).await;
    })
    .await;
}
