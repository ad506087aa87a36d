//! The message consumer: requests of the purchase saga, and payments.
//!
//! Each request message gets one reply, in the Commit that does the work.

use contract::{
    Payload, Points, SagaId, Timestamp,
    domain::{self, DomainMessage},
    user::{
        CheckActiveRequest, CheckActiveResponse, CheckFraudRequest, CheckFraudResponse,
        ReservePointRequest, ReservePointResponse, RestorePointRequest, RestorePointResponse,
    },
};
use messaging::{Commit, Consumer, Message, Records, Ref, Rejection};

use crate::{
    Service,
    fraud::{self, FraudVerdict, Rules},
    model::User,
    points::{self, Hold, HoldRequest, PaymentUpdate, RestoreReason},
};

pub const GROUP: &str = "user";

pub const TOPICS: &[&str] = &[
    CheckActiveRequest::TOPIC,
    ReservePointRequest::TOPIC,
    RestorePointRequest::TOPIC,
    CheckFraudRequest::TOPIC,
    PaymentMessage::TOPIC,
];

type PaymentMessage = DomainMessage<domain::Payment>;

/// Replies to the purchase saga, and applies payments to held points.
pub struct UserConsumer {
    rules: Rules,
}

impl UserConsumer {
    #[must_use]
    pub fn new(service: &Service) -> Self {
        Self {
            rules: service.0.settings.fraud.clone(),
        }
    }
}

impl Consumer for UserConsumer {
    type Prefetched = ();

    fn group(&self) -> &'static str {
        GROUP
    }

    fn topics(&self) -> &'static [&'static str] {
        TOPICS
    }

    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        let (user_id, holder) = match UserRequest::read(message)? {
            UserRequest::CheckActive(request) => (request.user_id, None),
            UserRequest::CheckFraud(request) => (request.user_id, None),
            UserRequest::ReservePoint(request) => (request.user_id, Some(request.saga_id)),
            UserRequest::RestorePoint(request) => (request.user_id, Some(holder_of(&request))),
            UserRequest::Payment(payment) => {
                (payment.payload.user_id, Some(purchase_saga_of(&payment)))
            }
        };
        let mut refs = vec![Ref::to::<User>(user_id)];
        refs.extend(holder.map(Ref::to::<Hold>));
        Ok(refs)
    }

    fn decide(
        &self,
        message: &Message,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        match UserRequest::read(message)? {
            UserRequest::CheckActive(request) => check_active(message, request, records, now),
            UserRequest::ReservePoint(request) => reserve_point(message, request, records, now),
            UserRequest::RestorePoint(request) => restore_point(message, request, records, now),
            UserRequest::CheckFraud(request) => {
                check_fraud(&self.rules, message, request, records, now)
            }
            UserRequest::Payment(payment) => apply_payment(&payment, records, now),
        }
    }
}

/// A parsed message.
enum UserRequest {
    CheckActive(CheckActiveRequest),
    ReservePoint(ReservePointRequest),
    RestorePoint(RestorePointRequest),
    CheckFraud(CheckFraudRequest),
    Payment(Box<PaymentMessage>),
}

impl UserRequest {
    fn read(message: &Message) -> Result<Self, Rejection> {
        match message.topic.as_str() {
            CheckActiveRequest::TOPIC => message.parse().map(Self::CheckActive),
            ReservePointRequest::TOPIC => message.parse().map(Self::ReservePoint),
            RestorePointRequest::TOPIC => message.parse().map(Self::RestorePoint),
            CheckFraudRequest::TOPIC => message.parse().map(Self::CheckFraud),
            PaymentMessage::TOPIC => message.parse().map(Box::new).map(Self::Payment),
            other => Err(Rejection::new(format_args!(
                "{GROUP} does not read {other}"
            ))),
        }
    }
}

/// The saga whose points are to be restored.
fn holder_of(request: &RestorePointRequest) -> SagaId {
    request.held_by.unwrap_or(request.saga_id)
}

/// An unknown user is not active, which ends the purchase.
fn check_active(
    message: &Message,
    request: CheckActiveRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let CheckActiveRequest { saga_id, user_id } = request;
    let user = records.get::<User>(user_id)?;
    let response = CheckActiveResponse {
        saga_id,
        user_id,
        is_active: user.is_some_and(|user| user.is_active()),
    };
    let mut commit = Commit::new();
    commit.publish(reply_to(message, "check.active", saga_id, &response, now));
    Ok(commit)
}

fn reserve_point(
    message: &Message,
    request: ReservePointRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let ReservePointRequest {
        saga_id,
        user_id,
        point,
    } = request;
    let hold_request = HoldRequest {
        saga_id,
        user_id,
        point,
    };
    let (user, hold) = (records.get(user_id)?, records.get(saga_id)?);
    let (reserved, change) =
        points::reserve(hold_request, user, hold, now).map_err(Rejection::new)?;
    let response = ReservePointResponse {
        saga_id,
        user_id,
        point,
        reserved,
    };
    let mut commit = change.into_commit();
    commit.publish(reply_to(message, "reserve.point", saga_id, &response, now));
    Ok(commit)
}

fn restore_point(
    message: &Message,
    request: RestorePointRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let RestorePointRequest {
        saga_id, user_id, ..
    } = request;
    let hold_request = HoldRequest {
        saga_id: holder_of(&request),
        user_id,
        point: Points::ZERO,
    };
    let reason = if request.refunded {
        RestoreReason::Refunded
    } else {
        RestoreReason::Unpaid
    };
    let (user, hold) = (records.get(user_id)?, records.get(hold_request.saga_id)?);
    let (reply, change) =
        points::restore(hold_request, reason, user, hold, now).map_err(Rejection::new)?;
    let response = RestorePointResponse {
        saga_id,
        user_id,
        point: reply.point,
        succeed: reply.succeed,
    };
    let mut commit = change.into_commit();
    commit.publish(reply_to(message, "restore.point", saga_id, &response, now));
    Ok(commit)
}

/// An unknown user is clear: the check for an active user has already ended its purchase.
fn check_fraud(
    rules: &Rules,
    message: &Message,
    request: CheckFraudRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let CheckFraudRequest {
        saga_id,
        user_id,
        total_amount,
    } = request;
    let mut commit = Commit::new();
    let verdict = match records.get::<User>(user_id)? {
        None => FraudVerdict::Clear,
        Some(user) => {
            let (verdict, saved) = fraud::check(rules, user, saga_id, total_amount, now);
            if let Some(user) = saved {
                commit.put(&user);
            }
            verdict
        }
    };
    let response = CheckFraudResponse {
        saga_id,
        user_id,
        is_fraudulent: verdict != FraudVerdict::Clear,
    };
    commit.publish(reply_to(message, "check.fraud", saga_id, &response, now));
    Ok(commit)
}

/// The purchase that a payment belongs to. A foreign payment service need not name it.
fn purchase_saga_of(payment: &PaymentMessage) -> SagaId {
    let derived = || payment.payload.ticket_id.purchase_saga();
    payment.payload.saga_id.unwrap_or_else(derived)
}

/// A payment whose saga has no hold used no points.
fn apply_payment(
    payment: &PaymentMessage,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let saga_id = purchase_saga_of(payment);
    let update = PaymentUpdate {
        user_id: payment.payload.user_id,
        status: payment.payload.status,
        version: payment.version,
    };
    let (user, hold) = (records.get(update.user_id)?, records.get(saga_id)?);
    points::apply_payment(update, user, hold, now)
        .map(crate::ledger::BalanceChange::into_commit)
        .map_err(Rejection::new)
}

/// The reply to a request message; its id is derived from the request's, so a repeated decision has the same one.
fn reply_to<P: Payload>(
    request: &Message,
    verb: &str,
    saga_id: SagaId,
    response: &P,
    now: Timestamp,
) -> Message {
    let id = format!("{saga_id}:{verb}:response:{}", request.id);
    Message::new(id, response, now)
}
