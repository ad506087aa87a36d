//! Several processes do the same at the same moment.

use std::collections::BTreeSet;

use contract::{TicketId, UserId, domain::TicketStatus};
use messaging::{Consumer, Message};
use ticketing::{RedisSettings, Settings, consumers::StockConsumer, reservations::ClaimId};

use crate::{
    idempotency_keys::reserve,
    slow_redis::SlowRedis,
    test_app::{EVENT, START, TestApp, call, cancelled, paid},
};

const ROUNDS: i64 = 60;

#[tokio::test]
async fn two_processes_with_the_same_request_grant_one_ticket_and_answer_the_same() {
    let app = TestApp::with_quantity(1_000).await;
    let (one, other) = (app.another_process(1).await, app.another_process(2).await);
    for user in 1..=ROUNDS {
        let key = format!("key-{user}");
        let (first, second) = futures::join!(
            call(one.clone(), reserve(user, &key)),
            call(other.clone(), reserve(user, &key))
        );
        assert_eq!(first.0, 200, "{}", first.1);
        assert_eq!(first, second);
        let answered: TicketId = first.1["ticketId"].as_str().unwrap().parse().unwrap();
        let held = app.service.reservations().find(EVENT, UserId(user)).await;
        assert_eq!(held.unwrap().unwrap().ticket_id, answered);
    }
    assert_eq!(app.stats().await.waiting, ROUNDS);
}

#[tokio::test]
async fn repeated_requests_over_three_processes_hold_one_ticket_for_each_user() {
    let app = TestApp::with_quantity(20).await;
    let mut processes = Vec::new();
    for seed in 1..=3 {
        processes.push(app.another_process(seed).await);
    }
    let asked =
        (0..30).flat_map(|user| processes.iter().map(move |process| (user, process.clone())));
    let asking = asked.map(async |(user, process)| {
        let mut answers = BTreeSet::new();
        for _ in 0..3 {
            let (status, answer) =
                call(process.clone(), reserve(user, &format!("key-{user}"))).await;
            assert!([200, 409].contains(&status), "{answer}");
            answers.insert((status, answer.to_string()));
        }
        (user, answers)
    });
    let mut by_user = vec![BTreeSet::new(); 30];
    for (user, answers) in futures::future::join_all(asking).await {
        by_user[usize::try_from(user).unwrap()].extend(answers);
    }
    for answers in &by_user {
        assert_eq!(answers.len(), 1, "a key has one answer: {answers:?}");
    }
    let granted = by_user
        .iter()
        .flatten()
        .filter(|(status, _)| *status == 200);
    assert_eq!(granted.count(), 20);
    assert_eq!(app.stats().await.waiting, 20);
}

#[tokio::test]
async fn a_process_that_retakes_a_claim_after_another_has_released_it_leaves_no_claim() {
    let mut app = TestApp::with_quantity(1).await;
    // Given a payment that succeeded after its claim expired,
    let ticket_id = app.purchase(1).await;
    app.expire(ticket_id, 1).await;
    let payment = paid(ticket_id, 1, 3);
    let message = Message::new("paid", &payment, START);
    // and a process that pauses before it retakes the claim;
    let redis = SlowRedis::connect(&app.settings.redis.url).await;
    let settings = Settings {
        redis: RedisSettings {
            url: redis.url.clone(),
            call_timeout_millis: 60_000,
            ..app.settings.redis.clone()
        },
        ..app.settings.clone()
    };
    let paused = app.another_service(1, &settings).await;
    // its script for completing claims is loaded before.
    let none = ClaimId {
        event_id: EVENT,
        user_id: UserId(2),
        ticket_id,
    };
    paused.reservations().complete(&[none]).await.unwrap();
    redis.hold_second();
    let prefetching = tokio::spawn(async move {
        let consumer = StockConsumer(paused);
        let input = consumer.read(&message).unwrap();
        consumer.prefetch(vec![&input]).await.map(drop)
    });
    redis.is_holding().await;

    // When another process issues the ticket and cancels it meanwhile,
    app.deliver(&payment).await;
    assert_eq!(
        app.ticket_status(ticket_id).await,
        Some(TicketStatus::Reserved)
    );
    app.deliver(&cancelled(ticket_id, 1, 4)).await;
    redis.pass_all();
    prefetching.await.unwrap().unwrap();

    // then the ticket is on sale.
    assert_eq!(app.stats().await.available, 1);
    assert_eq!(app.check_consistency().await, 0);
}
