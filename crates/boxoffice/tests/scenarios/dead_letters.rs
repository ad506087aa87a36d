//! Messages that nobody can handle: seen, tried again on schedule, parked, replayed, thrown away.

use std::process::Command;

use contract::payment::ConfirmedRequest;
use serde_json::{Value, json};

use crate::{
    desk::{payment_of, stock},
    house::{House, play},
};

/// What the program prints about dead letters of this house. It works on a data folder, or with whoever has that open:
/// where the store is elsewhere, people ask over HTTP, and are told the same.
async fn operator(house: &House, arguments: &[&str]) -> Value {
    if house.site().is_folder() {
        return command_line(house, arguments).await;
    }
    match arguments {
        ["list"] => house.get("/dead-letter").await.ok(200)["items"].clone(),
        ["show", id] => house.get(&format!("/dead-letter/{id}")).await.ok(200),
        ["discard", id] => house.delete(&format!("/dead-letter/{id}")).await.ok(200),
        other => panic!("{other:?} is not asked in any story"),
    }
}

async fn command_line(house: &House, arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxoffice"));
    command
        .arg("dead-letter")
        .arg("--data")
        .arg(house.folder())
        .args(arguments)
        .arg("--json");
    // The server that it asks runs on this thread.
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// The gateway takes money for a payment that nobody has opened yet, and says so.
async fn approve_too_early(house: &mut House, ticket: &str, amount: i64) -> String {
    let order = payment_of(ticket).to_string();
    house.gateway.take("card-early", &order, amount).await;
    let word = ConfirmedRequest {
        payment_id: payment_of(ticket),
        pg_payment_id: "card-early".to_owned(),
        confirmed: true,
        attempt: None,
        decline_code: None,
    };
    house.send(&word).await;
    let letter = house.dead_letter("WAITING").await;
    assert_eq!(
        letter["letter"]["reissuedTopic"],
        "payment.confirmed.request"
    );
    letter["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_poisoned_message_is_tried_three_times_parked_and_holds_nobody_up() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        house
            .send_text("payment.create.request", "poison", "{ not json")
            .await;

        let letter = house.dead_letter("WAITING").await;
        let id = letter["id"].as_str().unwrap().to_owned();
        for (name, value) in [
            ("eventId", json!(id)),
            ("retryCount", json!(0)),
            ("maxRetryCount", json!(3)),
            ("retryIntervalMillis", json!(10_000)),
            ("reissuedTopic", json!("payment.create.request")),
            ("reissuedKey", json!("poison")),
            ("reissuedPayload", json!("{ not json")),
            ("group", json!("payment")),
        ] {
            assert_eq!(letter["letter"][name], value, "{name}");
        }
        assert_eq!(operator(house, &["list"]).await, json!([letter]));

        // Others of the same group go on.
        let purchase = house.purchase(event, user, 0).await;
        house.paid(&purchase, "card-1").await;
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));

        for reissues in 1..=3 {
            let waiting = house.get(&format!("/dead-letter/{id}")).await.ok(200);
            assert_eq!(
                (&waiting["state"], &waiting["reissues"]),
                (&json!("WAITING"), &json!(reissues))
            );
            house.pass(10).await;
        }
        let parked = house.dead_letter("PARKED").await;
        assert_eq!(
            (&parked["id"], &parked["letter"]["retryCount"]),
            (&json!(id), &json!(3))
        );
        house.pass(60).await;
        assert_eq!(house.dead_letter("PARKED").await, parked);

        let discarded = operator(house, &["discard", &id]).await;
        assert_eq!(discarded["state"], "DISCARDED");
        let path = format!("/dead-letter/{id}");
        house
            .post(&format!("{path}/replay"), json!(null))
            .await
            .refused(409, "DEAD_LETTER_CLOSED");
        house.delete(&path).await.refused(409, "DEAD_LETTER_CLOSED");
    })
    .await;
}

#[tokio::test]
async fn a_message_that_came_too_early_is_handled_by_itself_when_its_time_has_come() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let ticket = house.reserved(event, user).await;
        let id = approve_too_early(house, &ticket, 1000).await;
        house.processed(&ticket, event, user, 0).await;
        house.pass(10).await;
        let letter = house.get(&format!("/dead-letter/{id}")).await.ok(200);
        assert_eq!(letter["state"], "RESOLVED");
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_parked_message_is_handled_once_when_a_person_sends_it_again() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let ticket = house.reserved(event, user).await;
        let id = approve_too_early(house, &ticket, 700).await;
        for _ in 0..3 {
            house.pass(10).await;
        }
        assert_eq!(house.dead_letter("PARKED").await["id"], id);
        house.processed(&ticket, event, user, 300).await;

        let replayed = house
            .post(&format!("/dead-letter/{id}/replay"), json!(null))
            .await
            .ok(200);
        assert_eq!(replayed["state"], "REPLAYED");
        let path = format!("/dead-letter/{id}");
        house
            .eventually(&path, |it| it["state"] == "RESOLVED")
            .await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
        house
            .post(&format!("{path}/replay"), json!(null))
            .await
            .refused(409, "DEAD_LETTER_CLOSED");
        assert_eq!(operator(house, &["show", &id]).await["state"], "RESOLVED");
        house.rest().await;
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_of_a_service_that_names_no_group_waits_for_a_person_and_goes_to_everybody() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let ticket = house.reserved(event, user).await;
        house.processed(&ticket, event, user, 0).await;
        let order = payment_of(&ticket).to_string();
        house.gateway.take("card-1", &order, 1000).await;
        let word = json!({"paymentId": order, "pgPaymentId": "card-1", "confirmed": true});
        let letter = json!({
            "eventId": "0f8c2a53-3c63-4fbd-90c5-0e2c1a6f5a01", "retryCount": 0, "maxRetryCount": 3,
            "retryIntervalMillis": 10_000, "timeStamp": "2026-11-30T14:30:29.123456789",
            "reason": "java.lang.IllegalStateException", "reissuedTopic": "payment.confirmed.request",
            "reissuedKey": "7d0ce4a7-6b0b-4d59-9a9e-6a5b0e6c8d11", "reissuedPayload": word.to_string(),
        });
        let key = letter["eventId"].as_str().unwrap();
        house.send_text("common.dlt", key, &letter.to_string()).await;

        // Whoever wrote it may try again by itself: here nothing happens without a person.
        let parked = house.dead_letter("PARKED").await;
        assert_eq!(parked["id"], key);
        assert_eq!(parked["letter"]["group"], "");
        assert_eq!(parked["letter"]["messageId"], key);
        house.pass(60).await;
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));

        let path = format!("/dead-letter/{key}/replay");
        let replayed = house.post(&path, json!(null)).await.ok(200);
        assert_eq!(replayed["state"], "RESOLVED");
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
        let again = house.post(&path, json!(null)).await;
        again.refused(409, "DEAD_LETTER_CLOSED");
    })
    .await;
}
