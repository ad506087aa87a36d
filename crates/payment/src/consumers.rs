//! The entry point for messages: one consumer group for all requests to the payment service.
//!
//! `create` and `delete` serve the purchase saga, `request_refund` the cancellation saga and ticketing, and
//! `handle_outcome` the outcome that [`crate::confirm`] or the settler has published.
//!
//! **To answer a further request:** its topic in [`GROUP`], a variant of [`PaymentRequest`], an arm in its `read` and
//! `payment_id` and in `decide`, and a function like `create`, which answers a repeated request in the same way.

use contract::{
    Payload, PaymentId, Timestamp,
    payment::{
        CancelRequest, CancelResponse, ConfirmedRequest, CreateRequest, CreateResponse,
        DeleteRequest, DeleteResponse,
    },
};
use messaging::{Commit, Consumer, Decision, Group, Message, Records, Ref, Rejection};

use crate::{
    Service,
    model::{self, Creation, Deletion, OutcomeEffect, RefundReply},
    record::{OrphanChargeRecord, PaymentRecord, TombstoneRecord},
};

/// The consumer group of this service.
pub const GROUP: Group = Group {
    name: "payment",
    topics: &[
        CreateRequest::TOPIC,
        DeleteRequest::TOPIC,
        ConfirmedRequest::TOPIC,
        CancelRequest::TOPIC,
    ],
};

/// Decides about requests and outcomes.
pub struct PaymentConsumer {
    service: Service,
}

impl PaymentConsumer {
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service }
    }
}

/// A parsed message.
pub enum PaymentRequest {
    Create(CreateRequest),
    Delete(DeleteRequest),
    Outcome(ConfirmedRequest),
    Cancel(CancelRequest),
}

impl PaymentRequest {
    fn read(message: &Message) -> Result<Self, Rejection> {
        match message.topic.as_str() {
            CreateRequest::TOPIC => message.parse().map(Self::Create),
            DeleteRequest::TOPIC => message.parse().map(Self::Delete),
            ConfirmedRequest::TOPIC => message.parse().map(Self::Outcome),
            CancelRequest::TOPIC => message.parse().map(Self::Cancel),
            topic => Err(Rejection::new(format_args!(
                "{topic} is not for the payment service"
            ))),
        }
    }

    fn payment_id(&self) -> PaymentId {
        match self {
            Self::Create(request) => PaymentId::of_saga(request.saga_id),
            Self::Delete(request) => request.payment_id,
            Self::Outcome(outcome) => outcome.payment_id,
            Self::Cancel(request) => request.payment_id,
        }
    }
}

impl Consumer for PaymentConsumer {
    type Input = PaymentRequest;
    type Prefetched = ();
    /// Whether the settler may have a refund to make.
    type Outcome = bool;

    fn group(&self) -> Group {
        GROUP
    }

    fn read(&self, message: &Message) -> Result<PaymentRequest, Rejection> {
        PaymentRequest::read(message)
    }

    fn required_records(&self, request: &PaymentRequest) -> Vec<Ref> {
        let payment_id = request.payment_id();
        let mut refs = vec![
            Ref::to::<PaymentRecord>(payment_id),
            Ref::to::<TombstoneRecord>(payment_id),
        ];
        if let PaymentRequest::Outcome(outcome) = request {
            let charge = outcome.pg_payment_id.as_str();
            refs.push(Ref::to::<OrphanChargeRecord>(charge));
        }
        refs
    }

    fn decide(
        &self,
        message: &Message,
        request: &PaymentRequest,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Decision<bool>, Rejection> {
        Ok(Decision {
            commit: decide(message, request, records, now)?,
            outcome: matches!(
                request,
                PaymentRequest::Outcome(_) | PaymentRequest::Cancel(_)
            ),
        })
    }

    /// Wakes the settler before its next tick.
    fn committed(&self, may_refund: bool) {
        if may_refund {
            self.service.inner.wake.refunds.notify_one();
        }
    }
}

fn decide(
    message: &Message,
    request: &PaymentRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    match request {
        PaymentRequest::Create(request) => create(message, request, records, now),
        PaymentRequest::Delete(request) => delete(message, request, records, now),
        PaymentRequest::Outcome(outcome) => handle_outcome(message, outcome, records, now),
        PaymentRequest::Cancel(request) => request_refund(message, request, records, now),
    }
}

fn create(
    message: &Message,
    request: &CreateRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let payment_id = PaymentId::of_saga(request.saga_id);
    let known = records.get(payment_id)?;
    let tombstone = records.get(payment_id)?;
    let mut commit = Commit::new();
    let succeed = match model::create(request, known.as_ref(), tombstone.as_ref(), now)? {
        Creation::Opened(change) => {
            change.save(&mut commit);
            true
        }
        Creation::Tombstoned(tombstone) => {
            commit.put(&tombstone);
            false
        }
        Creation::Decided { succeed } => succeed,
    };
    let response = CreateResponse {
        saga_id: request.saga_id,
        succeed,
        user_id: request.user_id,
        event_id: request.event_id,
        payment_id: succeed.then_some(payment_id),
    };
    commit.publish(message.reply(&response, now));
    Ok(commit)
}

fn delete(
    message: &Message,
    request: &DeleteRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let known = records.get(request.payment_id)?;
    let tombstone = records.get(request.payment_id)?;
    let mut commit = Commit::new();
    let succeed = match model::delete(request, known.as_ref(), tombstone.as_ref(), now) {
        Deletion::Closed(change) => {
            change.save(&mut commit);
            true
        }
        Deletion::Tombstoned(tombstone) => {
            commit.put(&tombstone).append(&tombstone.entry());
            true
        }
        Deletion::Decided { succeed } => succeed,
        Deletion::Deferred(noted) => {
            if let Some(change) = noted {
                change.save(&mut commit);
            }
            return Ok(commit);
        }
    };
    let response = DeleteResponse {
        saga_id: request.saga_id,
        succeed,
        payment_id: request.payment_id,
    };
    commit.publish(message.reply(&response, now));
    Ok(commit)
}

/// `Service::outcome_commit` has applied the outcome already, so this usually changes nothing. It applies an outcome that
/// an earlier version of the program only published.
fn handle_outcome(
    message: &Message,
    outcome: &ConfirmedRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let payment = existing(records, outcome.payment_id)?;
    let known = records.get(outcome.pg_payment_id.as_str())?;
    apply_outcome(&payment, known, outcome, message, now)
}

/// The Commit of an outcome. `known` is the orphan record of the charge, if any. `message` publishes the
/// outcome; a response is a reply to it.
///
/// # Errors
/// A [`Rejection`] if the attempt was never made.
pub(crate) fn apply_outcome(
    payment: &PaymentRecord,
    known: Option<OrphanChargeRecord>,
    outcome: &ConfirmedRequest,
    message: &Message,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let mut commit = Commit::new();
    match payment.record_outcome(outcome, now)? {
        OutcomeEffect::Changed(change) => {
            change.save(&mut commit);
            if let Some((saga_id, succeed)) = payment.deferred_deletion(change.payment()) {
                let response = DeleteResponse {
                    saga_id,
                    succeed,
                    payment_id: payment.payment_id,
                };
                commit.publish(message.reply(&response, now));
            }
            // The charge of this payment needs no refund as an orphan any more.
            let is_its_own = |orphan: &OrphanChargeRecord| orphan.is_open() && payment.owns(orphan);
            if let Some(orphan) = known.filter(|orphan| outcome.confirmed && is_its_own(orphan)) {
                commit.delete(&orphan);
            }
        }
        OutcomeEffect::AlreadyKnown => {}
        OutcomeEffect::ChargedAgain => {
            let charge = outcome.pg_payment_id.as_str();
            if let Some(orphan) = payment.orphan_to_refund(charge, payment.final_amount, known, now)
            {
                commit.put(&orphan);
            }
        }
    }
    Ok(commit)
}

fn request_refund(
    message: &Message,
    request: &CancelRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let payment = existing(records, request.payment_id)?;
    let mut commit = Commit::new();
    match payment.request_refund(request, now)? {
        RefundReply::Requested(change) => change.save(&mut commit),
        RefundReply::Undecided => {}
        RefundReply::Decided { succeed, code } => {
            if let Some(saga_id) = request.saga_id {
                let payment_id = request.payment_id;
                let response = CancelResponse {
                    saga_id,
                    payment_id,
                    succeed,
                    code,
                };
                commit.publish(message.reply(&response, now));
            }
        }
    }
    Ok(commit)
}

fn existing(records: &Records, id: PaymentId) -> Result<PaymentRecord, Rejection> {
    let payment = records.get(id)?;
    payment.ok_or_else(|| Rejection::new(format_args!("there is no payment {id}")))
}

#[cfg(test)]
mod tests;
