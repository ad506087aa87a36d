//! Start-up time with one million reservations and tickets, and the memory of one waiting reservation.

use std::path::Path;

use contract::{
    EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId, domain,
    domain::PaymentStatus,
};
use messaging::{Clock, Commit, Metrics, Random, Store, Submission};
use tempfile::TempDir;
use ticketing::model::{Allocation, ReservationRecord, ReservationState, Ticket};

use crate::server::Server;

const RESERVATIONS: i64 = 1_000_000;
const COMMITS_AT_ONCE: i64 = 10_000;

pub async fn run() -> anyhow::Result<()> {
    let empty = Server::start()?;
    let (empty_start, empty_memory) = (empty.start_time, empty.memory_bytes()?);
    drop(empty);
    println!("\n| a start with | takes | memory |");
    println!("|---|---|---|");
    println!(
        "| nothing | {:.0} ms | {} MiB |",
        empty_start.as_secs_f64() * 1e3,
        empty_memory >> 20
    );
    for (what, state) in [
        ("1,000,000 waiting reservations", ReservationState::Waiting),
        (
            "1,000,000 completed reservations with their tickets",
            ReservationState::Completed,
        ),
    ] {
        let folder = TempDir::new()?;
        fill(folder.path(), state).await?;
        let server = Server::start_in(folder.path())?;
        let memory = server.memory_bytes()?;
        println!(
            "| {what} | {:.2} s | {} MiB |",
            server.start_time.as_secs_f64(),
            memory >> 20
        );
        let each = memory.saturating_sub(empty_memory) / RESERVATIONS as u64;
        println!("\n{each} bytes for each\n");
    }
    Ok(())
}

/// Writes the rows of a million buyers.
async fn fill(folder: &Path, state: ReservationState) -> anyhow::Result<()> {
    let store = Store::open_embedded(
        boxoffice::backends::data_folder(folder),
        &boxoffice::app::tables(),
        Metrics::unregistered(),
    )?;
    let (clock, random) = (Clock::System, Random::System);
    let now = clock.now();
    let event_id = EventId(1);
    let is_paid = state == ReservationState::Completed;
    let mut first = Commit::new();
    first.put(&allocation(
        event_id,
        if is_paid { RESERVATIONS } else { 0 },
    ));
    store.commit(first).await?;
    for start in (0..RESERVATIONS).step_by(COMMITS_AT_ONCE as usize) {
        let commits = (start..start + COMMITS_AT_ONCE).map(|user| {
            let ticket_id = TicketId(random.uuid(now));
            let expires_at = now.plus_secs(1800);
            let lapses_at = expires_at.plus_secs(90);
            let user_id = UserId(user + 1);
            let mut commit = Commit::new();
            commit.put(&ReservationRecord {
                ticket_id,
                event_id,
                user_id,
                state,
                expires_at,
                lapses_at,
                agreed_price: None,
                version: 0,
            });
            if is_paid {
                commit.put(&Ticket::issued(
                    &payment(ticket_id, event_id, user_id, now),
                    3,
                    now,
                ));
            }
            commit
        });
        let submission = Submission {
            commits: commits.collect(),
            position: None,
        };
        for outcome in store.submit(submission).outcomes().await {
            outcome?;
        }
    }
    Ok(())
}

fn allocation(event_id: EventId, sold: i64) -> Allocation {
    Allocation {
        event_id,
        quantity: RESERVATIONS,
        lowered_to: None,
        sold,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        event_version: 1,
        version: 0,
    }
}

fn payment(
    ticket_id: TicketId,
    event_id: EventId,
    user_id: UserId,
    now: Timestamp,
) -> domain::Payment {
    let saga_id: SagaId = ticket_id.purchase_saga();
    domain::Payment {
        id: PaymentId::of_saga(saga_id),
        event_id,
        user_id,
        ticket_id,
        saga_id: Some(saga_id),
        pg_payment_id: None,
        status: PaymentStatus::Succeeded,
        total_amount: Money::ZERO,
        point_amount: Points::ZERO,
        final_amount: Money::ZERO,
        refund: domain::Refund::None,
        refund_reason: None,
        created_at: now,
        updated_at: now,
    }
}
