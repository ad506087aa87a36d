//! Faults of messaging: inbox marks, acknowledgements, sends, ids.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use messaging::{Commit, Message};
use serde_json::Value;
use ticketing::ReservationsBackend;

use crate::{
    actions::{entries, stock},
    failing_writes::FailingWrites,
    test_app::{TIMEOUT, TestApp, on_every_deployment},
};

/// Makes the `nth` pass of this thread at the failpoint panic, which ends this test's app.
fn die_at(place: &str, nth: usize) {
    let (this, count) = (thread::current().id(), Arc::new(AtomicUsize::new(0)));
    let come_by = move || {
        if thread::current().id() == this && count.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            panic!("the test ends the app here");
        }
    };
    fail::cfg_callback(place, come_by).unwrap();
}

#[tokio::test]
async fn an_inbox_mark_is_never_stored_without_its_work_nor_the_work_without_its_mark() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(100).await;
        let mut sold = 0;
        for place in ["worker.before_submit", "worker.after_commit"] {
            for nth in 1..=9 {
                // Given a worker that panics during the purchase.
                let user = app.user(300).await;
                let ticket = app.reserved(event, user).await;
                app.wait_until_idle().await;
                die_at(place, nth);
                app.process(&ticket, event, user, 300).await.ok(202);
                let died = app.server.as_mut().unwrap().failed();
                let died = tokio::time::timeout(TIMEOUT, died).await.unwrap();
                assert!(died.ends_with("task has ended"), "{died}");
                fail::remove(place);

                // Then the next one completes the purchase by itself, and does nothing twice.
                app.restart().await;
                let purchase = app.payable_purchase(&ticket).await;
                assert_eq!(
                    app.ledger(user).await,
                    entries(&[("GRANTED", 300, 300), ("RESERVED", -300, 0)]),
                    "{place} {nth}"
                );
                assert_eq!(
                    app.payment_history(&purchase).await,
                    ["CREATED"],
                    "{place} {nth}"
                );
                app.paid(&purchase, &format!("card-{place}-{nth}")).await;
                // Brokers without an acknowledgement deliver the message again, and the inbox drops it.
                if app.environment().is_folder() {
                    let duplicates = counted(app, "messages_duplicate_total", "").await;
                    assert_eq!(duplicates, 0, "{place} {nth}");
                }
                assert_ne!(counted(app, "messages_handled_total", "").await, 0);
                sold += 1;
                assert_eq!(app.stock(event).await, stock(100, 0, sold, 100 - sold));
            }
        }
        let published: Vec<String> = app.published().await.into_iter().map(|it| it.id).collect();
        let ids: BTreeSet<&String> = published.iter().collect();
        assert_eq!(
            ids.len(),
            published.len(),
            "a message was published twice: {published:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_message_is_not_acknowledged_while_its_dead_letter_cannot_be_written() {
    on_every_deployment(async |app: &mut TestApp| {
        // Given a store that cannot write dead letters.
        let failing = FailingWrites::messages(app, "common.dlt").await;
        let mut commit = Commit::new();
        commit.publish(Message {
            id: "poison".to_owned(),
            topic: "payment.create.request".to_owned(),
            key: "poison".to_owned(),
            subject: None,
            time: app.clock.now(),
            payload: "{ not json".to_owned(),
            reissue: None,
            trace: None,
        });
        app.server().store().commit(commit).await.unwrap();

        // When the message has been tried in more than one batch, it is still pending.
        let tried =
            async { while counted(app, "messages_rejected_total", "payment").await < 20 {} };
        tokio::time::timeout(TIMEOUT, tried)
            .await
            .expect("the message was given up");
        assert_ne!(app.under_way().await, [] as [String; 0]);
        assert_eq!(app.dead_letters("WAITING").await, [] as [Value; 0]);

        // It becomes a dead letter once one can be written.
        failing.end(app).await;
        let letter = app.dead_letter("WAITING").await;
        assert_eq!(letter["letter"]["messageId"], "poison");
        app.dead_letters_left = 1;
    })
    .await;
}

/// The sum of a counter since the last start, over groups whose label contains `group`.
async fn counted(app: &TestApp, name: &str, group: &str) -> u64 {
    let url = app.server().url() + "/metrics";
    let response = app.client.get(url).send().await.unwrap();
    let text = response.text().await.unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#') && line.contains(name) && line.contains(group))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test]
async fn no_request_is_answered_as_done_if_its_message_could_not_be_stored() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);

        // A reservation that cannot be written does not exist, and its ticket is free. In Redis it needs no row.
        if app.config.ticketing.reservations == ReservationsBackend::Local {
            let failing = FailingWrites::rows(app, "reservation", "true").await;
            let answer = app.reserve(event, user).await;
            assert!(answer.status >= 500, "{answer:?}");
            assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
            failing.end(app).await;
        }
        let ticket = app.reserved(event, user).await;

        // A purchase whose message cannot be stored has not begun, and can be begun again.
        let failing = FailingWrites::messages(app, "ticketing.process").await;
        let answer = app.process(&ticket, event, user, 300).await;
        assert!(answer.status >= 500, "{answer:?}");
        let progress = app.get(&format!("/ticketing/process/{ticket}")).await;
        progress.refused(404, "PROCESS_NOT_FOUND");
        failing.end(app).await;
        let purchase = app.processed(&ticket, event, user, 300).await;

        // A payment whose outcome cannot be stored is answered as pending, and is settled later.
        let failing = FailingWrites::messages(app, "payment.confirmed.request").await;
        let pending = app.pay(&purchase, "card-1").await.ok(202);
        assert_eq!(pending["status"], "CONFIRMING");
        failing.end(app).await;
        app.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
        app.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn every_message_id_is_derived_from_its_subject() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = app.purchase(event, user, 300).await;
        app.paid(&purchase, "card-1").await;
        app.wait_until_idle().await;

        let (ticket, saga, payment) = (&purchase.ticket, &purchase.saga, &purchase.payment);
        let request = |step: usize| format!("{saga}:{step}:REQUEST:1");
        let mut expected = BTreeSet::from([
            format!("event:{event}:1"),
            format!("{ticket}:process"),
            format!("{payment}:confirmed:1:card-1"),
            format!("ticket:{ticket}:1"),
            format!("{saga}:check.active:response:{}", request(0)),
            format!("{saga}:reserve.point:response:{}", request(1)),
            format!("{saga}:check.fraud:response:{}", request(2)),
            format!("{}:response", request(3)),
        ]);
        expected.extend((0..4).map(request));
        expected.extend((1..=3).map(|version| format!("payment:{payment}:{version}")));

        let published = app.published().await;
        let ids: Vec<String> = published.into_iter().map(|message| message.id).collect();
        assert_eq!(ids.len(), expected.len(), "{ids:?}");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), expected);
    })
    .await;
}
