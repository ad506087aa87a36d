//! A folder in which everything has happened that can happen, some of it still under way.

use std::path::Path;

use contract::{
    Timestamp,
    payment::{ConfirmedRequest, DeleteRequest},
};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    deployment::Deployment,
    desk::{PRICE, payment_of, saga_of},
    gateway::Mood,
    house::{GRACE_SECS, HOLD_SECS, House},
};

/// A copy of a folder in which everything has happened that can happen, some of it still under way, and its time.
pub async fn healthy_folder() -> (TempDir, Timestamp) {
    let mut house = House::open(Deployment::Embedded).await;
    house.hear_webhooks();
    what_has_ended(&mut house).await;
    what_was_refused(&mut house).await;
    what_needs_a_person(&mut house).await;
    what_is_open(&mut house).await;
    let copy = tempfile::tempdir().unwrap();
    copy_to(house.folder(), copy.path());
    let now = house.clock.now();
    house.stop().await;
    (copy, now)
}

fn copy_to(folder: &Path, copy: &Path) {
    let db = Connection::open(folder.join("boxoffice.db")).unwrap();
    let path = copy.join("boxoffice.db").display().to_string();
    db.execute("VACUUM INTO ?1", [path]).unwrap();
    let db = Connection::open(copy.join("boxoffice.db")).unwrap();
    db.pragma_update(None, "journal_mode", "WAL").unwrap();
}

/// Bought, given back, expired, released, lowered.
async fn what_has_ended(house: &mut House) {
    let event = house.event(20).await;
    for (number, points) in [(1, 0), (2, 300), (3, PRICE)] {
        let purchase = house
            .purchase(event, house.user(points).await, points)
            .await;
        house.paid(&purchase, &format!("bought-{number}")).await;
    }
    let given_back = house.purchase(event, house.user(300).await, 300).await;
    house.paid(&given_back, "given-back").await;
    house.rest().await;
    house.cancel(&given_back).await.ok(202);
    house.cancellation_becomes(&given_back, "COMPLETED").await;

    let kept = house.purchase(event, house.user(300).await, 300).await;
    house.paid(&kept, "kept").await;
    house.rest().await;
    house.gateway.script(json!([{ "on": "cancel", "times": 1,
        "fault": { "refuse": { "code": "NOT_CANCELABLE_PAYMENT" } } }]));
    house.cancel(&kept).await.ok(202);
    house.cancellation_becomes(&kept, "COMPENSATED").await;

    house.reserved(event, house.user(0).await).await;
    house.purchase(event, house.user(300).await, 300).await;
    let declined = house.purchase(event, house.user(300).await, 300).await;
    house.pay_with_refused_card(&declined, "declined").await;
    let released = house.purchase(event, house.user(300).await, 300).await;
    house.release(&released.ticket).await.ok(204);
    house.pass(HOLD_SECS + GRACE_SECS).await;

    let lowered = house.event(3).await;
    for number in 1..=2 {
        let purchase = house.purchase(lowered, house.user(0).await, 0).await;
        house.paid(&purchase, &format!("lowered-{number}")).await;
    }
    let fewer = json!({ "name": "Small", "ticketQuantity": 1, "price": PRICE, "version": 1 });
    house.put(&format!("/event/{lowered}"), fewer).await.ok(200);
    let timed = json!({ "name": "Timed", "ticketQuantity": 5, "price": 7,
        "saleOpensAt": "2027-03-01T00:00:00Z", "saleClosesAt": "2027-04-01T00:00:00Z" });
    house.post("/event", timed).await.ok(201);
    house.rest().await;
}

/// By the checks, for want of points, by a tombstone.
async fn what_was_refused(house: &mut House) {
    let event = house.event(10).await;
    let (inactive, fraud, poor) = (
        house.user(0).await,
        house.user(300).await,
        house.user(10).await,
    );
    house.judge(inactive, "INACTIVE", false).await;
    house.judge(fraud, "ACTIVE", true).await;
    for (user, points) in [(inactive, 0), (fraud, 300), (poor, 300)] {
        let ticket = house.reserved(event, user).await;
        house.process(&ticket, event, user, points).await.ok(202);
        house.progress_becomes(&ticket, "COMPENSATED").await;
    }
    let user = house.user(300).await;
    let ticket = house.reserved(event, user).await;
    let first = DeleteRequest {
        saga_id: saga_of(&ticket),
        payment_id: payment_of(&ticket),
    };
    house.send(&first).await;
    house.process(&ticket, event, user, 300).await.ok(202);
    house.progress_becomes(&ticket, "COMPENSATED").await;
    house.rest().await;
}

/// A parked refund, a second charge that went back, dead letters.
async fn what_needs_a_person(house: &mut House) {
    let (event, user) = (house.event(1).await, house.user(300).await);
    let late = house.purchase(event, user, 300).await;
    house.gateway.open_account(&late, "late-account").await;
    house.pay(&late, "late-account").await.ok(202);
    house.gateway.turn(Mood::Away);
    house.release(&late.ticket).await.ok(204);
    house.rest().await;
    house.gateway.act("late-account", "deposit").await;
    let next = house.purchase(event, house.user(0).await, 0).await;
    house.gateway.turn(Mood::Well);
    house.paid(&next, "next").await;
    let path = format!("/payment/{}", late.payment);
    house.pass_until(&path, |it| it["refund"] == "PARKED").await;

    house
        .gateway
        .take_again("twice", &next.payment, PRICE)
        .await;
    let data = json!({ "paymentKey": "twice", "orderId": next.payment, "status": "DONE" });
    house.tell("second-charge", &data).await.ok(200);
    house
        .pass_until("/payment/stray", |it| it["items"][0]["refund"] == "DONE")
        .await;
    house.gateway.told_all().await;
    house.webhooks_are_heeded().await;

    let event = house.event(1).await;
    let ticket = house.reserved(event, house.user(0).await).await;
    for (number, secs) in [(1, 40), (2, 0)] {
        let word = ConfirmedRequest {
            payment_id: payment_of(&ticket),
            pg_payment_id: format!("early-{number}"),
            confirmed: true,
            attempt: None,
            decline_code: None,
        };
        house.send(&word).await;
        for _ in 0..secs / 10 {
            house.pass(10).await;
        }
    }
}

/// Reserved, waiting for payment with points, declined, at the gateway, waiting for a deposit, going back.
async fn what_is_open(house: &mut House) {
    let event = house.event(20).await;
    house.reserved(event, house.user(0).await).await;
    house.purchase(event, house.user(300).await, 300).await;
    let declined = house.purchase(event, house.user(300).await, 300).await;
    house
        .pay_with_refused_card(&declined, "declined-again")
        .await;
    let deposit = house.purchase(event, house.user(0).await, 0).await;
    house.gateway.open_account(&deposit, "open-account").await;
    house.pay(&deposit, "open-account").await.ok(202);
    let given_back = house.purchase(event, house.user(300).await, 300).await;
    house.paid(&given_back, "going-back").await;
    house.rest().await;
    house.gateway.told_all().await;
    house.webhooks_are_heeded().await;

    house.gateway.turn(Mood::Dumb);
    let unknown = house.purchase(event, house.user(300).await, 300).await;
    house.pay(&unknown, "unknown").await.ok(202);
    let data = json!({ "paymentKey": "unknown", "orderId": unknown.payment, "status": "DONE" });
    house.tell("not-to-be-asked", &data).await.ok(200);
    house.cancel(&given_back).await.ok(202);
    house.rest().await;
}
