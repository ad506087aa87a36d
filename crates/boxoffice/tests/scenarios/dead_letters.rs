//! Messages that no consumer can handle: dead-lettered, retried on schedule, parked, replayed, discarded.

use contract::payment::ConfirmedRequest;
use serde_json::{Value, json};
use test_support::process;

use crate::{
    actions::{payment_of, stock},
    test_app::{TestApp, on_every_deployment},
};

/// The output of the command line about dead letters of this app. The command needs a data folder, or the server that
/// has it open; if the store is elsewhere, the same answer comes over HTTP.
async fn operator(app: &TestApp, arguments: &[&str]) -> Value {
    if app.environment().is_folder() {
        return command_line(app, arguments).await;
    }
    match arguments {
        ["list"] => app.get("/dead-letter").await.ok(200)["items"].clone(),
        ["show", id] => app.get(&format!("/dead-letter/{id}")).await.ok(200),
        ["discard", id] => app.delete(&format!("/dead-letter/{id}")).await.ok(200),
        other => panic!("no test uses {other:?}"),
    }
}

async fn command_line(app: &TestApp, arguments: &[&str]) -> Value {
    let mut command = process::command(env!("CARGO_BIN_EXE_boxoffice"));
    command
        .arg("dead-letter")
        .arg("--data")
        .arg(app.folder())
        .args(arguments)
        .arg("--json");
    // The server that the command calls runs on this thread.
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

/// The gateway charges a payment that does not exist yet, and its outcome is published.
async fn approve_too_early(app: &mut TestApp, ticket: &str, amount: i64) -> String {
    let order = payment_of(ticket).to_string();
    app.gateway
        .client
        .charge(&order, "card-early", amount)
        .await;
    let word = ConfirmedRequest {
        payment_id: payment_of(ticket),
        pg_payment_id: "card-early".to_owned(),
        confirmed: true,
        attempt: None,
        decline_code: None,
    };
    app.send(&word).await;
    let letter = app.dead_letter("WAITING").await;
    assert_eq!(
        letter["letter"]["reissuedTopic"],
        "payment.confirmed.request"
    );
    letter["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_poisoned_message_is_retried_three_times_then_parked_and_blocks_no_other() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        app.send_text("payment.create.request", "poison", "{ not json")
            .await;

        let letter = app.dead_letter("WAITING").await;
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
        assert_eq!(operator(app, &["list"]).await, json!([letter]));

        // Other messages of the same group are handled.
        let purchase = app.purchase(event, user, 0).await;
        app.paid(&purchase, "card-1").await;
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));

        for reissues in 1..=3 {
            let waiting = app.get(&format!("/dead-letter/{id}")).await.ok(200);
            assert_eq!(
                (&waiting["state"], &waiting["reissues"]),
                (&json!("WAITING"), &json!(reissues))
            );
            app.advance(10).await;
        }
        let parked = app.dead_letter("PARKED").await;
        assert_eq!(
            (&parked["id"], &parked["letter"]["retryCount"]),
            (&json!(id), &json!(3))
        );
        app.advance(60).await;
        assert_eq!(app.dead_letter("PARKED").await, parked);

        let discarded = operator(app, &["discard", &id]).await;
        assert_eq!(discarded["state"], "DISCARDED");
        let path = format!("/dead-letter/{id}");
        app.post(&format!("{path}/replay"), json!(null))
            .await
            .refused(409, "DEAD_LETTER_CLOSED");
        app.delete(&path).await.refused(409, "DEAD_LETTER_CLOSED");
    })
    .await;
}

#[tokio::test]
async fn a_message_that_came_too_early_is_handled_by_a_retry() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let ticket = app.reserved(event, user).await;
        let id = approve_too_early(app, &ticket, 1000).await;
        app.processed(&ticket, event, user, 0).await;
        app.advance(10).await;
        let letter = app.get(&format!("/dead-letter/{id}")).await.ok(200);
        assert_eq!(letter["state"], "RESOLVED");
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn a_parked_message_is_handled_once_when_a_person_replays_it() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let ticket = app.reserved(event, user).await;
        let id = approve_too_early(app, &ticket, 700).await;
        for _ in 0..3 {
            app.advance(10).await;
        }
        assert_eq!(app.dead_letter("PARKED").await["id"], id);
        app.processed(&ticket, event, user, 300).await;

        let replayed = app
            .post(&format!("/dead-letter/{id}/replay"), json!(null))
            .await
            .ok(200);
        assert_eq!(replayed["state"], "REPLAYED");
        let path = format!("/dead-letter/{id}");
        app.eventually(&path, |it| it["state"] == "RESOLVED").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
        app.post(&format!("{path}/replay"), json!(null))
            .await
            .refused(409, "DEAD_LETTER_CLOSED");
        assert_eq!(operator(app, &["show", &id]).await["state"], "RESOLVED");
        app.wait_until_idle().await;
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_without_a_group_waits_for_a_person_and_is_replayed_to_every_group() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let ticket = app.reserved(event, user).await;
        app.processed(&ticket, event, user, 0).await;
        let order = payment_of(&ticket).to_string();
        app.gateway.client.charge(&order, "card-1", 1000).await;
        let word = json!({"paymentId": order, "pgPaymentId": "card-1", "confirmed": true});
        let letter = json!({
            "eventId": "0f8c2a53-3c63-4fbd-90c5-0e2c1a6f5a01", "retryCount": 0, "maxRetryCount": 3,
            "retryIntervalMillis": 10_000, "timeStamp": "2026-11-30T14:30:29.123456789",
            "reason": "java.lang.IllegalStateException", "reissuedTopic": "payment.confirmed.request",
            "reissuedKey": "7d0ce4a7-6b0b-4d59-9a9e-6a5b0e6c8d11", "reissuedPayload": word.to_string(),
        });
        let key = letter["eventId"].as_str().unwrap();
        app.send_text("common.dlt", key, &letter.to_string()).await;

        // The service that wrote it may retry by itself, so here only a person replays it.
        let parked = app.dead_letter("PARKED").await;
        assert_eq!(parked["id"], key);
        assert_eq!(parked["letter"]["group"], "");
        assert_eq!(parked["letter"]["messageId"], key);
        app.advance(60).await;
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));

        let path = format!("/dead-letter/{key}/replay");
        let replayed = app.post(&path, json!(null)).await.ok(200);
        assert_eq!(replayed["state"], "RESOLVED");
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
        let again = app.post(&path, json!(null)).await;
        again.refused(409, "DEAD_LETTER_CLOSED");
    })
    .await;
}
