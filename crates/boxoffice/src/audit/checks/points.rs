//! Promise 3 for points: a hold agrees with the ledger, with its purchase's request, and with its purchase's outcome.

use contract::{PaymentId, domain::PaymentStatus};
use messaging::coordinator::SagaRecord;
use payment::record::Refund;
use saga::{SagaState, StepState};
use ticketing::model::Purchase;
use user::points::{Hold, HoldState};

use super::{Books, Findings, purchases};
use crate::audit::ledger::SagaPoints;

const CHECK_ACTIVE: &str = "user.check.active";
const RESERVE_POINT: &str = "user.reserve.point";
const CHECK_FRAUD: &str = "user.check.fraud";

pub(super) fn match_ledger_and_purchases(books: &Books, found: &mut Findings) {
    for (entry, flaw) in &books.ledger.flaws {
        found.add(3, "ledger entry", entry, flaw);
    }
    users_match_ledger(books, found);
    for hold in books.holds.values() {
        let entries = books.ledger.sagas.get(&hold.saga_id);
        if !is_in_ledger(hold, entries) {
            let detail = format!(
                "{} points are {:?}, but the ledger has {entries:?}",
                hold.point, hold.state
            );
            found.add(3, "points of saga", hold.saga_id, detail);
        }
    }
    for saga_id in books.ledger.sagas.keys() {
        if !books.holds.contains_key(saga_id) {
            let detail = "the ledger has entries for it, but it has no hold";
            found.add(3, "points of saga", saga_id, detail);
        }
    }
    holds_match_purchases(books, found);
}

/// Each user of the ledger exists, in the entry's version or later; a user's recent purchases are purchases of that user.
fn users_match_ledger(books: &Books, found: &mut Findings) {
    for (user_id, account) in &books.ledger.accounts {
        let version = books.users.get(user_id).map(|user| user.version);
        if version.is_none_or(|version| version < account.version) {
            let detail = format!(
                "the ledger has an entry of version {}, but the user's version is {version:?}",
                account.version
            );
            found.add(3, "user", user_id, detail);
        }
    }
    let purchases = purchases::by_saga(books);
    for (user_id, user) in &books.users {
        if !(0..=user.version).contains(&user.profile_version) {
            let detail = "its profile_version is negative or newer than its version";
            found.add(3, "user", user_id, detail);
        }
        let recent = user.recent_purchases.iter();
        for start in recent.filter(|_| !books.sagas.is_empty()) {
            let is_theirs = purchases
                .get(&start.saga_id)
                .is_some_and(|it| it.user_id == *user_id);
            let saga = books.sagas.get(&start.saga_id);
            let judged = saga.and_then(|saga| step(saga, CHECK_FRAUD));
            let is_clear = start.verdict == user::fraud::FraudVerdict::Clear;
            let fits = match judged {
                Some(StepState::Succeeded) => is_clear,
                Some(_) => true,
                None => false,
            };
            if !is_theirs || !fits {
                let detail = format!(
                    "its recent purchase by saga {} is not a purchase of this user with this verdict",
                    start.saga_id
                );
                found.add(3, "user", user_id, detail);
            }
        }
    }
}

/// Whether the ledger's entries fit the hold.
fn is_in_ledger(hold: &Hold, entries: Option<&SagaPoints>) -> bool {
    let point = hold.point.get();
    let (reserved, used, restored) =
        entries.map_or((None, None, None), |it| (it.reserved, it.used, it.restored));
    let is_theirs = entries.is_none_or(|it| it.user_id == hold.user_id);
    let fits = match hold.state {
        _ if point == 0 => entries.is_none(),
        HoldState::Held => (reserved, used, restored) == (Some(-point), None, None),
        HoldState::Used => (reserved, used, restored) == (Some(-point), Some(0), None),
        HoldState::Restored => (reserved, restored) == (Some(-point), Some(point)),
        HoldState::Refused => entries.is_none(),
    };
    is_theirs && fits
}

fn holds_match_purchases(books: &Books, found: &mut Findings) {
    // Another company's user or ticketing service keeps its own records.
    if books.users.is_empty() || books.sagas.is_empty() {
        return;
    }
    let purchases = purchases::by_saga(books);
    for (saga_id, purchase) in &purchases {
        let Some(saga) = books.sagas.get(saga_id) else {
            continue;
        };
        let hold = books.holds.get(saga_id);
        let was_active = step(saga, CHECK_ACTIVE) == Some(StepState::Succeeded);
        if was_active && !books.users.contains_key(&purchase.user_id) {
            let detail = "its user was found active, but does not exist";
            found.add(3, "saga", saga_id, detail);
        }
        let flaw = flaw(books, purchase, saga, hold);
        found.check(3, "points of saga", saga_id, flaw);
    }
    for saga_id in books.holds.keys().filter(|it| !purchases.contains_key(it)) {
        let detail = "they are held for no purchase";
        found.add(3, "points of saga", saga_id, detail);
    }
}

fn flaw(
    books: &Books,
    purchase: &Purchase,
    saga: &SagaRecord,
    hold: Option<&Hold>,
) -> Option<String> {
    let reserving = step(saga, RESERVE_POINT);
    if let Some(hold) = hold {
        // A tombstone; with other points, it prevented the saga's request, and the saga compensated.
        let is_tombstone = hold.state == HoldState::Restored
            && (hold.point.get() == 0 || saga.state == SagaState::Compensated);
        if hold.user_id != purchase.user_id || hold.point != purchase.point && !is_tombstone {
            return Some("user or points differ from the purchase".to_owned());
        }
        let decided_by = books.status_in(PaymentId::of_saga(saga.saga_id), hold.payment_version);
        let is_decided = decided_by.is_some_and(purchases::says_money);
        let fits = match hold.state {
            HoldState::Used => decided_by == Some(PaymentStatus::Succeeded),
            HoldState::Restored => hold.payment_version == 0 || is_decided,
            HoldState::Held | HoldState::Refused => hold.payment_version == 0,
        };
        if !fits && !books.histories.is_empty() {
            return Some(format!(
                "they are {:?}, which version {} of the payment does not explain",
                hold.state, hold.payment_version
            ));
        }
    }
    if books.has_pending_messages(purchase.ticket_id) {
        return None;
    }
    let state = hold.map(|hold| hold.state);
    let allowed = allowed(books, saga, reserving);
    let is_allowed = state.map_or(allowed.is_empty(), |state| allowed.contains(&state));
    (!is_allowed).then(|| format!("they are {state:?}, but must be one of {allowed:?}"))
}

/// The states that the hold of a purchase at rest may have; empty if the purchase requested none.
fn allowed(books: &Books, saga: &SagaRecord, reserving: Option<StepState>) -> &'static [HoldState] {
    use HoldState::{Held, Refused, Restored, Used};
    use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};
    match reserving {
        None => &[],
        Some(StepState::Failed) => &[Refused],
        // If the refusal's reply was lost, the compensation finds the hold refused.
        Some(StepState::Compensated) => &[Restored, Refused],
        Some(StepState::Started | StepState::Compensating) => &[Held, Restored, Refused],
        Some(StepState::Succeeded) if saga.state != SagaState::Completed => &[Restored],
        Some(StepState::Succeeded) => {
            let payment = books.payments.get(&PaymentId::of_saga(saga.saga_id));
            match payment.map(|it| (it.status, it.refund)) {
                Some((Succeeded, Refund::None)) => &[Used],
                Some((Created | Failed | Confirming, _)) => &[Held],
                Some((Succeeded | Cancelled | Deleted, _)) => &[Restored],
                None => &[Held, Restored, Used],
            }
        }
    }
}

fn step(saga: &SagaRecord, name: &str) -> Option<StepState> {
    let step = saga.steps.iter().find(|step| step.name == name)?;
    Some(step.state)
}
