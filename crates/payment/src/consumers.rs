//! The entry point for messages: one consumer group for all requests to the payment service.
//!
//! `create` and `delete` serve the purchase saga, `request_refund` the cancellation saga and ticketing, and
//! `handle_outcome` the outcome that [`crate::confirm`] or the settler has published.

use contract::{
    Payload, PaymentId, Timestamp,
    payment::{
        CancelRequest, CancelResponse, ConfirmedRequest, CreateRequest, CreateResponse,
        DeleteRequest, DeleteResponse,
    },
};
use messaging::{Commit, Consumer, Message, Records, Ref, Rejection};

use crate::{
    Service,
    model::{self, Creation, Deletion, OutcomeEffect, RefundReply},
    record::{OrphanChargeRecord, PaymentRecord, TombstoneRecord},
};

/// The consumer group of this service.
pub const GROUP: &str = "payment";
/// The topics of the group.
pub const TOPICS: &[&str] = &[
    CreateRequest::TOPIC,
    DeleteRequest::TOPIC,
    ConfirmedRequest::TOPIC,
    CancelRequest::TOPIC,
];

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

impl Consumer for PaymentConsumer {
    type Prefetched = ();

    fn group(&self) -> &'static str {
        GROUP
    }

    fn topics(&self) -> &'static [&'static str] {
        TOPICS
    }

    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        let payment = payment_of(message)?;
        let mut refs = vec![
            Ref::to::<PaymentRecord>(payment),
            Ref::to::<TombstoneRecord>(payment),
        ];
        if message.topic == ConfirmedRequest::TOPIC {
            let charge = message.parse::<ConfirmedRequest>()?.pg_payment_id;
            refs.push(Ref::to::<OrphanChargeRecord>(charge.as_str()));
        }
        Ok(refs)
    }

    fn decide(
        &self,
        message: &Message,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        decide(message, records, now)
    }

    /// Wakes the settler before its next tick.
    fn committed(&self, message: &Message, _commit: &Commit) {
        if message.topic == CancelRequest::TOPIC || message.topic == ConfirmedRequest::TOPIC {
            self.service.inner.wake.refunds.notify_one();
        }
    }
}

fn decide(message: &Message, records: &Records, now: Timestamp) -> Result<Commit, Rejection> {
    match message.topic.as_str() {
        CreateRequest::TOPIC => create(message, records, now),
        DeleteRequest::TOPIC => delete(message, records, now),
        ConfirmedRequest::TOPIC => handle_outcome(message, records, now),
        CancelRequest::TOPIC => request_refund(message, records, now),
        other => Err(unexpected(other)),
    }
}

fn payment_of(message: &Message) -> Result<PaymentId, Rejection> {
    match message.topic.as_str() {
        CreateRequest::TOPIC => Ok(PaymentId::of_saga(
            message.parse::<CreateRequest>()?.saga_id,
        )),
        DeleteRequest::TOPIC => Ok(message.parse::<DeleteRequest>()?.payment_id),
        ConfirmedRequest::TOPIC => Ok(message.parse::<ConfirmedRequest>()?.payment_id),
        CancelRequest::TOPIC => Ok(message.parse::<CancelRequest>()?.payment_id),
        other => Err(unexpected(other)),
    }
}

fn unexpected(topic: &str) -> Rejection {
    Rejection::new(format_args!("{topic} is not for the payment service"))
}

fn create(message: &Message, records: &Records, now: Timestamp) -> Result<Commit, Rejection> {
    let request: CreateRequest = message.parse()?;
    let payment_id = PaymentId::of_saga(request.saga_id);
    let known = records.get(payment_id)?;
    let tombstone = records.get(payment_id)?;
    let mut commit = Commit::new();
    let succeed = match model::create(&request, known.as_ref(), tombstone.as_ref(), now)? {
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
    respond(&mut commit, &message.id, &response, now);
    Ok(commit)
}

fn delete(message: &Message, records: &Records, now: Timestamp) -> Result<Commit, Rejection> {
    let request: DeleteRequest = message.parse()?;
    let known = records.get(request.payment_id)?;
    let tombstone = records.get(request.payment_id)?;
    let mut commit = Commit::new();
    let succeed = match model::delete(&request, known.as_ref(), tombstone.as_ref(), now) {
        Deletion::Closed(change) => {
            change.save(&mut commit);
            true
        }
        Deletion::Tombstoned(tombstone) => {
            commit.put(&tombstone);
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
    respond(&mut commit, &message.id, &response, now);
    Ok(commit)
}

/// `Service::outcome_commit` has applied the outcome already, so this usually changes nothing. It applies an outcome that
/// an earlier version of the program only published.
fn handle_outcome(
    message: &Message,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let outcome: ConfirmedRequest = message.parse()?;
    let payment = existing(records, outcome.payment_id)?;
    let known = records.get(outcome.pg_payment_id.as_str())?;
    apply_outcome(&payment, known, &outcome, &message.id, now)
}

/// The Commit of an outcome. `known` is the orphan record of the charge, if any. `message_id` is the id of the message
/// that publishes the outcome; the ids of responses derive from it.
///
/// # Errors
/// A [`Rejection`] if the attempt was never made.
pub(crate) fn apply_outcome(
    payment: &PaymentRecord,
    known: Option<OrphanChargeRecord>,
    outcome: &ConfirmedRequest,
    message_id: &str,
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
                respond(&mut commit, message_id, &response, now);
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
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let request: CancelRequest = message.parse()?;
    let payment = existing(records, request.payment_id)?;
    let mut commit = Commit::new();
    match payment.request_refund(&request, now)? {
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
                respond(&mut commit, &message.id, &response, now);
            }
        }
    }
    Ok(commit)
}

fn existing(records: &Records, id: PaymentId) -> Result<PaymentRecord, Rejection> {
    let payment = records.get(id)?;
    payment.ok_or_else(|| Rejection::new(format_args!("there is no payment {id}")))
}

/// Publishes the response to a request; its id derives from the request's, so that deciding again gives the same.
fn respond<P: Payload>(commit: &mut Commit, request_id: &str, response: &P, now: Timestamp) {
    commit.publish(Message::new(
        format!("{request_id}:response"),
        response,
        now,
    ));
}

#[cfg(test)]
mod tests;
