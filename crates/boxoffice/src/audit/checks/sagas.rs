//! Promise 7 for sagas, dead letters and timers: each saga is in a state that its definition can reach, and its id derives
//! from its ticket; dead letters and timers refer to each other.

use contract::{DeadLetterId, SagaId, TicketId, domain::PaymentStatus};
use messaging::{
    coordinator::SagaRecord,
    dead_letters::{DeadLetterRecord, DeadLetterState},
};
use saga::{Input, Saga, SagaState};
use ticketing::sagas::{CANCEL, CATALOG, EXPIRE, PURCHASE};

use super::{Books, Findings};

pub(super) fn are_consistent(books: &Books, found: &mut Findings) {
    for (id, saga) in &books.sagas {
        found.check(7, "saga", id, flaw(books, saga));
    }
    cancellations_have_run(books, found);
    expiries_have_run(books, found);
    dead_letters_are_consistent(books, found);
    for timer in &books.timers {
        if !has_owner(books, timer) {
            let detail = "no open saga or dead letter owns it";
            found.add(7, "timer", timer, detail);
        }
    }
}

fn cancellations_have_run(books: &Books, found: &mut Findings) {
    for (ticket_id, ticket) in &books.tickets {
        let runs = (1..=ticket.cancellation).all(|number| {
            let id = ticket_id.cancel_saga(number);
            books.sagas.contains_key(&id) || books.is_named(ticket_id)
        });
        if !runs && !books.sagas.is_empty() {
            let detail = format!(
                "it has {} cancellations, but fewer cancellation sagas",
                ticket.cancellation
            );
            found.add(7, "ticket", ticket_id, detail);
        }
    }
}

/// Only an expiry saga closes a payment that was ready to be paid.
fn expiries_have_run(books: &Books, found: &mut Findings) {
    for payment in books.payments.values() {
        let saga = books.sagas.get(&payment.saga_id);
        let was_ready = saga.is_some_and(|it| it.state == SagaState::Completed);
        let is_closed = payment.status == PaymentStatus::Deleted;
        let runs = books.sagas.contains_key(&payment.ticket_id.expire_saga());
        if was_ready && is_closed && !runs && !books.has_pending_messages(payment.ticket_id) {
            let detail = "it is DELETED after its purchase completed, but has no expiry saga";
            found.add(7, "payment", payment.payment_id, detail);
        }
    }
}

fn flaw(books: &Books, record: &SagaRecord) -> Option<String> {
    let saga = Saga {
        kind: record.saga_type.clone(),
        definition_version: record.definition_version,
        state: record.state,
        steps: record.steps.clone(),
        failure: record.failure.clone(),
        parked: record.parked.clone(),
    };
    let Some(definition) = CATALOG.find(&record.saga_type, record.definition_version) else {
        return Some(format!(
            "no definition {} of version {} exists",
            record.saga_type, record.definition_version
        ));
    };
    if let Err(illegal) = saga::step(definition, &saga, Input::Resume) {
        return Some(illegal.to_string());
    }
    if saga.current_step() != record.current_step.as_deref() {
        return Some(format!(
            "its current_step is {:?}, but its steps give {:?}",
            record.current_step,
            saga.current_step()
        ));
    }
    let has_turned_back = matches!(
        record.state,
        SagaState::Compensating | SagaState::Compensated
    );
    if record.failure.is_some() != has_turned_back {
        return Some("it compensates without a failure, or has a failure and does not".to_owned());
    }
    (!is_named(books, record)).then(|| "its id does not derive from its ticket".to_owned())
}

fn is_named(books: &Books, record: &SagaRecord) -> bool {
    let Ok(ticket_id) = record.reference_id.parse::<TicketId>() else {
        return false;
    };
    let ticket = books.tickets.get(&ticket_id);
    let tries = ticket.map_or(0, |ticket| ticket.cancellation);
    match record.saga_type.as_str() {
        kind if kind == PURCHASE.kind => record.saga_id == ticket_id.purchase_saga(),
        kind if kind == EXPIRE.kind => record.saga_id == ticket_id.expire_saga(),
        kind if kind == CANCEL.kind => {
            (1..=tries).any(|it| record.saga_id == ticket_id.cancel_saga(it))
        }
        _ => false,
    }
}

fn dead_letters_are_consistent(books: &Books, found: &mut Findings) {
    for (id, record) in &books.dead_letters {
        let DeadLetterRecord {
            state,
            letter,
            reissues,
            ..
        } = record;
        let has_timer = books.timers.contains(&format!("dead-letter/{id}"));
        let is_waiting = *state == DeadLetterState::Waiting;
        let is_named = letter.event_id == *id;
        let is_counted = match state {
            DeadLetterState::Waiting => *reissues == letter.retry_count + 1,
            DeadLetterState::Parked => letter.retry_count >= letter.max_retry_count,
            DeadLetterState::Replayed => *reissues > letter.retry_count,
            DeadLetterState::Resolved | DeadLetterState::Discarded => {
                *reissues >= letter.retry_count
            }
        };
        // Its reissue may not be handled yet, or the dead-letter worker may not have handled the result yet.
        let is_reissued = books.reissued.contains(id) || books.is_named(id);
        let waits = is_waiting && (has_timer || is_reissued);
        if !is_named || !is_counted || has_timer && !is_waiting || is_waiting && !waits {
            let detail = format!("its id, counters or timer do not fit its state {state:?}");
            found.add(7, "dead letter", id, detail);
        }
    }
}

fn has_owner(books: &Books, timer: &str) -> bool {
    if let Some(id) = timer.strip_prefix("saga/") {
        let id: Option<SagaId> = id.parse().ok();
        let saga = id.and_then(|id| books.sagas.get(&id));
        return saga.is_some_and(|it| !it.state.is_terminal() && it.parked.is_none());
    }
    if let Some(id) = timer.strip_prefix("dead-letter/") {
        let id: Option<DeadLetterId> = id.parse().ok();
        return id.is_some_and(|id| books.dead_letters.contains_key(&id));
    }
    // The timer of an unknown kind may belong to a newer version.
    true
}
