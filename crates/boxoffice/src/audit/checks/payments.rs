//! Promise 3 within the payment service's tables: a payment equals its last history entry, its columns fit its status, and
//! dependent rows name an existing payment.

use contract::{PaymentId, domain::PaymentStatus};
use payment::{
    model::attempt_key,
    record::{HistoryEntry, PaymentRecord, Refund, TombstoneReason, WebhookState},
};
use saga::StepState;

use super::{Books, Findings};

const CREATE_PAYMENT: &str = "payment.create";

pub(super) fn are_consistent(books: &Books, found: &mut Findings) {
    for (id, payment) in &books.payments {
        let history = books.histories.get(id);
        let history = history.map_or(&[][..], Vec::as_slice);
        let flaw = history_flaw(payment, history).or_else(|| shape_flaw(books, payment));
        found.check(3, "payment", id, flaw);
    }
    for (id, history) in &books.histories {
        if !books.payments.contains_key(id) && !is_of_tombstone(books, *id, history) {
            let detail = "it has a history, but does not exist";
            found.add(3, "payment", id, detail);
        }
    }
    are_open_or_tombstoned(books, found);
    orphan_charges_are_consistent(books, found);
    webhooks_are_consistent(books, found);
}

/// A tombstone of a deletion that came first has one entry; an earlier program wrote none. Its note and its time are not
/// compared.
fn is_of_tombstone(books: &Books, id: PaymentId, history: &[HistoryEntry]) -> bool {
    let Some((tombstone, [entry])) = books.tombstones.get(&id).zip(Some(history)) else {
        return false;
    };
    let expected = HistoryEntry {
        note: entry.note.clone(),
        at: entry.at,
        ..tombstone.entry()
    };
    tombstone.reason == TombstoneReason::DeletedFirst && *entry == expected
}

/// The history has one entry per version, and its last entry equals the payment.
fn history_flaw(payment: &PaymentRecord, history: &[HistoryEntry]) -> Option<&'static str> {
    let (Some(first), Some(last)) = (history.first(), history.last()) else {
        return Some("it has no history");
    };
    let is_whole = history.iter().zip(1..).all(|(entry, version)| {
        entry.payment_version == version
            && entry.entry_id == HistoryEntry::id(payment.payment_id, version)
    });
    if !is_whole || last.payment_version != payment.version {
        return Some("its history does not have one entry per version");
    }
    let is_now = (
        payment.status,
        payment.attempt,
        &payment.pg_payment_id,
        payment.updated_at,
    );
    if is_now != (last.status, last.attempt, &last.pg_payment_id, last.at) {
        return Some("it differs from the last entry of its history");
    }
    if first.status != PaymentStatus::Created
        || first.at != payment.created_at
        || first.attempt != 0
    {
        return Some("the first entry of its history does not fit its creation");
    }
    if !history
        .windows(2)
        .all(|pair| may_follow(&pair[0], &pair[1]))
    {
        return Some("its history has an impossible transition");
    }
    let began = history
        .iter()
        .find(|it| it.attempt > 0 && it.attempt == payment.attempt);
    (began.map(|it| it.at) != payment.attempt_started_at)
        .then_some("its attempt_started_at differs from its history")
}

/// The transitions of `payment/src/model.rs`; other changes keep the status.
fn may_follow(before: &HistoryEntry, after: &HistoryEntry) -> bool {
    use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};
    let begins = matches!(
        (before.status, after.status),
        (Created | Failed, Confirming)
    );
    let goes_on = match (before.status, after.status) {
        (before, after) if before == after => true,
        (Created, Confirming | Succeeded | Failed | Deleted)
        | (Confirming, Succeeded | Failed | Deleted)
        | (Failed, Confirming | Succeeded | Deleted)
        | (Deleted, Succeeded)
        | (Succeeded, Cancelled) => true,
        _ => false,
    };
    goes_on && after.attempt == before.attempt + u32::from(begins)
}

/// Columns that must be set together or fit the status.
fn shape_flaw(books: &Books, payment: &PaymentRecord) -> Option<&'static str> {
    let has_begun = payment.attempt > 0;
    let key = has_begun.then(|| attempt_key(payment.payment_id, payment.attempt));
    if payment.attempt_key != key || (has_begun && payment.pg_payment_id.is_none()) {
        return Some("its attempt_key or pg_payment_id does not fit its attempt");
    }
    let is_declined = payment.decline_code.is_some();
    let may_be_declined = match payment.status {
        PaymentStatus::Failed => is_declined,
        PaymentStatus::Created | PaymentStatus::Confirming => !is_declined,
        PaymentStatus::Deleted | PaymentStatus::Succeeded | PaymentStatus::Cancelled => true,
    };
    if !may_be_declined {
        return Some("its decline_code does not fit its status");
    }
    let sagas = [
        payment.ticket_id.purchase_saga(),
        payment.ticket_id.expire_saga(),
    ];
    let is_awaited = payment.status == PaymentStatus::Confirming;
    if payment
        .delete_saga
        .is_some_and(|saga| !is_awaited || !sagas.contains(&saga))
    {
        return Some("its delete_saga is not a saga of its purchase, or it is not CONFIRMING");
    }
    let accounts = [
        &payment.refund_bank,
        &payment.refund_account,
        &payment.refund_holder,
    ];
    if accounts
        .iter()
        .any(|it| it.is_some() != accounts[0].is_some())
    {
        return Some("its refund account is incomplete");
    }
    refund_flaw(books, payment)
}

fn refund_flaw(books: &Books, payment: &PaymentRecord) -> Option<&'static str> {
    let is_asked = payment.refund_number > 0;
    let is_wanted = matches!(payment.refund, Refund::Requested | Refund::Parked);
    if is_wanted && !is_asked
        || payment.refund_reason.is_some() != (is_asked || payment.refund == Refund::Done)
    {
        return Some("its refund has no reason, or was never requested");
    }
    let has_code = payment.refund_code.is_some();
    let is_refused = payment.refund == Refund::Parked || payment.refund == Refund::None && is_asked;
    if is_refused && !has_code || payment.refund == Refund::Done && has_code {
        return Some("its refund_code does not fit its refund");
    }
    let Some(saga) = payment.refund_saga else {
        return (payment.refund == Refund::None && is_asked)
            .then_some("its refund was requested, but has no refund_saga");
    };
    let ticket = books.tickets.get(&payment.ticket_id);
    let asked = ticket.is_some_and(|ticket| {
        (1..=ticket.cancellation).any(|number| payment.ticket_id.cancel_saga(number) == saga)
    });
    let is_known = asked || books.tickets.is_empty();
    (!is_known || !is_asked).then_some("its refund_saga is not a cancellation saga of its ticket")
}

/// A payment that a saga requested either exists, or has a tombstone that prevents it.
fn are_open_or_tombstoned(books: &Books, found: &mut Findings) {
    for (id, tombstone) in &books.tombstones {
        let is_open = books.payments.contains_key(id);
        let purchase = books
            .purchases
            .values()
            .find(|it| PaymentId::of_saga(it.ticket_id.purchase_saga()) == *id);
        let is_too_much = purchase.is_some_and(|it| it.total_amount.less(it.point).is_none());
        let says_too_much = tombstone.reason == TombstoneReason::TooManyPoints;
        let is_of_nobody = purchase.is_none() && !books.sagas.is_empty();
        if is_open || is_of_nobody || purchase.is_some() && is_too_much != says_too_much {
            let detail = "its tombstone contradicts the payment or the purchase";
            found.add(3, "payment", id, detail);
        }
    }
    let is_ours = !books.payments.is_empty() || !books.tombstones.is_empty();
    for saga in books.sagas.values().filter(|_| is_ours) {
        let Some(step) = saga.steps.iter().find(|it| it.name == CREATE_PAYMENT) else {
            continue;
        };
        let id = PaymentId::of_saga(saga.saga_id);
        let is_there = books.payments.contains_key(&id);
        let is_decided = is_there || books.tombstones.contains_key(&id);
        let fits = match step.state {
            StepState::Succeeded => is_there,
            StepState::Failed | StepState::Compensated => is_decided,
            StepState::Started | StepState::Compensating => true,
        };
        if !fits {
            let detail = "it requested a payment, which has neither a record nor a tombstone";
            found.add(3, "saga", saga.saga_id, detail);
        }
    }
}

fn orphan_charges_are_consistent(books: &Books, found: &mut Findings) {
    for (charge, orphan) in &books.orphan_charges {
        let payment = books.payments.get(&orphan.payment_id);
        let is_its_own = payment.is_some_and(|it| it.keeps(orphan));
        let has_code = orphan.refund_code.is_some();
        let fits = match orphan.refund {
            Refund::Parked => has_code,
            Refund::Done => !has_code,
            Refund::Requested | Refund::None => true,
        };
        let flaw = if payment.is_none() {
            "its payment does not exist"
        } else if is_its_own && orphan.is_open() {
            "it is to be refunded, but its payment refers to it"
        } else if orphan.refund_number == 0 || !fits {
            "its refund was never requested, or its refund_code does not fit"
        } else {
            continue;
        };
        found.add(3, "orphan charge", charge, flaw);
    }
}

fn webhooks_are_consistent(books: &Books, found: &mut Findings) {
    for (id, webhook) in &books.webhooks {
        let is_open = webhook.state == WebhookState::Received;
        let is_deposit = webhook.kind == payment::webhook::DEPOSIT_CALLBACK;
        let is_known = is_deposit || webhook.kind == toss::protocol::PAYMENT_STATUS_CHANGED;
        let flaw = if !books.payments.contains_key(&webhook.payment_id) {
            "its payment does not exist"
        } else if !is_known {
            "its kind is unknown"
        } else if webhook.note.is_some() == is_open
            || webhook.secret.is_some() != (is_open && is_deposit)
        {
            "its note or its secret does not fit its state"
        } else {
            continue;
        };
        found.add(3, "webhook", id, flaw);
    }
}
