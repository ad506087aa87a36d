//! Progress: how far a purchase has come. Everything a message can do to a saga is decided here.

use contract::{
    Payload as _, PaymentId, Points, SagaId, TicketId, Timestamp,
    ticketing::{
        Cancel, CancelTicketResponse, Expire, Process, Release, SAGA_TIMEOUT, SagaTimeout,
    },
};
use messaging::{
    Commit, Key, Message, Record, Records, Rejection, StoreError,
    coordinator::{self, NewSaga, Progress, SagaRecord},
};
use saga::{Input, SagaState};

use crate::{
    Service,
    model::{Purchase, Ticket},
    refund::PurchaseRefund,
    sagas::{
        CANCEL, CATALOG, Cancellation, EXPIRE, PURCHASE, Payload, Purchases, is_payment_closed,
        read_answer,
    },
};

/// What a purchase looks like from outside.
#[derive(Debug, Clone)]
pub struct PurchaseProgress {
    pub purchase: Option<Purchase>,
    pub saga: Option<SagaRecord>,
    /// The saga that takes an unpaid purchase back, where it has begun.
    pub expiry: Option<SagaRecord>,
    /// Where money has bought one.
    pub ticket: Option<Ticket>,
    /// Where the money goes back, went back, or was to.
    pub refund: Option<PurchaseRefund>,
}

impl Service {
    /// How far the purchase of this ticket has come; `None` where none was started.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub async fn progress(
        &self,
        ticket_id: TicketId,
    ) -> Result<Option<PurchaseProgress>, StoreError> {
        let sagas = [ticket_id.purchase_saga(), ticket_id.expire_saga()];
        let rows = self
            .0
            .store
            .load_rows(SagaRecord::TABLE, &sagas.map(Key::from))
            .await?;
        let mut saga = None;
        let mut expiry = None;
        for row in rows {
            let record: SagaRecord = row.read()?;
            let place = if record.saga_id == sagas[0] {
                &mut saga
            } else {
                &mut expiry
            };
            *place = Some(record);
        }
        let store = &self.0.store;
        let mut progress = PurchaseProgress {
            purchase: None,
            saga,
            expiry,
            ticket: None,
            refund: None,
        };
        match &progress.saga {
            None => {
                progress.purchase = store.load(ticket_id).await?;
                return Ok(progress.purchase.is_some().then_some(progress));
            }
            // Nothing comes of a purchase while it is under way.
            Some(saga) if saga.state.is_terminal() => {
                progress.ticket = store.load(ticket_id).await?;
                progress.refund = store.load(ticket_id).await?;
            }
            Some(_) => {}
        }
        Ok(Some(progress))
    }
}

/// Why a purchase turns back whose reservation is gone.
const RESERVATION_EXPIRED: &str = "RESERVATION_EXPIRED";

/// `ticketing.process`: the purchase begins, once for each ticket. If the reservation ended between the request and this
/// message, the purchase has turned back before it began, so that its buyer sees what became of it and nothing is
/// taken. A `ticketing.expire` that is handled at the same moment saves the same saga, so one of the two conflicts.
///
/// # Errors
/// A [`Rejection`] where its first request cannot be made.
pub fn start(
    process: &Process,
    is_gone: bool,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let saga_id = process.ticket_id.purchase_saga();
    if records.get::<SagaRecord>(saga_id)?.is_some() {
        return Ok(Commit::new());
    }
    let purchase: Option<Purchase> = records.get(process.ticket_id)?;
    let payload = Payload {
        ticket_id: process.ticket_id,
        event_id: process.event_id,
        user_id: process.user_id,
        total_amount: process.total_amount,
        point: process.point,
        expires_at: purchase.map(|purchase| purchase.expires_at),
        payment_id: None,
    };
    if is_gone {
        return forestall(&payload, now);
    }
    let new_saga = new_saga(&payload);
    Ok(coordinator::begin(&Purchases, &PURCHASE, new_saga, now)?.commit)
}

fn new_saga(payload: &Payload) -> NewSaga {
    NewSaga {
        saga_id: payload.ticket_id.purchase_saga(),
        reference_id: payload.ticket_id.to_string(),
        payload: payload.to_json(),
    }
}

/// A purchase whose reservation ended before it began: it takes nothing, and gives what may be left of its claim back.
fn forestall(payload: &Payload, now: Timestamp) -> Result<Commit, Rejection> {
    let new_saga = new_saga(payload);
    let ended = coordinator::forestall(&Purchases, &PURCHASE, new_saga, RESERVATION_EXPIRED, now)?;
    release_when_compensated(ended, now)
}

/// `ticketing.cancel`: the giving back of a ticket begins, once for each try.
///
/// # Errors
/// A [`Rejection`] where its first request cannot be made.
pub fn cancel(cancel: Cancel, records: &Records, now: Timestamp) -> Result<Commit, Rejection> {
    let saga_id = cancel.ticket_id.cancel_saga(cancel.cancellation);
    if records.get::<SagaRecord>(saga_id)?.is_some() {
        return Ok(Commit::new());
    }
    let purchase: Option<Purchase> = records.get(cancel.ticket_id)?;
    let payload = Cancellation {
        ticket_id: cancel.ticket_id,
        event_id: cancel.event_id,
        user_id: cancel.user_id,
        payment_id: cancel.payment_id,
        point: purchase.map_or(Points::ZERO, |purchase| purchase.point),
        reason: cancel.reason,
    };
    let new_saga = NewSaga {
        saga_id,
        reference_id: cancel.ticket_id.to_string(),
        payload: payload.to_json(),
    };
    Ok(coordinator::begin(&Purchases, &CANCEL, new_saga, now)?.commit)
}

/// A participant's response.
///
/// # Errors
/// A [`Rejection`] where it cannot be read, or answers a saga that does not exist.
pub fn answer(message: &Message, records: &Records, now: Timestamp) -> Result<Commit, Rejection> {
    let answer = read_answer(message)?;
    let mut saga = load(records, answer.saga_id)?;
    let definition = CATALOG.find(&saga.saga_type, saga.definition_version);
    let waits_for = definition.and_then(|definition| definition.find_by_response(&message.topic));
    let Some((step, direction)) = waits_for else {
        return Err(Rejection::new(format_args!(
            "a saga of type {} does not wait for {}",
            saga.saga_type, message.topic
        )));
    };
    let input = Input::Reply {
        step,
        direction,
        outcome: answer.outcome,
    };
    let is_named = match answer.payment_id {
        Some(payment_id) => name_payment(&mut saga, payment_id)?,
        None => false,
    };
    let named = saga.clone();
    let mut commit = move_on(saga, input, now)?;
    // It came too late to move the saga, which may have to name the payment yet.
    if is_named && commit.is_empty() {
        commit.put(&named);
    }
    Ok(commit)
}

/// Keeps what the payment service has named its payment; whether that is new. The first name stays, and a saga that has
/// ended never changes.
fn name_payment(saga: &mut SagaRecord, payment_id: PaymentId) -> Result<bool, Rejection> {
    let mut payload = Payload::of(saga)?;
    if payload.payment_id.is_some() || saga.state.is_terminal() {
        return Ok(false);
    }
    payload.payment_id = Some(payment_id);
    saga.payload = payload.to_json();
    Ok(true)
}

/// A request or compensation got no answer in time.
///
/// # Errors
/// A [`Rejection`] where the saga does not exist.
pub fn time_out(
    timeout: &SagaTimeout,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    move_on(
        load(records, timeout.saga_id)?,
        coordinator::timeout_input(timeout),
        now,
    )
}

/// `ticketing.expire`: the reservation's time is over, or its buyer gave it back. A purchase under way turns back; one that
/// is waiting for payment is taken back by a saga of its own. One that was asked for and has not begun never begins: its
/// `ticketing.process` may be handled later, or by another member of the group at this moment. Its claim stays until no
/// payment of it can take money any more. It is said again while the claim stays: what was to free it may be lost.
///
/// # Errors
/// A [`Rejection`] where a stored saga cannot be read.
pub fn expire(message: &Message, records: &Records, now: Timestamp) -> Result<Commit, Rejection> {
    let Expire { ticket_id, .. } = message.parse()?;
    let Some(purchase) = records.get::<SagaRecord>(ticket_id.purchase_saga())? else {
        let asked_for: Option<Purchase> = records.get(ticket_id)?;
        return asked_for.map_or(Ok(Commit::new()), |it| forestall(&Payload::from(it), now));
    };
    let again = format!("{}:release", message.id);
    match purchase.state {
        SagaState::Started => move_on(
            purchase,
            Input::Abort {
                reason: RESERVATION_EXPIRED.to_owned(),
            },
            now,
        ),
        SagaState::Compensating | SagaState::Compensated => {
            release_if_closed(&purchase, again, now)
        }
        SagaState::Completed => {
            let saga_id = ticket_id.expire_saga();
            if let Some(begun) = records.get::<SagaRecord>(saga_id)? {
                return release_if_closed(&begun, again, now);
            }
            let new_saga = NewSaga {
                saga_id,
                reference_id: ticket_id.to_string(),
                payload: purchase.payload,
            };
            Ok(coordinator::begin(&Purchases, &EXPIRE, new_saga, now)?.commit)
        }
    }
}

/// A person wants a parked saga tried again.
///
/// # Errors
/// A [`Rejection`] where the stored saga does not fit its definition.
pub fn resume(saga: SagaRecord, now: Timestamp) -> Result<Commit, Rejection> {
    move_on(saga, Input::Resume, now)
}

fn load(records: &Records, saga_id: SagaId) -> Result<SagaRecord, Rejection> {
    records
        .get(saga_id)?
        .ok_or_else(|| Rejection::new(format_args!("there is no saga {saga_id}")))
}

fn move_on(saga: SagaRecord, input: Input, now: Timestamp) -> Result<Commit, Rejection> {
    let was_closed = is_payment_closed(&saga);
    let Some(progress) = coordinator::advance(&Purchases, saga, input, now)? else {
        return Ok(Commit::new());
    };
    let is_taken_back = progress.record.saga_type == EXPIRE.kind;
    if is_taken_back && !was_closed && is_payment_closed(&progress.record) {
        return release(progress, now);
    }
    release_when_compensated(progress, now)
}

/// A purchase that came to nothing gives its reservation back at once.
fn release_when_compensated(progress: Progress, now: Timestamp) -> Result<Commit, Rejection> {
    let is_over = progress.finished == Some(SagaState::Compensated);
    if is_over && progress.record.saga_type == PURCHASE.kind {
        return release(progress, now);
    }
    Ok(progress.commit)
}

fn release(progress: Progress, now: Timestamp) -> Result<Commit, Rejection> {
    let mut commit = progress.commit;
    let id = format!("{}:release", progress.record.reference_id);
    commit.publish(release_message(&progress.record, id, now)?);
    Ok(commit)
}

fn release_if_closed(saga: &SagaRecord, id: String, now: Timestamp) -> Result<Commit, Rejection> {
    let mut commit = Commit::new();
    if is_payment_closed(saga) {
        commit.publish(release_message(saga, id, now)?);
    }
    Ok(commit)
}

fn release_message(saga: &SagaRecord, id: String, now: Timestamp) -> Result<Message, Rejection> {
    let Payload {
        ticket_id,
        event_id,
        user_id,
        ..
    } = Payload::of(saga)?;
    let release = Release {
        ticket_id,
        event_id,
        user_id,
    };
    Ok(saga.traced(Message::new(id, &release, now)))
}

/// The topics that move sagas.
pub const TOPICS: &[&str] = &[
    Process::TOPIC,
    Expire::TOPIC,
    Cancel::TOPIC,
    SAGA_TIMEOUT,
    contract::user::CheckActiveResponse::TOPIC,
    contract::user::ReservePointResponse::TOPIC,
    contract::user::RestorePointResponse::TOPIC,
    contract::user::CheckFraudResponse::TOPIC,
    contract::payment::CreateResponse::TOPIC,
    contract::payment::DeleteResponse::TOPIC,
    contract::payment::CancelResponse::TOPIC,
    CancelTicketResponse::TOPIC,
];
