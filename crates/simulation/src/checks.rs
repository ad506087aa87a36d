//! What must hold. At each moment: stock, seats, points, fencing. At the end: nothing is pending, all books agree, and what
//! clients were told is true.
//!
//! State: the tokens of the leases, which never go back.

use std::{collections::BTreeMap, sync::Arc};

use boxoffice::audit::{Books, checks};
use contract::{PaymentId, TicketId, domain::PaymentStatus};
use payment::record::{Refund, WebhookState};

use crate::{
    buyers::{Knowledge, Told},
    database::Database,
    process::{Engines, Process},
    world::World,
};

/// Counts of rows that break a rule, by database.
const RULES: &[(&str, &str, &str)] = &[
    ("ticketing", "more tickets than seats", "SELECT count(*) FROM allocation WHERE sold > quantity OR sold < 0"),
    (
        "ticketing",
        "sold is not the number of tickets",
        "SELECT count(*) FROM allocation a WHERE sold <>
         (SELECT count(*) FROM ticket t WHERE t.event_id = a.event_id AND t.status = 'RESERVED')",
    ),
    (
        "ticketing",
        "a user has two tickets for an event",
        "SELECT count(*) FROM (SELECT 1 FROM ticket WHERE status = 'RESERVED' GROUP BY event_id, user_id HAVING count(*) > 1)",
    ),
    (
        "user",
        "the points of a user are not those of the ledger",
        "SELECT count(*) FROM app_user u WHERE balance <> coalesce((SELECT balance_after FROM point_ledger l
         WHERE l.user_id = u.user_id ORDER BY user_version DESC, entry_id DESC LIMIT 1), 0)",
    ),
    (
        "payment",
        "a payment succeeded without an attempt",
        "SELECT count(*) FROM payment WHERE status = 'SUCCEEDED' AND final_amount > 0 AND pg_payment_id IS NULL",
    ),
];

pub struct Checks {
    world: Arc<World>,
    databases: Vec<Arc<Database>>,
    tokens: BTreeMap<(&'static str, String), i64>,
}

impl Checks {
    pub fn new(world: &Arc<World>, databases: &[Arc<Database>]) -> Self {
        Self {
            world: Arc::clone(world),
            databases: databases.to_vec(),
            tokens: BTreeMap::new(),
        }
    }

    /// What holds at each moment.
    pub fn hold_now(&mut self) {
        for database in &self.databases {
            let (name, file) = (database.name, database.file.lock());
            for (_, rule, text) in RULES.iter().filter(|rule| rule.0 == name) {
                let mut statement = file.prepare_cached(text).unwrap();
                let broken: i64 = statement.query_row((), |row| row.get(0)).unwrap();
                if broken > 0 {
                    self.world.fail(format_args!("{name}: {rule}"));
                }
            }
            let mut statement = file
                .prepare_cached("SELECT name, token FROM lease")
                .unwrap();
            let leases = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
            for (lease, token) in leases.unwrap().map(Result::unwrap) {
                let known = self.tokens.entry((name, lease)).or_insert(token);
                if token < *known {
                    self.world
                        .fail(format_args!("{name}: a lease's token went back"));
                }
                *known = token;
            }
        }
    }
}

/// All records, read between two steps.
pub fn read_books(engines: &Engines) -> Books {
    let snapshots: Vec<_> = engines.databases.iter().map(|it| it.snapshot()).collect();
    Books::read_all(&snapshots).unwrap()
}

/// What is still to be done, in words; empty if nothing is.
pub fn pending(engines: &Engines, books: &Books) -> Vec<String> {
    let counts = books.counts();
    let payments = || books.payments.values();
    let confirming = payments()
        .filter(|it| it.status == PaymentStatus::Confirming)
        .count();
    let refunds = payments()
        .filter(|it| matches!(it.refund, Refund::Requested | Refund::Parked))
        .count();
    let orphans = books.orphan_charges.values();
    let orphans = orphans
        .filter(|it| matches!(it.refund, Refund::Requested | Refund::Parked))
        .count();
    let webhooks = books.webhooks.values();
    let webhooks = webhooks
        .filter(|it| it.state == WebhookState::Received)
        .count();
    let unhandled = boxoffice::audit::books::subscriptions();
    let unhandled: usize = unhandled
        .iter()
        .map(|it| engines.broker.unhandled(it.name))
        .sum();
    [
        ("open sagas", counts.open_sagas),
        ("messages in outboxes", counts.messages_under_way),
        ("messages on the bus", unhandled),
        ("timers", books.timers.len()),
        ("waiting reservations", counts.waiting_reservations),
        ("attempts", confirming),
        ("refunds", refunds),
        ("orphan charges", orphans),
        ("webhooks", webhooks),
        ("dead letters", counts.open_dead_letters),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(what, count)| format!("{count} {what}"))
    .collect()
}

/// All records, with the claims in Redis, if they are there.
pub fn read_all(engines: &Engines, process: &Process) -> Books {
    let mut books = read_books(engines);
    let events: Vec<_> = books.allocations.keys().copied().collect();
    let settings = process.config(engines).ticketing;
    let claims = engines.host.runtime.block_on(settings.read_claims(&events));
    // While faults last, Redis may not answer: those who ask then see no claims.
    let claims = claims.ok();
    books.claims_are_rows = engines.reservations == "local";
    books.claims = claims.flatten().unwrap_or_default();
    books
}

/// What holds once nothing is pending.
pub fn hold_at_rest(world: &World, engines: &Engines, books: &Books, knowledge: &Knowledge) {
    for violation in checks::check(books, world.now()) {
        world.fail(format_args!("audit: {violation:?}"));
    }
    gateway_agrees(world, engines, books);
    for told in knowledge.told.lock().iter() {
        if !is_true(told, books) {
            world.fail(format_args!("a client was told what is not so: {told:?}"));
        }
    }
}

/// The money that the gateway holds is that of the payments that succeeded, which are those of the tickets.
fn gateway_agrees(world: &World, engines: &Engines, books: &Books) {
    let totals = engines.gateway.sandbox.totals().unwrap();
    let succeeded = books
        .payments
        .values()
        .filter(|it| it.status == PaymentStatus::Succeeded);
    let kept: i64 = succeeded.map(|it| it.final_amount.get()).sum();
    let sold: i64 = books
        .owned_tickets()
        .map(|it| books.payments[&it.payment_id].final_amount.get())
        .sum();
    if (totals.held, kept) != (kept, sold) {
        world.fail(format_args!(
            "the gateway holds {}, payments that succeeded are {kept}, those of tickets {sold}",
            totals.held
        ));
    }
}

/// A payment that somebody was told of has its ticket, or was paid back.
fn is_true(told: &Told, books: &Books) -> bool {
    match told {
        Told::Paid { ticket, payment } => {
            let payment: PaymentId = payment.parse().unwrap();
            let ticket: TicketId = ticket.parse().unwrap();
            books
                .payments
                .get(&payment)
                .is_some_and(|payment| match payment.status {
                    PaymentStatus::Succeeded => books.has_ticket(ticket),
                    PaymentStatus::Cancelled => !books.has_ticket(ticket),
                    _ => false,
                })
        }
        Told::Released { ticket } => !books.has_ticket(ticket.parse().unwrap()),
    }
}
