//! A folder with every kind of record, finished and pending.

use std::path::Path;

use contract::{
    Timestamp,
    payment::{ConfirmedRequest, DeleteRequest},
};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    actions::{PRICE, payment_of, saga_of},
    deployment::DeploymentKind,
    gateway::GatewayMode,
    test_app::{GRACE_SECS, HOLD_SECS, TestApp},
};

/// A copy of a folder with every kind of record, finished and pending, and the time of the copy.
pub async fn healthy_folder() -> (TempDir, Timestamp) {
    let mut app = TestApp::open(DeploymentKind::Embedded).await;
    app.receive_webhooks();
    finished_purchases(&mut app).await;
    refused_purchases(&mut app).await;
    work_for_a_person(&mut app).await;
    pending_purchases(&mut app).await;
    let copy = tempfile::tempdir().unwrap();
    copy_to(app.folder(), copy.path());
    let now = app.clock.now();
    app.stop().await;
    (copy, now)
}

pub fn copy_to(folder: &Path, copy: &Path) {
    let db = Connection::open(folder.join("boxoffice.db")).unwrap();
    let path = copy.join("boxoffice.db").display().to_string();
    db.execute("VACUUM INTO ?1", [path]).unwrap();
    let db = Connection::open(copy.join("boxoffice.db")).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
}

/// Bought, cancelled, expired and released tickets, and a lowered quantity.
async fn finished_purchases(app: &mut TestApp) {
    let event = app.event(20).await;
    for (number, points) in [(1, 0), (2, 300), (3, PRICE)] {
        let purchase = app.purchase(event, app.user(points).await, points).await;
        app.paid(&purchase, &format!("bought-{number}")).await;
    }
    let given_back = app.purchase(event, app.user(300).await, 300).await;
    app.paid(&given_back, "given-back").await;
    app.wait_until_idle().await;
    app.cancel(&given_back).await.ok(202);
    app.cancellation_becomes(&given_back, "COMPLETED").await;

    let kept = app.purchase(event, app.user(300).await, 300).await;
    app.paid(&kept, "kept").await;
    app.wait_until_idle().await;
    app.gateway.script(json!([{ "on": "cancel", "times": 1,
        "fault": { "refuse": { "code": "NOT_CANCELABLE_PAYMENT" } } }]));
    app.cancel(&kept).await.ok(202);
    app.cancellation_becomes(&kept, "COMPENSATED").await;

    app.reserved(event, app.user(0).await).await;
    app.purchase(event, app.user(300).await, 300).await;
    let declined = app.purchase(event, app.user(300).await, 300).await;
    app.pay_with_refused_card(&declined, "declined").await;
    let released = app.purchase(event, app.user(300).await, 300).await;
    app.release(&released.ticket).await.ok(204);
    app.advance(HOLD_SECS + GRACE_SECS).await;

    let lowered = app.event(3).await;
    for number in 1..=2 {
        let purchase = app.purchase(lowered, app.user(0).await, 0).await;
        app.paid(&purchase, &format!("lowered-{number}")).await;
    }
    let fewer = json!({ "name": "Small", "ticketQuantity": 1, "price": PRICE, "version": 1 });
    app.put(&format!("/event/{lowered}"), fewer).await.ok(200);
    let timed = json!({ "name": "Timed", "ticketQuantity": 5, "price": 7,
        "saleOpensAt": "2027-03-01T00:00:00Z", "saleClosesAt": "2027-04-01T00:00:00Z" });
    app.post("/event", timed).await.ok(201);
    app.wait_until_idle().await;
}

/// Purchases that were refused by the checks, for lack of points, and by a tombstone.
async fn refused_purchases(app: &mut TestApp) {
    let event = app.event(10).await;
    let (inactive, fraud, poor) = (app.user(0).await, app.user(300).await, app.user(10).await);
    app.update_user(inactive, "INACTIVE", false).await;
    app.update_user(fraud, "ACTIVE", true).await;
    for (user, points) in [(inactive, 0), (fraud, 300), (poor, 300)] {
        let ticket = app.reserved(event, user).await;
        app.process(&ticket, event, user, points).await.ok(202);
        app.progress_becomes(&ticket, "COMPENSATED").await;
    }
    let user = app.user(300).await;
    let ticket = app.reserved(event, user).await;
    let first = DeleteRequest {
        saga_id: saga_of(&ticket),
        payment_id: payment_of(&ticket),
    };
    app.send(&first).await;
    app.process(&ticket, event, user, 300).await.ok(202);
    app.progress_becomes(&ticket, "COMPENSATED").await;
    app.wait_until_idle().await;
}

/// A parked refund, a refunded second charge, dead letters.
async fn work_for_a_person(app: &mut TestApp) {
    let (event, user) = (app.event(1).await, app.user(300).await);
    let late = app.purchase(event, user, 300).await;
    app.open_virtual_account(&late, "late-account").await;
    app.pay(&late, "late-account").await.ok(202);
    app.gateway.set_mode(GatewayMode::Unreachable);
    app.release(&late.ticket).await.ok(204);
    app.wait_until_idle().await;
    app.gateway.perform("late-account", "deposit").await;
    let next = app.purchase(event, app.user(0).await, 0).await;
    app.gateway.set_mode(GatewayMode::Normal);
    app.paid(&next, "next").await;
    let path = format!("/payment/{}", late.payment);
    app.advance_until(&path, |it| it["refund"] == "PARKED")
        .await;

    app.gateway
        .charge_again("twice", &next.payment, PRICE)
        .await;
    let data = json!({ "paymentKey": "twice", "orderId": next.payment, "status": "DONE" });
    app.deliver_webhook("second-charge", &data).await.ok(200);
    app.advance_until("/payment/stray", |it| it["items"][0]["refund"] == "DONE")
        .await;
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;

    let event = app.event(1).await;
    let ticket = app.reserved(event, app.user(0).await).await;
    for (number, secs) in [(1, 40), (2, 0)] {
        let word = ConfirmedRequest {
            payment_id: payment_of(&ticket),
            pg_payment_id: format!("early-{number}"),
            confirmed: true,
            attempt: None,
            decline_code: None,
        };
        app.send(&word).await;
        for _ in 0..secs / 10 {
            app.advance(10).await;
        }
    }
}

/// Pending purchases: reserved, waiting for payment, declined, at the gateway, waiting for a deposit, being cancelled.
async fn pending_purchases(app: &mut TestApp) {
    let event = app.event(20).await;
    app.reserved(event, app.user(0).await).await;
    app.purchase(event, app.user(300).await, 300).await;
    let declined = app.purchase(event, app.user(300).await, 300).await;
    app.pay_with_refused_card(&declined, "declined-again").await;
    let deposit = app.purchase(event, app.user(0).await, 0).await;
    app.open_virtual_account(&deposit, "open-account").await;
    app.pay(&deposit, "open-account").await.ok(202);
    let given_back = app.purchase(event, app.user(300).await, 300).await;
    app.paid(&given_back, "going-back").await;
    app.wait_until_idle().await;
    app.gateway.wait_for_all_webhooks().await;
    app.webhooks_are_applied().await;

    app.gateway.set_mode(GatewayMode::LosesAnswers);
    let unknown = app.purchase(event, app.user(300).await, 300).await;
    app.pay(&unknown, "unknown").await.ok(202);
    let data = json!({ "paymentKey": "unknown", "orderId": unknown.payment, "status": "DONE" });
    app.deliver_webhook("not-to-be-asked", &data).await.ok(200);
    app.cancel(&given_back).await.ok(202);
    app.wait_until_idle().await;
}
