//! The server crashes at every failpoint between two effects, early and late in its life.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use contract::domain::{PaymentStatus, TicketStatus};
use messaging::{Clock, Commit, Message, Metrics, Store};
use test_support::{api::ApiRequest, eventually, process::ExitKind};

use crate::{
    buyers::{ALL_KINDS, BuyerKind},
    harness::{CrashHarness, Ending, Moment, seed},
    server::{POLLING, Server},
};

/// Every failpoint of the product, and for one server after the other the number of passes before it crashes.
/// Each failpoint has a test below.
const FAILPOINTS: &[(&str, &[usize])] = &[
    ("payment.after_confirmed", &[0, 3, 9]),
    ("payment.after_gateway", &[0, 3, 9]),
    ("payment.after_webhook", &[0, 2, 5]),
    ("payment.before_gateway", &[0, 3, 9]),
    ("payment.before_webhook", &[0, 2, 5]),
    ("sandbox.after_charge", &[0, 2, 5]),
    ("sandbox.before_charge", &[0, 2, 5]),
    ("settler.after_commit", &[0, 1, 6]),
    ("settler.after_gateway", &[0, 1, 6]),
    ("settler.after_webhook", &[0, 1, 4]),
    ("settler.before_gateway", &[0, 2, 9]),
    ("settler.before_webhook", &[0, 1, 4]),
    ("store.after_commit", &[0, 7, 60, 150]),
    ("store.before_commit", &[0, 7, 60, 150]),
    ("store.before_sweep", &[0, 7]),
    ("ticketing.after_cancel", &[0, 2, 5]),
    ("ticketing.after_complete", &[0, 1, 5]),
    ("ticketing.after_grant", &[0, 6, 20]),
    ("ticketing.after_lapse", &[0, 2]),
    ("ticketing.after_process", &[0, 5, 12]),
    ("ticketing.after_release", &[0, 1, 3]),
    ("ticketing.after_take_back", &[0, 1, 3]),
    ("ticketing.before_cancel", &[0, 2, 5]),
    ("ticketing.before_grant", &[0, 6, 20]),
    ("ticketing.before_lapse", &[0, 2]),
    ("ticketing.before_release", &[0, 1, 3]),
    ("timers.after_fire", &[0, 1]),
    ("timers.before_fire", &[0, 1]),
    ("web.after_save", &[0, 3, 8]),
    ("web.before_save", &[0, 3, 8]),
    ("worker.after_commit", &[0, 6, 80]),
    ("worker.before_submit", &[0, 6, 80]),
];

/// The failpoint that only other backends pass, and the test that crashes there.
const TESTED_ELSEWHERE: (&str, &str) = (
    "ticketing.before_answer",
    include_str!("../lost_answers.rs"),
);

#[test]
fn every_failpoint_of_the_product_has_a_crash_test() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(crates).unwrap() {
        collect(&entry.unwrap().path().join("src"), &mut found);
    }
    let (elsewhere, test) = TESTED_ELSEWHERE;
    assert!(found.remove(elsewhere) && test.contains(elsewhere));
    let listed: BTreeSet<String> = FAILPOINTS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(found, listed);
    let tests = include_str!("failpoints.rs");
    for name in listed {
        let is_tested = [
            "crash_at",
            "crash_at_beside_poison",
            "crash_at_while_cancelling",
            "crash_at_in_settler",
        ]
        .iter()
        .any(|crash_at| tests.contains(&format!("    {crash_at}(\"{name}\"")));
        assert!(is_tested, "no test crashes at {name}");
    }
}

fn collect(path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap();
        for place in text.split("fail_point!(").skip(1) {
            found.insert(place.split('"').nth(1).unwrap().to_owned());
        }
    }
}

/// Servers crash here one after the other on the same folder; a last one completes everything.
async fn crash_at(name: &str, kinds: &[(BuyerKind, u64)]) {
    let harness = CrashHarness::open(seed(name)).await;
    let books = crash_harness_at(harness, name, kinds).await.close().await;
    assert!(!books.users.is_empty(), "no user was registered");
}

async fn crash_harness_at(
    mut harness: CrashHarness,
    name: &str,
    kinds: &[(BuyerKind, u64)],
) -> CrashHarness {
    let (_, passes) = FAILPOINTS
        .iter()
        .find(|(listed, _)| *listed == name)
        .unwrap();
    for passes in *passes {
        let failpoints = format!("{name}={passes}*off->return");
        let ended = harness.round(kinds, &failpoints, Ending::ByItself).await;
        assert_eq!(ended, ExitKind::Aborted, "{failpoints}");
    }
    harness
}

/// Number of messages that no consumer can handle.
const POISONED: usize = 2;

/// Most of these buyers pay, so that the gateway is called soon.
const PAYING: &[(BuyerKind, u64)] = &[
    (BuyerKind::Pays, 8),
    (BuyerKind::PaysTwiceAtOnce, 4),
    (BuyerKind::PaysWithSecondCard, 2),
    (BuyerKind::NeverPays, 2),
];
/// Buyers whose payments the settler completes; some release the ticket meanwhile.
const SETTLED: &[(BuyerKind, u64)] = &[
    (BuyerKind::PaysWithLostAnswer, 4),
    (BuyerKind::PaysWithLostAnswerAndReleases, 3),
    (BuyerKind::Pays, 2),
];
/// More answers than one round produces.
const ANSWERS_OF_A_CROWD_MAX: usize = 100_000;
/// Buyers whose reservations expire.
const EXPIRING: &[(BuyerKind, u64)] = &[
    (BuyerKind::NeverProcesses, 4),
    (BuyerKind::NeverPays, 4),
    (BuyerKind::IsDeclined, 2),
    (BuyerKind::Pays, 2),
];
/// Buyers who release their reservations, or whose purchases are compensated.
const RELEASING: &[(BuyerKind, u64)] = &[
    (BuyerKind::ReleasesAtOnce, 4),
    (BuyerKind::ReleasesWhileProcessing, 4),
    (BuyerKind::IsInactive, 3),
    (BuyerKind::LacksPoints, 3),
    (BuyerKind::Pays, 2),
];
/// Buyers whose payments are reported by webhooks.
const NOTIFIED: &[(BuyerKind, u64)] = &[
    (BuyerKind::NotifiedByWebhook, 6),
    (BuyerKind::CancelsTheTicket, 1),
];
/// Buyers who cancel their tickets.
const CANCELLING: &[(BuyerKind, u64)] = &[(BuyerKind::CancelsTheTicket, 6), (BuyerKind::Pays, 2)];

#[tokio::test]
async fn an_uncommitted_request_is_not_answered() {
    crash_at("store.before_commit", ALL_KINDS).await;
}

#[tokio::test]
async fn a_committed_but_unanswered_request_is_answered_on_retry_with_its_key() {
    crash_at("store.after_commit", ALL_KINDS).await;
}

#[tokio::test]
async fn an_interrupted_cleanup_is_repeated() {
    crash_at("store.before_sweep", ALL_KINDS).await;
}

#[tokio::test]
async fn a_decision_that_was_not_submitted_is_made_again() {
    crash_at_beside_poison("worker.before_submit").await;
}

#[tokio::test]
async fn a_handled_message_is_not_handled_again() {
    crash_at_beside_poison("worker.after_commit").await;
}

#[tokio::test]
async fn a_grant_that_was_not_submitted_does_not_exist() {
    crash_at("ticketing.before_grant", ALL_KINDS).await;
}

#[tokio::test]
async fn an_unanswered_grant_is_answered_on_retry_with_its_key() {
    crash_at("ticketing.after_grant", ALL_KINDS).await;
}

#[tokio::test]
async fn an_accepted_but_unanswered_purchase_continues() {
    crash_at("ticketing.after_process", ALL_KINDS).await;
}

#[tokio::test]
async fn a_reservation_completed_only_in_memory_is_completed_again() {
    crash_at("ticketing.after_complete", PAYING).await;
}

#[tokio::test]
async fn a_reservation_freed_only_in_memory_is_freed_again() {
    crash_at("ticketing.after_take_back", RELEASING).await;
}

#[tokio::test]
async fn a_release_that_was_not_submitted_has_no_effect() {
    crash_at("ticketing.before_release", RELEASING).await;
}

#[tokio::test]
async fn an_unanswered_release_holds() {
    crash_at("ticketing.after_release", RELEASING).await;
}

#[tokio::test]
async fn an_expiry_that_was_not_submitted_is_repeated() {
    crash_at("ticketing.before_lapse", EXPIRING).await;
}

#[tokio::test]
async fn a_stored_expiry_happens_once() {
    crash_at("ticketing.after_lapse", EXPIRING).await;
}

#[tokio::test]
async fn an_answer_that_was_not_saved_after_its_work_is_produced_again() {
    crash_at("web.before_save", NOTIFIED).await;
}

#[tokio::test]
async fn an_answer_that_was_saved_after_its_work_is_replayed() {
    crash_at("web.after_save", NOTIFIED).await;
}

#[tokio::test]
async fn an_attempt_that_never_reached_the_gateway_is_made_again() {
    crash_at("payment.before_gateway", PAYING).await;
}

#[tokio::test]
async fn an_attempt_whose_answer_was_not_stored_is_looked_up() {
    crash_at("payment.after_gateway", PAYING).await;
}

#[tokio::test]
async fn a_stored_but_unanswered_outcome_is_answered_on_retry_with_its_key() {
    crash_at("payment.after_confirmed", PAYING).await;
}

#[tokio::test]
async fn a_charge_that_the_gateway_did_not_store_is_requested_again() {
    crash_at("sandbox.before_charge", PAYING).await;
}

#[tokio::test]
async fn an_unanswered_charge_is_found_at_the_gateway() {
    crash_at("sandbox.after_charge", PAYING).await;
}

#[tokio::test]
async fn a_webhook_that_was_not_stored_is_sent_again() {
    crash_at("payment.before_webhook", NOTIFIED).await;
}

#[tokio::test]
async fn a_stored_but_unanswered_webhook_is_applied_once() {
    crash_at("payment.after_webhook", NOTIFIED).await;
}

#[tokio::test]
async fn an_answered_webhook_that_was_not_yet_applied_is_applied() {
    crash_at("settler.before_webhook", NOTIFIED).await;
}

#[tokio::test]
async fn an_applied_webhook_is_not_applied_again() {
    crash_at("settler.after_webhook", NOTIFIED).await;
}

/// Some of the paid tickets are cancelled.
async fn crash_at_while_cancelling(name: &str) {
    let harness = CrashHarness::open(seed(name)).await;
    let books = crash_harness_at(harness, name, CANCELLING)
        .await
        .close()
        .await;
    let mut tickets = books.tickets.values();
    assert!(tickets.any(|ticket| ticket.status == TicketStatus::Cancelled));
}

#[tokio::test]
async fn a_ticket_whose_cancellation_was_not_stored_stays_valid_until_the_next_request() {
    crash_at_while_cancelling("ticketing.before_cancel").await;
}

#[tokio::test]
async fn a_ticket_whose_cancellation_was_stored_but_not_answered_is_cancelled() {
    crash_at_while_cancelling("ticketing.after_cancel").await;
}

/// Some of the settled payments are refunded.
async fn crash_at_in_settler(name: &str) {
    let harness = CrashHarness::open(seed(name)).await;
    let mut harness = crash_harness_at(harness, name, SETTLED).await;
    // One complete round more: before the crashes only a few buyers acted, and perhaps none of a kind.
    let when_all_have_come = Ending::Terminate(Moment {
        answers: ANSWERS_OF_A_CROWD_MAX,
        then: Duration::ZERO,
    });
    let ended = harness.round(SETTLED, "", when_all_have_come).await;
    assert_eq!(ended, ExitKind::Stopped);
    let books = harness.close().await;
    let has = |status| {
        books
            .payments
            .values()
            .any(|payment| payment.status == status)
    };
    assert!(has(PaymentStatus::Succeeded) && has(PaymentStatus::Cancelled));
}

#[tokio::test]
async fn a_settlement_that_had_not_begun_begins_again() {
    crash_at_in_settler("settler.before_gateway").await;
}

#[tokio::test]
async fn a_settlement_whose_gateway_answer_was_not_stored_is_repeated() {
    crash_at_in_settler("settler.after_gateway").await;
}

#[tokio::test]
async fn a_stored_settlement_is_not_repeated() {
    crash_at_in_settler("settler.after_commit").await;
}

#[tokio::test]
async fn a_timer_that_did_not_fire_fires_again() {
    crash_at_beside_poison("timers.before_fire").await;
}

#[tokio::test]
async fn a_timer_that_fired_does_not_fire_again() {
    crash_at_beside_poison("timers.after_fire").await;
}

/// As [`crash_at`], with dead letters in the folder.
async fn crash_at_beside_poison(name: &str) {
    let harness = crash_harness_at(poisoned(name).await, name, ALL_KINDS).await;
    every_poison_is_parked(harness).await;
}

/// A folder with messages that a consumer always rejects, so that retry timers fire.
async fn poisoned(name: &str) -> CrashHarness {
    let harness = CrashHarness::open(seed(name)).await;
    let tables = boxoffice::app::tables();
    let store = Store::open_embedded(
        boxoffice::backends::data_folder(harness.path()),
        &tables,
        Metrics::unregistered(),
    )
    .unwrap();
    let mut commit = Commit::new();
    for number in 0..POISONED {
        commit.publish(Message {
            id: format!("poison-{number}"),
            topic: "payment.create.request".to_owned(),
            key: number.to_string(),
            subject: None,
            time: Clock::System.now(),
            payload: "{}".to_owned(),
            reissue: None,
            trace: None,
        });
    }
    store.commit(commit).await.unwrap();
    harness
}

/// Each message was retried up to its limit and then parked; the test discards it.
async fn every_poison_is_parked(harness: CrashHarness) {
    let server = Server::start(harness.path());
    let parked = eventually(POLLING, "every message is parked", async || {
        let page = server.get("/dead-letter?state=PARKED").await;
        let items = page["items"].as_array().unwrap().clone();
        if items.len() == POISONED {
            Ok(items)
        } else {
            Err(page)
        }
    })
    .await;
    for letter in parked {
        assert_eq!(letter["reissues"], 3, "{letter}");
        let request =
            ApiRequest::delete(format!("/dead-letter/{}", letter["id"].as_str().unwrap()));
        assert_eq!(server.send(&request).await.unwrap().status, 200);
    }
    server.kill();
    harness.close().await;
}
