//! Waits until no saga, message, dead letter or payment is pending in any schema and no group has a lag. Then checks the
//! invariants between four schemas, the gateway, the stock and the answers to buyers.

use std::collections::HashSet;

use boxoffice::audit::{Books, books::subscriptions, checks};
use contract::{
    EventId, TicketId,
    domain::{PaymentStatus, TicketStatus},
    topic,
};
use futures::future;
use messaging::{Clock, Group, Snapshot, StoreError};
use payment::record::Refund;
use test_support::{Polling, eventually};
use ticketing::reservations::ClaimSnapshot;

use crate::{
    buyer::{BuyerOutcome, stock},
    deployment::{Deployment, POLL_INTERVAL, SCHEMAS, TIMEOUT},
};

/// Waits until nothing is pending and no reservation waits for a payment.
pub async fn wait_until_idle(deployment: &Deployment, events: &[i64]) -> Books {
    let polling = Polling {
        interval: POLL_INTERVAL * 3,
        timeout: TIMEOUT,
    };
    eventually(polling, "nothing is pending", async || {
        let idle = try_idle(deployment, events).await;
        idle.map_err(|busy| busy.0)
    })
    .await
}

/// Describes what is pending, for the message of a failed test.
pub async fn describe_remaining_work(deployment: &Deployment) -> String {
    let books = idle_books(deployment).await.err().map(|it| it.0);
    let mut lags = Vec::new();
    for Group { name, topics } in subscriptions() {
        let lag = messaging::kafka::lag(&deployment.kafka(), name, topics).await;
        lags.push(format!("{name}: {lag:?}"));
    }
    format!("{books:?}; lags {lags:?}")
}

/// Something is pending, or an engine has just restarted and is not ready.
struct Busy(String);

impl From<StoreError> for Busy {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// Reads the books after every message was handled. The first read only tells when the brokers are worth a query.
async fn try_idle(deployment: &Deployment, events: &[i64]) -> Result<Books, Busy> {
    for event in events {
        let stock = stock(deployment, *event).await;
        if stock["waiting"] != 0 {
            return Err(Busy(format!("reservations of event {event}: {stock}")));
        }
    }
    idle_books(deployment).await?;
    match consumer_lag(deployment).await? {
        0 => idle_books(deployment).await,
        count => Err(Busy(format!("{count} messages not handled"))),
    }
}

/// All books if nothing is pending in them.
async fn idle_books(deployment: &Deployment) -> Result<Books, Busy> {
    let settings = SCHEMAS.map(|schema| deployment.postgres(schema));
    let reading = tokio::task::spawn_blocking(move || {
        let snapshots = settings.iter().map(Snapshot::open_postgres);
        let snapshots: Vec<_> = snapshots.collect::<Result<_, _>>()?;
        let mut unpublished = 0;
        for snapshot in &snapshots {
            unpublished += snapshot.pending("nobody", topic::ALL)?.len();
        }
        Ok::<_, StoreError>((Books::read_all(&snapshots)?, unpublished))
    });
    let (books, unpublished) = reading.await.unwrap()?;
    let counts = books.counts();
    let at_gateway = books.payments.values().filter(|payment| {
        payment.status == PaymentStatus::Confirming || payment.refund == Refund::Requested
    });
    let open = [
        ("sagas", counts.open_sagas),
        ("unpublished messages", unpublished),
        ("unpublished messages to a group", counts.messages_under_way),
        ("dead letters", counts.open_dead_letters),
        ("payments at the gateway", at_gateway.count()),
    ];
    if open.iter().all(|(_, count)| *count == 0) {
        return Ok(books);
    }
    Err(Busy(format!("{open:?}")))
}

/// Number of records that some group has not handled.
async fn consumer_lag(deployment: &Deployment) -> Result<i64, StoreError> {
    let (kafka, groups) = (deployment.kafka(), subscriptions());
    let asked = groups
        .iter()
        .map(|it| messaging::kafka::lag(&kafka, it.name, it.topics));
    Ok(future::try_join_all(asked).await?.into_iter().sum())
}

/// Invariants that hold once nothing is pending.
pub async fn hold(
    deployment: &Deployment,
    events: &[i64],
    outcomes: &[BuyerOutcome],
    books: &Books,
) {
    assert_eq!(checks::check(books, Clock::System.now()), []);
    let counts = books.counts();
    assert_eq!(
        (
            counts.parked_sagas,
            counts.parked_refunds,
            counts.parked_orphan_charges
        ),
        (0, 0, 0)
    );
    for outcome in outcomes {
        outcome_is_as_answered(books, outcome);
    }
    money_is_where_it_belongs(deployment, books);
    every_message_was_handled(deployment).await;
    redis_says_the_same(deployment, events, books).await;
    for event in events {
        stock_is_conserved(deployment, *event, books).await;
    }
}

fn outcome_is_as_answered(books: &Books, outcome: &BuyerOutcome) {
    let status = |id: &TicketId| books.tickets.get(id).map(|ticket| ticket.status);
    let (ticket, expected) = match outcome {
        BuyerOutcome::Owns(id) => (id, Some(TicketStatus::Reserved)),
        BuyerOutcome::Cancelled(id) => (id, Some(TicketStatus::Cancelled)),
        BuyerOutcome::Released(id) | BuyerOutcome::Compensated(id) | BuyerOutcome::Expired(id) => {
            (id, None)
        }
        BuyerOutcome::SoldOut(_) | BuyerOutcome::ReservationUnknown => return,
    };
    assert_eq!(status(ticket), expected, "{outcome:?}");
}

/// Every ticket has its payment, every payment its charge, and every charge a ticket or its refund.
fn money_is_where_it_belongs(deployment: &Deployment, books: &Books) {
    let owned = books.tickets.values();
    let owned = owned.filter(|ticket| ticket.status == TicketStatus::Reserved);
    let kept = books.payments.values();
    let kept = kept.filter(|payment| payment.status == PaymentStatus::Succeeded);
    let kept: Vec<_> = kept.collect();
    assert_eq!(owned.count(), kept.len(), "tickets, and payments kept");
    let sum: i64 = kept.iter().map(|payment| payment.final_amount.get()).sum();
    let gateway = deployment.gateway.books();
    assert_eq!((gateway.held, gateway.orders_charged_twice), (sum, vec![]));
}

/// No message was lost. A row leaves an outbox when the brokers have acknowledged it, and the outboxes are empty; so
/// every committed message is a record. Each group that reads its topic has an inbox mark, which is written in the
/// transaction of the work or of the dead letter. (Reissues of one dead letter share a mark, and no dead letter is open.)
async fn every_message_was_handled(deployment: &Deployment) {
    let records = messaging::kafka::scan(&deployment.kafka(), topic::ALL).await;
    let records = records.unwrap();
    let settings = SCHEMAS.map(|schema| deployment.postgres(schema));
    let reading = tokio::task::spawn_blocking(move || {
        let marks_of = |group: &str| -> HashSet<String> {
            let snapshots = settings.iter().map(Snapshot::open_postgres);
            let marks = snapshots.map(|it| it.unwrap().handled(group).unwrap());
            marks.flatten().collect()
        };
        let groups = subscriptions().into_iter();
        groups
            .map(|group| (group, marks_of(group.name)))
            .collect::<Vec<_>>()
    });
    for (Group { name, topics }, marks) in reading.await.unwrap() {
        let lost = records
            .iter()
            .filter(|it| it.reissue.is_none() && it.is_for(name, topics))
            .filter(|it| !marks.contains(&it.id));
        let lost: Vec<_> = lost.map(|it| (&it.topic, &it.id)).collect();
        assert!(lost.is_empty(), "{name} has not handled {lost:?}");
    }
}

/// Redis has exactly the claims of the tickets in the database.
async fn redis_says_the_same(deployment: &Deployment, events: &[i64], books: &Books) {
    let events: Vec<EventId> = events.iter().map(|event| EventId(*event)).collect();
    let claims = ClaimSnapshot::read_all(&deployment.redis(), &events).await;
    let claims = claims.unwrap();
    for event in events {
        let tickets = books.tickets.values();
        let owned = tickets.filter(|it| it.event_id == event);
        let owned = owned.filter(|it| it.status == TicketStatus::Reserved);
        let expected = ClaimSnapshot {
            completed: owned.map(|it| it.ticket_id).collect(),
            ..ClaimSnapshot::default()
        };
        assert_eq!(claims.get(&event), Some(&expected), "event {event}");
    }
}

/// The stock in Redis equals that of the database, and every unsold ticket is available.
async fn stock_is_conserved(deployment: &Deployment, event: i64, books: &Books) {
    let tickets = books.tickets.values();
    let owned = tickets.filter(|it| it.event_id.0 == event && it.status == TicketStatus::Reserved);
    let owned = i64::try_from(owned.count()).unwrap();
    let stock = stock(deployment, event).await;
    let count = |name: &str| {
        let count = stock[name].as_i64();
        count.unwrap_or_else(|| panic!("{name}: {stock}"))
    };
    assert_eq!(
        (count("sold"), count("completed"), count("waiting")),
        (owned, owned, 0),
        "{stock}"
    );
    assert!(owned <= count("quantity"), "{stock}");
    assert_eq!(count("available") + owned, count("quantity"), "{stock}");
}
