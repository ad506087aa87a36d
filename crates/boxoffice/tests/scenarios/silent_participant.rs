//! A participant that does not reply: its request is repeated, then everything is compensated; a compensation without a
//! reply is parked.
//!
//! To make a participant silent, a test sends it a request with the saga's id that contradicts the saga's own request:
//! the participant rejects the saga's request and never replies.

use contract::{
    EventId, Money, Points, SagaId, TicketId, UserId, payment::CreateRequest,
    user::ReservePointRequest,
};
use messaging::Commit;
use serde_json::Value;
use user::points::Hold;

use crate::{
    actions::{entries, pairs, payment_of, saga_of, stock},
    test_app::{TestApp, on_every_deployment},
};

/// Makes the payment service silent for a purchase that has not begun yet.
async fn silence_payment(app: &mut TestApp, ticket: &str, event: i64, user: i64) {
    let other = CreateRequest {
        saga_id: saga_of(ticket),
        ticket_id: ticket.parse::<TicketId>().unwrap(),
        event_id: EventId(event),
        user_id: UserId(user),
        total_amount: Money::new(1).unwrap(),
        point: Points::ZERO,
        expires_at: None,
    };
    app.send(&other).await;
    app.discard_only_dead_letter().await;
}

async fn count_published(app: &TestApp, saga: SagaId, topic: &str) -> usize {
    let published = app.published_topics(&saga.to_string()).await;
    published
        .iter()
        .filter(|published| *published == topic)
        .count()
}

async fn saga(app: &TestApp, saga: SagaId) -> Value {
    app.get(&format!("/saga/{saga}")).await.ok(200)
}

#[tokio::test]
async fn a_silent_participant_gets_four_requests_and_is_then_compensated_first() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let ticket = app.reserved(event, user).await;
        silence_payment(app, &ticket, event, user).await;
        let saga = saga_of(&ticket);
        app.process(&ticket, event, user, 300).await.ok(202);

        // The request is repeated every ten seconds.
        let path = format!("/saga/{saga}");
        app.eventually(&path, |it| it["currentStep"] == "payment.create")
            .await;
        app.wait_until_idle().await;
        let rejected = app.dead_letters("WAITING").await.len();
        assert_eq!(rejected, 1);
        for asked in 2..=4 {
            app.advance(10).await;
            let letters: Vec<_> = [
                app.dead_letters("WAITING").await,
                app.dead_letters("PARKED").await,
            ]
            .concat();
            assert_eq!(letters.len(), asked);
            assert_eq!(
                app.progress_becomes(&ticket, "STARTED")
                    .await
                    .get("failure"),
                None
            );
        }

        // Then the purchase compensates, beginning with the step of unknown outcome.
        app.advance(10).await;
        let progress = app.progress_becomes(&ticket, "COMPENSATED").await;
        let failure = progress["failure"].as_str().unwrap();
        assert_eq!(
            failure,
            "payment.create: no answer to the request after attempt 4"
        );
        assert_eq!(
            app.steps(saga).await,
            pairs(&[
                ("user.check.active", "SUCCEEDED"),
                ("user.reserve.point", "COMPENSATED"),
                ("user.check.fraud", "SUCCEEDED"),
                ("payment.create", "COMPENSATED"),
            ])
        );
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        assert_eq!(app.points(user).await, 300);
        let payment = app
            .get(&format!("/payment/{}", payment_of(&ticket)))
            .await
            .ok(200);
        assert_eq!(payment["status"], "DELETED");
        app.dead_letters_left = 4;
    })
    .await;
}

#[tokio::test]
async fn a_release_during_a_purchase_compensates_it_in_reverse_order_without_waiting_for_a_reply() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let ticket = app.reserved(event, user).await;
        silence_payment(app, &ticket, event, user).await;
        app.process(&ticket, event, user, 300).await.ok(202);
        let saga = saga_of(&ticket);
        let path = format!("/saga/{saga}");
        app.eventually(&path, |it| it["currentStep"] == "payment.create")
            .await;

        app.release(&ticket).await.ok(204);
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
        let progress = app.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "RESERVATION_EXPIRED");
        app.wait_until_idle().await;
        let published = app.published_topics(&saga.to_string()).await;
        let undoing = published
            .iter()
            .skip_while(|topic| *topic != "payment.delete.request");
        assert_eq!(
            undoing.collect::<Vec<_>>(),
            [
                "payment.delete.request",
                "payment.delete.response",
                "user.restore.point.request",
                "user.restore.point.response",
            ]
        );
        assert_eq!(
            count_published(app, saga, "payment.create.request").await,
            2
        );
        assert_eq!(
            app.ledger(user).await,
            entries(&[
                ("GRANTED", 300, 300),
                ("RESERVED", -300, 0),
                ("RESTORED", 300, 300)
            ])
        );
        app.dead_letters_left = 1;
    })
    .await;
}

#[tokio::test]
async fn a_failed_compensation_is_parked_visibly_and_continues_when_a_person_resumes_it() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let stranger = app.user(0).await;
        let ticket = app.reserved(event, user).await;
        let saga_id = saga_of(&ticket);

        // Given the user service will neither reserve nor restore points for this purchase.
        let foreign = ReservePointRequest {
            saga_id,
            user_id: UserId(stranger),
            point: Points::ZERO,
        };
        app.send(&foreign).await;
        app.discard_only_dead_letter().await;
        app.process(&ticket, event, user, 300).await.ok(202);
        app.wait_until_idle().await;

        // When the retries are exhausted, then the purchase is parked and shows why.
        let path = format!("/saga/{saga_id}");
        app.post(&format!("{path}/resume"), Value::Null)
            .await
            .refused(409, "SAGA_NOT_PARKED");
        app.advance_until(&path, |it| it["parked"].is_string())
            .await;
        let parked = saga(app, saga_id).await;
        assert_eq!(parked["sagaState"], "COMPENSATING");
        assert_eq!(
            parked["parked"],
            "user.reserve.point: no answer to the compensation after attempt 21"
        );
        let listed = app.get("/saga?state=PARKED").await.ok(200);
        assert_eq!(listed["items"][0]["sagaId"], saga_id.to_string());
        let answer = app
            .get(&format!("/ticketing/process/{ticket}"))
            .await
            .ok(200);
        assert_eq!(answer["failure"], parked["parked"]);
        let metrics = app
            .client
            .get(app.server().url() + "/metrics")
            .send()
            .await
            .unwrap();
        let metrics = metrics.text().await.unwrap();
        assert!(
            metrics.contains("open_sagas{state=\"PARKED\"} 1"),
            "{metrics}"
        );
        assert_eq!(app.stock(event).await, stock(1, 1, 0, 0));

        // When the cause is repaired and a person resumes it, then it completes.
        let mut repair = Commit::new();
        repair.remove::<Hold>(saga_id);
        app.server().store().commit(repair).await.unwrap();
        let resumed = app.post(&format!("{path}/resume"), Value::Null).await;
        assert_eq!(resumed.status, 202);
        app.progress_becomes(&ticket, "COMPENSATED").await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
        assert_eq!(app.ledger(user).await, entries(&[("GRANTED", 300, 300)]));
        app.post(&format!("{path}/resume"), Value::Null)
            .await
            .refused(409, "SAGA_NOT_PARKED");

        // And the parked requests, replayed, change nothing.
        app.advance(60).await;
        for letter in app.dead_letters("PARKED").await {
            let path = format!("/dead-letter/{}/replay", letter["id"].as_str().unwrap());
            app.post(&path, Value::Null).await.ok(200);
        }
        app.wait_until_idle().await;
        assert_eq!(app.dead_letters("PARKED").await, [] as [Value; 0]);
        assert_eq!(app.ledger(user).await, entries(&[("GRANTED", 300, 300)]));
    })
    .await;
}
