//! Everything at rest: no saga, message, dead letter or payment under way in any schema, and nothing that a group has
//! yet to handle. And what must hold then, between four schemas, the gateway, the stock and what buyers were told.

use boxoffice::audit::{Books, books::subscriptions, checks};
use contract::{
    TicketId,
    domain::{PaymentStatus, TicketStatus},
    topic,
};
use futures::future;
use messaging::{Clock, Kafka, Metrics, Snapshot, Store, StoreError};
use payment::record::Refund;
use tokio::time::Instant;

use crate::{
    buyer::{Outcome, stock},
    deployment::{Deployment, INBOX_SECS, LOOK, PATIENCE, SCHEMAS},
};

/// Waits until nothing is under way.
pub async fn come_to_rest(deployment: &Deployment) -> Books {
    let mut left = String::new();
    let resting = async {
        let mut look = tokio::time::interval(LOOK * 3);
        loop {
            look.tick().await;
            match rested(deployment).await {
                Ok(books) => return books,
                Err(Unrest(what)) => left = what,
            }
        }
    };
    let rested = tokio::time::timeout(PATIENCE, resting).await;
    rested.unwrap_or_else(|_| panic!("it never came to rest: {left}"))
}

/// What is under way; or an engine that has just come back and is not ready.
struct Unrest(String);

impl From<StoreError> for Unrest {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

/// The books as they are after every message was handled: those before it only say when it is worth asking the brokers.
async fn rested(deployment: &Deployment) -> Result<Books, Unrest> {
    quiet_books(deployment).await?;
    match behind(deployment).await? {
        0 => quiet_books(deployment).await,
        count => Err(Unrest(format!("{count} messages not handled"))),
    }
}

/// All books, where they show nothing under way.
async fn quiet_books(deployment: &Deployment) -> Result<Books, Unrest> {
    let settings = SCHEMAS.map(|schema| deployment.postgres(schema));
    let reading = tokio::task::spawn_blocking(move || {
        let (mut books, mut unpublished) = (Books::default(), 0);
        for settings in &settings {
            let snapshot = Snapshot::open_postgres(settings)?;
            unpublished += snapshot.pending("nobody", topic::ALL)?.len();
            add(&mut books, Books::read(&snapshot)?);
        }
        Ok::<_, StoreError>((books, unpublished))
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
    Err(Unrest(format!("{open:?}")))
}

/// Records that some group has not handled.
async fn behind(deployment: &Deployment) -> Result<usize, StoreError> {
    let (settings, metrics) = (deployment.postgres("ticketing"), Metrics::unregistered());
    let store = Store::open_postgres(&settings, &boxoffice::app::tables(), metrics).await?;
    let kafka = Kafka::open(deployment.kafka(), &store, topic::ALL, INBOX_SECS).await?;
    let groups = subscriptions();
    let asked = groups
        .iter()
        .map(|(group, topics)| kafka.behind(group, topics));
    let behind = future::try_join_all(asked).await;
    kafka.close().await;
    let behind: i64 = behind?.into_iter().sum();
    Ok(usize::try_from(behind).unwrap())
}

/// Each service's books are its own: nothing is in two of them.
fn add(all: &mut Books, own: Books) {
    all.allocations.extend(own.allocations);
    all.reservations.extend(own.reservations);
    all.tickets.extend(own.tickets);
    all.purchases.extend(own.purchases);
    all.payments.extend(own.payments);
    all.strays.extend(own.strays);
    all.sagas.extend(own.sagas);
    all.users.extend(own.users);
    all.ledger_sums.extend(own.ledger_sums);
    all.holds.extend(own.holds);
    all.timers.extend(own.timers);
    all.under_way.extend(own.under_way);
    all.open_dead_letters += own.open_dead_letters;
    all.messages_under_way += own.messages_under_way;
}

/// Everything that holds once nothing is under way.
pub async fn hold(deployment: &Deployment, events: &[i64], outcomes: &[Outcome], books: &Books) {
    assert_eq!(checks::check(books, Clock::System.now()), []);
    let counts = books.counts();
    assert_eq!(
        (
            counts.parked_sagas,
            counts.parked_refunds,
            counts.parked_strays
        ),
        (0, 0, 0)
    );
    for outcome in outcomes {
        is_as_told(books, outcome);
    }
    money_is_where_it_belongs(deployment, books);
    stocks_are_conserved(deployment, events, outcomes, books).await;
}

fn is_as_told(books: &Books, outcome: &Outcome) {
    let status = |id: &TicketId| books.tickets.get(id).map(|ticket| ticket.status);
    let (ticket, expected) = match outcome {
        Outcome::Owns(id) => (id, Some(TicketStatus::Reserved)),
        Outcome::GaveBack(id) => (id, Some(TicketStatus::Cancelled)),
        Outcome::Released(id) | Outcome::Compensated(id) => (id, None),
        Outcome::SoldOut(_) | Outcome::HeldUnknown => return,
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

/// The stock in Redis is that of the database, and what waits for a payment there is what nobody was told of. What
/// somebody began to give up and did not end is given up by another after a while.
async fn stocks_are_conserved(
    deployment: &Deployment,
    events: &[i64],
    outcomes: &[Outcome],
    books: &Books,
) {
    let unknown = outcomes.iter().filter(|it| **it == Outcome::HeldUnknown);
    let unknown = i64::try_from(unknown.count()).unwrap();
    let until = Instant::now() + PATIENCE;
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let mut waiting = 0;
        for event in events {
            waiting += stock_is_conserved(deployment, *event, books).await;
        }
        if waiting <= unknown {
            return;
        }
        assert!(
            Instant::now() < until,
            "{waiting} reservations wait, {unknown} are unknown"
        );
    }
}

/// Returns how many reservations wait.
async fn stock_is_conserved(deployment: &Deployment, event: i64, books: &Books) -> i64 {
    let tickets = books.tickets.values();
    let owned = tickets.filter(|it| it.event_id.0 == event && it.status == TicketStatus::Reserved);
    let owned = i64::try_from(owned.count()).unwrap();
    let stock = stock(deployment, event).await;
    let count = |name: &str| {
        let count = stock[name].as_i64();
        count.unwrap_or_else(|| panic!("{name}: {stock}"))
    };
    assert_eq!(
        (count("sold"), count("completed")),
        (owned, owned),
        "{stock}"
    );
    assert!(owned <= count("quantity"), "{stock}");
    assert_eq!(
        count("available") + count("waiting") + count("completed"),
        count("quantity"),
        "{stock}"
    );
    count("waiting")
}
