//! Several processes get the same keyed request at the same moment.

use std::collections::BTreeSet;

use contract::{TicketId, UserId};

use crate::{
    idempotency_keys::reserve,
    test_app::{EVENT, TestApp, call},
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
