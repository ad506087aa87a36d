//! Killed at every named place where a crash can fall between two effects, early and late in a server's life.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use contract::domain::{PaymentStatus, TicketStatus};
use messaging::{Clock, Commit, Message, Metrics, Store};

use crate::{
    crowd::{EVERYBODY, Kind},
    ledger::Ask,
    server::{Ended, LOOK, PATIENCE, Server},
    theatre::{Ending, Moment, Theatre, seed},
};

/// Every failpoint of the product, and how often a server passes it before it strikes, one server after the other.
/// Each has a test below.
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

/// Where nothing passes over the embedded backends, and what strikes it over the others.
const STRUCK_ELSEWHERE: (&str, &str) = (
    "ticketing.before_answer",
    include_str!("../lost_answers.rs"),
);

#[test]
fn every_failpoint_of_the_product_is_struck() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(crates).unwrap() {
        collect(&entry.unwrap().path().join("src"), &mut found);
    }
    let (elsewhere, test) = STRUCK_ELSEWHERE;
    assert!(found.remove(elsewhere) && test.contains(elsewhere));
    let listed: BTreeSet<String> = FAILPOINTS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(found, listed);
    let tests = include_str!("failpoints.rs");
    for name in listed {
        let is_struck = [
            "strike",
            "strike_beside_poison",
            "strike_cancelling",
            "strike_settler",
        ]
        .iter()
        .any(|strike| tests.contains(&format!("    {strike}(\"{name}\"")));
        assert!(is_struck, "no test strikes {name}");
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

/// Servers that die at this place one after the other on the same folder, and one that brings everything to its end.
async fn strike(name: &str, kinds: &[(Kind, u64)]) {
    let theatre = Theatre::open(seed(name)).await;
    let books = strike_on(theatre, name, kinds).await.close().await;
    assert!(!books.users.is_empty(), "nobody came");
}

async fn strike_on(mut theatre: Theatre, name: &str, kinds: &[(Kind, u64)]) -> Theatre {
    let (_, passes) = FAILPOINTS
        .iter()
        .find(|(listed, _)| *listed == name)
        .unwrap();
    for passes in *passes {
        let failpoints = format!("{name}={passes}*off->return");
        let ended = theatre.round(kinds, &failpoints, Ending::ByItself).await;
        assert_eq!(ended, Ended::Aborted, "{failpoints}");
    }
    theatre
}

/// Messages that nobody can handle.
const POISONED: usize = 2;

/// Buyers of whom most pay, so that the gateway is asked soon.
const PAYING: &[(Kind, u64)] = &[
    (Kind::Pays, 8),
    (Kind::PaysTwiceAtOnce, 4),
    (Kind::PaysAtLast, 2),
    (Kind::NeverPays, 2),
];
/// Buyers whose payments are left to the settler, and who may not want the ticket any more.
const SETTLED: &[(Kind, u64)] = &[
    (Kind::PaysInSilence, 4),
    (Kind::PaysInSilenceAndReleases, 3),
    (Kind::Pays, 2),
];
/// More than a whole crowd is given.
const ANSWERS_OF_A_CROWD_MAX: usize = 100_000;
/// Buyers who let their reservations lapse.
const LAPSING: &[(Kind, u64)] = &[
    (Kind::NeverProcesses, 4),
    (Kind::NeverPays, 4),
    (Kind::IsDeclined, 2),
    (Kind::Pays, 2),
];
/// Buyers who give their tickets back, or whose purchases come to nothing.
const GIVING_BACK: &[(Kind, u64)] = &[
    (Kind::ReleasesAtOnce, 4),
    (Kind::ReleasesWhileProcessing, 4),
    (Kind::IsInactive, 3),
    (Kind::IsPoor, 3),
    (Kind::Pays, 2),
];
/// Buyers of whom the gateway tells by webhooks.
const TOLD_OF: &[(Kind, u64)] = &[(Kind::IsToldOf, 6), (Kind::CancelsTheTicket, 1)];
/// Buyers who do not want their tickets any more.
const CANCELLING: &[(Kind, u64)] = &[(Kind::CancelsTheTicket, 6), (Kind::Pays, 2)];

#[tokio::test]
async fn what_was_not_committed_was_not_answered() {
    strike("store.before_commit", EVERYBODY).await;
}

#[tokio::test]
async fn what_was_committed_and_not_answered_is_answered_to_its_key() {
    strike("store.after_commit", EVERYBODY).await;
}

#[tokio::test]
async fn what_was_not_cleaned_away_to_its_end_is_cleaned_away_again() {
    strike("store.before_sweep", EVERYBODY).await;
}

#[tokio::test]
async fn what_was_decided_and_not_submitted_is_decided_again() {
    strike_beside_poison("worker.before_submit").await;
}

#[tokio::test]
async fn what_was_handled_is_not_handled_again() {
    strike_beside_poison("worker.after_commit").await;
}

#[tokio::test]
async fn a_grant_that_was_not_submitted_is_none() {
    strike("ticketing.before_grant", EVERYBODY).await;
}

#[tokio::test]
async fn a_grant_that_was_not_answered_is_answered_to_its_key() {
    strike("ticketing.after_grant", EVERYBODY).await;
}

#[tokio::test]
async fn a_purchase_that_was_accepted_and_not_answered_goes_on() {
    strike("ticketing.after_process", EVERYBODY).await;
}

#[tokio::test]
async fn a_reservation_completed_in_memory_alone_is_completed_again() {
    strike("ticketing.after_complete", PAYING).await;
}

#[tokio::test]
async fn a_reservation_taken_back_in_memory_alone_is_taken_back_again() {
    strike("ticketing.after_take_back", GIVING_BACK).await;
}

#[tokio::test]
async fn a_release_that_was_not_submitted_is_none() {
    strike("ticketing.before_release", GIVING_BACK).await;
}

#[tokio::test]
async fn a_release_that_was_not_answered_holds() {
    strike("ticketing.after_release", GIVING_BACK).await;
}

#[tokio::test]
async fn a_lapse_that_was_not_submitted_comes_again() {
    strike("ticketing.before_lapse", LAPSING).await;
}

#[tokio::test]
async fn a_lapse_that_was_stored_comes_once() {
    strike("ticketing.after_lapse", LAPSING).await;
}

#[tokio::test]
async fn an_answer_that_was_not_saved_behind_its_work_is_given_again() {
    strike("web.before_save", TOLD_OF).await;
}

#[tokio::test]
async fn an_answer_that_was_saved_behind_its_work_is_answered_again() {
    strike("web.after_save", TOLD_OF).await;
}

#[tokio::test]
async fn an_attempt_that_never_reached_the_gateway_is_made_again() {
    strike("payment.before_gateway", PAYING).await;
}

#[tokio::test]
async fn an_attempt_whose_answer_was_heard_and_not_stored_is_looked_up() {
    strike("payment.after_gateway", PAYING).await;
}

#[tokio::test]
async fn an_outcome_that_was_stored_and_not_answered_is_answered_to_its_key() {
    strike("payment.after_confirmed", PAYING).await;
}

#[tokio::test]
async fn a_charge_that_the_gateway_did_not_store_is_asked_for_again() {
    strike("sandbox.before_charge", PAYING).await;
}

#[tokio::test]
async fn a_charge_that_the_gateway_did_not_answer_is_found() {
    strike("sandbox.after_charge", PAYING).await;
}

#[tokio::test]
async fn a_webhook_that_was_not_kept_is_sent_again() {
    strike("payment.before_webhook", TOLD_OF).await;
}

#[tokio::test]
async fn a_webhook_that_was_kept_and_not_answered_serves_once() {
    strike("payment.after_webhook", TOLD_OF).await;
}

#[tokio::test]
async fn a_webhook_that_was_answered_and_had_not_served_serves() {
    strike("settler.before_webhook", TOLD_OF).await;
}

#[tokio::test]
async fn a_webhook_that_has_served_does_not_serve_again() {
    strike("settler.after_webhook", TOLD_OF).await;
}

/// Among those who have paid are some who give their tickets back.
async fn strike_cancelling(name: &str) {
    let theatre = Theatre::open(seed(name)).await;
    let books = strike_on(theatre, name, CANCELLING).await.close().await;
    let mut tickets = books.tickets.values();
    assert!(tickets.any(|ticket| ticket.status == TicketStatus::Cancelled));
}

#[tokio::test]
async fn a_ticket_whose_giving_back_was_not_stored_stands_until_it_is_asked_again() {
    strike_cancelling("ticketing.before_cancel").await;
}

#[tokio::test]
async fn a_ticket_whose_giving_back_was_stored_and_not_answered_goes_back() {
    strike_cancelling("ticketing.after_cancel").await;
}

/// Among those who are settled are some who get their money back.
async fn strike_settler(name: &str) {
    let theatre = Theatre::open(seed(name)).await;
    let mut theatre = strike_on(theatre, name, SETTLED).await;
    // One whole crowd more: before a strike only a few had come, and perhaps none of a kind.
    let when_all_have_come = Ending::Terminate(Moment {
        answers: ANSWERS_OF_A_CROWD_MAX,
        then: Duration::ZERO,
    });
    let ended = theatre.round(SETTLED, "", when_all_have_come).await;
    assert_eq!(ended, Ended::Stopped);
    let books = theatre.close().await;
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
    strike_settler("settler.before_gateway").await;
}

#[tokio::test]
async fn a_settlement_that_the_gateway_answered_is_made_again() {
    strike_settler("settler.after_gateway").await;
}

#[tokio::test]
async fn a_settlement_that_was_stored_is_not_made_again() {
    strike_settler("settler.after_commit").await;
}

#[tokio::test]
async fn a_timer_that_did_not_fire_fires_again() {
    strike_beside_poison("timers.before_fire").await;
}

#[tokio::test]
async fn a_timer_that_fired_does_not_fire_again() {
    strike_beside_poison("timers.after_fire").await;
}

/// As [`strike`], while dead letters come and go.
async fn strike_beside_poison(name: &str) {
    let theatre = strike_on(poisoned(name).await, name, EVERYBODY).await;
    every_poison_is_parked(theatre).await;
}

/// A folder with messages that a consumer will reject again and again, so that timers have something to fire.
async fn poisoned(name: &str) -> Theatre {
    let theatre = Theatre::open(seed(name)).await;
    let tables = boxoffice::app::tables();
    let store = Store::open_embedded(theatre.path(), &tables, Metrics::unregistered()).unwrap();
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
    theatre
}

/// Each was tried as often as it should be, and then left to a person, who discards it.
async fn every_poison_is_parked(theatre: Theatre) {
    let server = Server::start(theatre.path());
    let mut look = tokio::time::interval(LOOK);
    let parked = async {
        loop {
            look.tick().await;
            let page = server.get("/dead-letter?state=PARKED").await;
            let items = page["items"].as_array().unwrap().clone();
            if items.len() == POISONED {
                return items;
            }
        }
    };
    let parked = tokio::time::timeout(PATIENCE, parked).await.unwrap();
    for letter in parked {
        assert_eq!(letter["reissues"], 3, "{letter}");
        let ask = Ask::delete(format!("/dead-letter/{}", letter["id"].as_str().unwrap()));
        assert_eq!(ask.send(&server).await.unwrap().status, 200);
    }
    server.kill().await;
    theatre.close().await;
}
