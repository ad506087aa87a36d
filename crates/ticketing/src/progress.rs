//! Progress: how far a purchase has come. Decides everything that a message does to a saga.
//!
//! **Compensation.** If a participant refuses, or stays silent past its retries, the machine turns back: each step that
//! succeeded, or may have, is compensated, the last first. Compensations are repeated with backoff until they succeed; past
//! their limit the saga is parked for an operator. When the last one is done, `ticketing.release` is published in the same
//! Commit, and `StockConsumer` frees the claim.

use contract::{
    Payload as _, Points, TicketId, Timestamp,
    ticketing::{Cancel, CancelTicketResponse, Expire, Process, Release, SAGA_TIMEOUT},
};
use messaging::{
    Commit, Decision, Group, Key, Message, Record, Records, Rejection, StoreError,
    coordinator::{self, NewSaga, Progress, SagaMessage, SagaRecord},
};
use saga::{Input, SagaState};

use crate::{
    Service,
    metrics::SagaLabel,
    model::{Purchase, Ticket},
    refund::PurchaseRefund,
    sagas::{
        CANCEL, CancellationPayload, EXPIRE, PURCHASE, PurchasePayload, Sagas, is_payment_closed,
    },
};

/// What a message changes, and the state that a saga has reached by it, if that is counted.
type SagaDecision = Decision<Option<SagaLabel>>;

/// How far a purchase has come.
#[derive(Debug, Clone)]
pub struct PurchaseProgress {
    pub purchase: Option<Purchase>,
    pub saga: Option<SagaRecord>,
    /// The saga that undoes an unpaid purchase, if it has started.
    pub expiry: Option<SagaRecord>,
    /// The issued ticket, if the payment got one.
    pub ticket: Option<Ticket>,
    /// The state of the refund, if there is one.
    pub refund: Option<PurchaseRefund>,
}

impl Service {
    /// How far the purchase of this ticket has come; `None` if none was started.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
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
            // A purchase in progress has neither.
            Some(saga) if saga.state.is_terminal() => {
                progress.ticket = store.load(ticket_id).await?;
                progress.refund = store.load(ticket_id).await?;
            }
            Some(_) => {}
        }
        Ok(Some(progress))
    }
}

/// The failure of a purchase whose reservation has ended.
const RESERVATION_EXPIRED: &str = "RESERVATION_EXPIRED";

/// `ticketing.process`: starts the purchase, once for each ticket. If the reservation ended between the request and this
/// message, the saga is stored as compensated before its first step: nothing is taken, and the buyer can read why. A
/// `ticketing.expire` that is handled at the same moment stores the same saga, so one of the two conflicts.
///
/// # Errors
/// A [`Rejection`] if its first request cannot be made.
pub fn start(
    process: &Process,
    has_ended: bool,
    records: &Records,
    now: Timestamp,
) -> Result<SagaDecision, Rejection> {
    let saga_id = process.ticket_id.purchase_saga();
    if records.get::<SagaRecord>(saga_id)?.is_some() {
        return Ok(Decision::default());
    }
    let purchase: Option<Purchase> = records.get(process.ticket_id)?;
    let payload = PurchasePayload {
        ticket_id: process.ticket_id,
        event_id: process.event_id,
        user_id: process.user_id,
        total_amount: process.total_amount,
        point: process.point,
        expires_at: purchase.map(|purchase| purchase.expires_at),
        payment_id: None,
    };
    if has_ended {
        return cancel_before_start(&payload, now);
    }
    let new_saga = new_saga(&payload);
    coordinator::begin(&Sagas, &PURCHASE, new_saga, now).map(decision)
}

fn new_saga(payload: &PurchasePayload) -> NewSaga {
    NewSaga {
        saga_id: payload.ticket_id.purchase_saga(),
        reference_id: payload.ticket_id.to_string(),
        payload: payload.to_json(),
    }
}

/// A purchase whose reservation ended before its first step: it takes nothing, and releases what may be left of its claim.
fn cancel_before_start(
    payload: &PurchasePayload,
    now: Timestamp,
) -> Result<SagaDecision, Rejection> {
    let new_saga = new_saga(payload);
    let ended =
        coordinator::cancel_before_start(&Sagas, &PURCHASE, new_saga, RESERVATION_EXPIRED, now)?;
    release_when_compensated(ended, now)
}

/// `ticketing.cancel`: starts the cancellation of a ticket, once for each cancellation number.
///
/// # Errors
/// A [`Rejection`] if its first request cannot be made.
pub fn cancel(
    cancel: &Cancel,
    records: &Records,
    now: Timestamp,
) -> Result<SagaDecision, Rejection> {
    let saga_id = cancel.ticket_id.cancel_saga(cancel.cancellation);
    if records.get::<SagaRecord>(saga_id)?.is_some() {
        return Ok(Decision::default());
    }
    let purchase: Option<Purchase> = records.get(cancel.ticket_id)?;
    let payload = CancellationPayload {
        ticket_id: cancel.ticket_id,
        event_id: cancel.event_id,
        user_id: cancel.user_id,
        payment_id: cancel.payment_id,
        point: purchase.map_or(Points::ZERO, |purchase| purchase.point),
        reason: cancel.reason.clone(),
    };
    let new_saga = NewSaga {
        saga_id,
        reference_id: cancel.ticket_id.to_string(),
        payload: payload.to_json(),
    };
    coordinator::begin(&Sagas, &CANCEL, new_saga, now).map(decision)
}

/// A participant's reply, or none in time.
///
/// # Errors
/// A [`Rejection`] if its saga does not exist or does not wait for it.
pub fn receive(
    message: &SagaMessage,
    records: &Records,
    now: Timestamp,
) -> Result<SagaDecision, Rejection> {
    let saga = message.saga(records)?;
    let was_closed = is_payment_closed(&saga);
    finish(was_closed, message.advance(&Sagas, saga, now)?, now)
}

/// `ticketing.expire`: the reservation expired, or its buyer released it. A purchase in progress is compensated; one that
/// waits for payment is undone by a saga of its own; one that was requested and has not started never starts, because
/// its `ticketing.process` may be handled later, or by another member of the group at this moment. The claim stays until
/// no payment can take money any more. While it stays this message is repeated, because the release may be lost.
///
/// # Errors
/// A [`Rejection`] if a stored saga cannot be read.
pub fn expire(
    message: &Message,
    ticket_id: TicketId,
    records: &Records,
    now: Timestamp,
) -> Result<SagaDecision, Rejection> {
    let Some(purchase) = records.get::<SagaRecord>(ticket_id.purchase_saga())? else {
        let requested: Option<Purchase> = records.get(ticket_id)?;
        return requested.map_or(Ok(Decision::default()), |it| {
            cancel_before_start(&it.into(), now)
        });
    };
    let release_id = format!("{}:release", message.id);
    match purchase.state {
        SagaState::Started => advance(
            purchase,
            Input::Abort {
                reason: RESERVATION_EXPIRED.to_owned(),
            },
            now,
        ),
        SagaState::Compensating | SagaState::Compensated => {
            release_if_closed(&purchase, release_id, now)
        }
        SagaState::Completed => {
            let saga_id = ticket_id.expire_saga();
            if let Some(expiry) = records.get::<SagaRecord>(saga_id)? {
                return release_if_closed(&expiry, release_id, now);
            }
            let new_saga = NewSaga {
                saga_id,
                reference_id: ticket_id.to_string(),
                payload: purchase.payload,
            };
            coordinator::begin(&Sagas, &EXPIRE, new_saga, now).map(decision)
        }
    }
}

/// An operator resumes a parked saga.
///
/// # Errors
/// A [`Rejection`] if the stored saga does not fit its definition.
pub fn resume(saga: SagaRecord, now: Timestamp) -> Result<Commit, Rejection> {
    Ok(advance(saga, Input::Resume, now)?.commit)
}

fn advance(saga: SagaRecord, input: Input, now: Timestamp) -> Result<SagaDecision, Rejection> {
    let was_closed = is_payment_closed(&saga);
    let progress = coordinator::advance(&Sagas, saga, input, now)?;
    finish(was_closed, progress, now)
}

/// Releases the reservation as soon as no payment can take money any more.
fn finish(
    was_closed: bool,
    progress: Option<Progress>,
    now: Timestamp,
) -> Result<SagaDecision, Rejection> {
    let Some(progress) = progress else {
        return Ok(Decision::default());
    };
    let is_expiry = progress.record.saga_type == EXPIRE.kind;
    if is_expiry && !was_closed && is_payment_closed(&progress.record) {
        return release(progress, now);
    }
    release_when_compensated(progress, now)
}

/// A compensated purchase releases its reservation at once.
fn release_when_compensated(progress: Progress, now: Timestamp) -> Result<SagaDecision, Rejection> {
    let is_over = progress.finished == Some(SagaState::Compensated);
    if is_over && progress.record.saga_type == PURCHASE.kind {
        return release(progress, now);
    }
    Ok(decision(progress))
}

fn release(mut progress: Progress, now: Timestamp) -> Result<SagaDecision, Rejection> {
    let id = format!("{}:release", progress.record.reference_id);
    let release = release_message(&progress.record, id, now)?;
    progress.commit.publish(release);
    Ok(decision(progress))
}

/// A saga is counted when it starts, ends or is parked.
fn decision(progress: Progress) -> SagaDecision {
    let saga = progress.record;
    let state = match saga.state {
        _ if saga.parked.is_some() => Some("PARKED"),
        SagaState::Completed | SagaState::Compensated => Some(saga.state.as_str()),
        SagaState::Started | SagaState::Compensating => (saga.version == 0).then_some("STARTED"),
    };
    let saga_type = saga.saga_type;
    Decision {
        commit: progress.commit,
        outcome: state.map(|state| SagaLabel { saga_type, state }),
    }
}

fn release_if_closed(
    saga: &SagaRecord,
    id: String,
    now: Timestamp,
) -> Result<SagaDecision, Rejection> {
    let mut commit = Commit::new();
    if is_payment_closed(saga) {
        commit.publish(release_message(saga, id, now)?);
    }
    Ok(commit.into())
}

fn release_message(saga: &SagaRecord, id: String, now: Timestamp) -> Result<Message, Rejection> {
    let PurchasePayload {
        ticket_id,
        event_id,
        user_id,
        ..
    } = PurchasePayload::of(saga)?;
    let release = Release {
        ticket_id,
        event_id,
        user_id,
    };
    Ok(saga.traced(Message::new(id, &release, now)))
}

/// Reads what starts or advances sagas: the responses of all steps and compensations too (`coordinator::check`).
pub const GROUP: Group = Group {
    name: "ticketing.saga",
    topics: &[
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
    ],
};
