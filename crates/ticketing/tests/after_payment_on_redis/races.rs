//! Two processes are asked the same at the same moment.

use std::collections::BTreeSet;

use contract::{TicketId, UserId};

use crate::{
    house::{EVENT, House, call},
    keys::reserve,
};

const ROUNDS: i64 = 60;

#[tokio::test]
async fn two_processes_that_are_asked_at_once_grant_one_ticket_and_tell_the_same() {
    let house = House::with_quantity(1_000).await;
    let (one, other) = (house.another_door(1).await, house.another_door(2).await);
    for user in 1..=ROUNDS {
        let key = format!("key-{user}");
        let (first, second) = futures::join!(
            call(one.clone(), reserve(user, &key)),
            call(other.clone(), reserve(user, &key))
        );
        assert_eq!(first.0, 200, "{}", first.1);
        assert_eq!(first, second);
        let told: TicketId = first.1["ticketId"].as_str().unwrap().parse().unwrap();
        let held = house.service.reservations().find(EVENT, UserId(user)).await;
        assert_eq!(held.unwrap().unwrap().ticket_id, told);
    }
    assert_eq!(house.stats().await.waiting, ROUNDS);
}

#[tokio::test]
async fn a_crowd_over_three_processes_that_asks_again_and_again_holds_one_ticket_each() {
    let house = House::with_quantity(20).await;
    let mut doors = Vec::new();
    for seed in 1..=3 {
        doors.push(house.another_door(seed).await);
    }
    let asked = (0..30).flat_map(|user| doors.iter().map(move |door| (user, door.clone())));
    let asking = asked.map(async |(user, door)| {
        let mut answers = BTreeSet::new();
        for _ in 0..3 {
            let (status, answer) = call(door.clone(), reserve(user, &format!("key-{user}"))).await;
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
    assert_eq!(house.stats().await.waiting, 20);
}
