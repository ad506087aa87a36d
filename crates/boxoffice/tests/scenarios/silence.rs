//! A participant that does not answer: asked again, then everything is undone, and what cannot be undone waits for a
//! person.
//!
//! A participant is made silent by a request in the saga's name that contradicts the saga's own: what it then asks for
//! is rejected, and never answered.

use contract::{
    EventId, Money, Points, SagaId, TicketId, UserId, payment::CreateRequest,
    user::ReservePointRequest,
};
use messaging::Commit;
use serde_json::Value;
use user::points::Hold;

use crate::{
    desk::{entries, pairs, payment_of, saga_of, stock},
    house::{House, play},
};

/// Makes the payment service silent towards a purchase that is still to begin.
async fn silence_payment(house: &mut House, ticket: &str, event: i64, user: i64) {
    let other = CreateRequest {
        saga_id: saga_of(ticket),
        ticket_id: ticket.parse::<TicketId>().unwrap(),
        event_id: EventId(event),
        user_id: UserId(user),
        total_amount: Money::new(1).unwrap(),
        point: Points::ZERO,
        expires_at: None,
    };
    house.send(&other).await;
    house.discard_only_dead_letter().await;
}

async fn count_said(house: &House, saga: SagaId, topic: &str) -> usize {
    let said = house.said(&saga.to_string()).await;
    said.iter().filter(|said| *said == topic).count()
}

async fn saga(house: &House, saga: SagaId) -> Value {
    house.get(&format!("/saga/{saga}")).await.ok(200)
}

#[tokio::test]
async fn a_silent_participant_is_asked_four_times_and_then_undone_first() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let ticket = house.reserved(event, user).await;
        silence_payment(house, &ticket, event, user).await;
        let saga = saga_of(&ticket);
        house.process(&ticket, event, user, 300).await.ok(202);

        // It is asked again every ten seconds.
        let path = format!("/saga/{saga}");
        house
            .eventually(&path, |it| it["currentStep"] == "payment.create")
            .await;
        house.rest().await;
        let rejected = house.dead_letters("WAITING").await.len();
        assert_eq!(rejected, 1);
        for asked in 2..=4 {
            house.pass(10).await;
            let letters: Vec<_> = [
                house.dead_letters("WAITING").await,
                house.dead_letters("PARKED").await,
            ]
            .concat();
            assert_eq!(letters.len(), asked);
            assert_eq!(
                house
                    .progress_becomes(&ticket, "STARTED")
                    .await
                    .get("failure"),
                None
            );
        }

        // Then the purchase turns back, and begins with what it does not know the outcome of.
        house.pass(10).await;
        let progress = house.progress_becomes(&ticket, "COMPENSATED").await;
        let failure = progress["failure"].as_str().unwrap();
        assert_eq!(
            failure,
            "payment.create: no answer to the request after attempt 4"
        );
        assert_eq!(
            house.steps(saga).await,
            pairs(&[
                ("user.check.active", "SUCCEEDED"),
                ("user.reserve.point", "COMPENSATED"),
                ("user.check.fraud", "SUCCEEDED"),
                ("payment.create", "COMPENSATED"),
            ])
        );
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        assert_eq!(house.points(user).await, 300);
        let payment = house
            .get(&format!("/payment/{}", payment_of(&ticket)))
            .await
            .ok(200);
        assert_eq!(payment["status"], "DELETED");
        house.dead_letters_left = 4;
    })
    .await;
}

#[tokio::test]
async fn a_release_during_a_purchase_undoes_it_in_reverse_order_without_waiting_for_an_answer() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let ticket = house.reserved(event, user).await;
        silence_payment(house, &ticket, event, user).await;
        house.process(&ticket, event, user, 300).await.ok(202);
        let saga = saga_of(&ticket);
        let path = format!("/saga/{saga}");
        house
            .eventually(&path, |it| it["currentStep"] == "payment.create")
            .await;

        house.release(&ticket).await.ok(204);
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
        let progress = house.progress_becomes(&ticket, "COMPENSATED").await;
        assert_eq!(progress["failure"], "RESERVATION_EXPIRED");
        house.rest().await;
        let said = house.said(&saga.to_string()).await;
        let undoing = said
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
        assert_eq!(count_said(house, saga, "payment.create.request").await, 2);
        assert_eq!(
            house.ledger(user).await,
            entries(&[
                ("GRANTED", 300, 300),
                ("RESERVED", -300, 0),
                ("RESTORED", 300, 300)
            ])
        );
        house.dead_letters_left = 1;
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_undone_is_parked_where_people_see_it_and_goes_on_when_they_say_so() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let stranger = house.user(0).await;
        let ticket = house.reserved(event, user).await;
        let saga_id = saga_of(&ticket);

        // Given the user service will neither take nor give back points for this purchase.
        let foreign = ReservePointRequest {
            saga_id,
            user_id: UserId(stranger),
            point: Points::ZERO,
        };
        house.send(&foreign).await;
        house.discard_only_dead_letter().await;
        house.process(&ticket, event, user, 300).await.ok(202);
        house.rest().await;

        // When it has been asked often enough, then the purchase stands still and says so.
        let path = format!("/saga/{saga_id}");
        house
            .post(&format!("{path}/resume"), Value::Null)
            .await
            .refused(409, "SAGA_NOT_PARKED");
        house.pass_until(&path, |it| it["parked"].is_string()).await;
        let parked = saga(house, saga_id).await;
        assert_eq!(parked["sagaState"], "COMPENSATING");
        assert_eq!(
            parked["parked"],
            "user.reserve.point: no answer to the compensation after attempt 21"
        );
        let listed = house.get("/saga?state=PARKED").await.ok(200);
        assert_eq!(listed["items"][0]["sagaId"], saga_id.to_string());
        let told = house
            .get(&format!("/ticketing/process/{ticket}"))
            .await
            .ok(200);
        assert_eq!(told["failure"], parked["parked"]);
        let metrics = house
            .client
            .get(house.app().url() + "/metrics")
            .send()
            .await
            .unwrap();
        let metrics = metrics.text().await.unwrap();
        assert!(
            metrics.contains("open_sagas{state=\"PARKED\"} 1"),
            "{metrics}"
        );
        assert_eq!(house.stock(event).await, stock(1, 1, 0, 0));

        // When the reason is gone and a person says so, then it ends.
        let mut repair = Commit::new();
        repair.remove::<Hold>(saga_id);
        house.app().store().commit(repair).await.unwrap();
        let resumed = house.post(&format!("{path}/resume"), Value::Null).await;
        assert_eq!(resumed.status, 202);
        house.progress_becomes(&ticket, "COMPENSATED").await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
        assert_eq!(house.ledger(user).await, entries(&[("GRANTED", 300, 300)]));
        house
            .post(&format!("{path}/resume"), Value::Null)
            .await
            .refused(409, "SAGA_NOT_PARKED");

        // And what was asked in vain, sent once more, finds the purchase over.
        house.pass(60).await;
        for letter in house.dead_letters("PARKED").await {
            let path = format!("/dead-letter/{}/replay", letter["id"].as_str().unwrap());
            house.post(&path, Value::Null).await.ok(200);
        }
        house.rest().await;
        assert_eq!(house.dead_letters("PARKED").await, [] as [Value; 0]);
        assert_eq!(house.ledger(user).await, entries(&[("GRANTED", 300, 300)]));
    })
    .await;
}
