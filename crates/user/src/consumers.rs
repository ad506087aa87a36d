//! The message consumer: requests of the purchase saga, and payments.
//!
//! Each request message gets one reply, in the Commit that does the work.
//!
//! **To answer a further request:** its topic in [`GROUP`], a variant of [`UserRequest`], an arm in `read`,
//! `required_records` and `decide`, and a function like `check_active`, whose reply is made by `reply_to`. If it takes
//! something, its record is found by saga, as [`Hold`] is: a repeated request gets the same reply, and a compensation that
//! comes first leaves a tombstone, which refuses the late request (`points`).

use contract::{
    Payload, Points, SagaId, Timestamp,
    domain::{self, DomainMessage},
    user::{
        CheckActiveRequest, CheckActiveResponse, CheckFraudRequest, CheckFraudResponse,
        ReservePointRequest, ReservePointResponse, RestorePointRequest, RestorePointResponse,
    },
};
use messaging::{Commit, Consumer, Decision, Group, Message, Records, Ref, Rejection};

use crate::{
    Service,
    fraud::{self, FraudVerdict, Rules},
    model::User,
    points::{self, Hold, HoldRequest, PaymentUpdate, RestoreReason},
};

pub const GROUP: Group = Group {
    name: "user",
    topics: &[
        CheckActiveRequest::TOPIC,
        ReservePointRequest::TOPIC,
        RestorePointRequest::TOPIC,
        CheckFraudRequest::TOPIC,
        PaymentMessage::TOPIC,
    ],
};

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

/// A parsed message.
pub enum UserRequest {
    CheckActive(CheckActiveRequest),
    ReservePoint(ReservePointRequest),
    RestorePoint(RestorePointRequest),
    CheckFraud(CheckFraudRequest),
    Payment(Box<PaymentMessage>),
}

impl Consumer for UserConsumer {
    type Input = UserRequest;
    type Prefetched = ();
    type Outcome = ();

    fn group(&self) -> Group {
        GROUP
    }

    fn read(&self, message: &Message) -> Result<UserRequest, Rejection> {
        match message.topic.as_str() {
            CheckActiveRequest::TOPIC => message.parse().map(UserRequest::CheckActive),
            ReservePointRequest::TOPIC => message.parse().map(UserRequest::ReservePoint),
            RestorePointRequest::TOPIC => message.parse().map(UserRequest::RestorePoint),
            CheckFraudRequest::TOPIC => message.parse().map(UserRequest::CheckFraud),
            PaymentMessage::TOPIC => message.parse().map(UserRequest::Payment),
            other => Err(Rejection::new(format_args!(
                "{} does not read {other}",
                GROUP.name
            ))),
        }
    }

    fn required_records(&self, request: &UserRequest) -> Vec<Ref> {
        let (user_id, holder) = match request {
            UserRequest::CheckActive(request) => (request.user_id, None),
            UserRequest::CheckFraud(request) => (request.user_id, None),
            UserRequest::ReservePoint(request) => (request.user_id, Some(request.saga_id)),
            UserRequest::RestorePoint(request) => (request.user_id, Some(holder_of(request))),
            UserRequest::Payment(payment) => {
                (payment.payload.user_id, Some(purchase_saga_of(payment)))
            }
        };
        let mut refs = vec![Ref::to::<User>(user_id)];
        refs.extend(holder.map(Ref::to::<Hold>));
        refs
    }

    fn decide(
        &self,
        message: &Message,
        request: &UserRequest,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        let commit = match request {
            UserRequest::CheckActive(request) => check_active(message, request, records, now),
            UserRequest::ReservePoint(request) => reserve_point(message, request, records, now),
            UserRequest::RestorePoint(request) => restore_point(message, request, records, now),
            UserRequest::CheckFraud(request) => {
                check_fraud(&self.rules, message, request, records, now)
            }
            UserRequest::Payment(payment) => apply_payment(payment, records, now),
        }?;
        Ok(commit.into())
    }
}

/// The saga whose points are to be restored.
fn holder_of(request: &RestorePointRequest) -> SagaId {
    request.held_by.unwrap_or(request.saga_id)
}

/// An unknown user is not active, which ends the purchase.
fn check_active(
    message: &Message,
    request: &CheckActiveRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let CheckActiveRequest { saga_id, user_id } = *request;
    let user = records.get::<User>(user_id)?;
    let response = CheckActiveResponse {
        saga_id,
        user_id,
        is_active: user.is_some_and(|user| user.is_active()),
    };
    let mut commit = Commit::new();
    commit.publish(reply_to(message, &response, now));
    Ok(commit)
}

fn reserve_point(
    message: &Message,
    request: &ReservePointRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let ReservePointRequest {
        saga_id,
        user_id,
        point,
    } = *request;
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
    commit.publish(reply_to(message, &response, now));
    Ok(commit)
}

fn restore_point(
    message: &Message,
    request: &RestorePointRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let RestorePointRequest {
        saga_id, user_id, ..
    } = *request;
    let hold_request = HoldRequest {
        saga_id: holder_of(request),
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
    commit.publish(reply_to(message, &response, now));
    Ok(commit)
}

/// An unknown user is clear: the check for an active user has already ended its purchase.
fn check_fraud(
    rules: &Rules,
    message: &Message,
    request: &CheckFraudRequest,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let CheckFraudRequest {
        saga_id,
        user_id,
        total_amount,
    } = *request;
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
    commit.publish(reply_to(message, &response, now));
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
fn reply_to<P: Payload>(request: &Message, response: &P, now: Timestamp) -> Message {
    let verb = request
        .topic
        .trim_start_matches("user.")
        .trim_end_matches(".request");
    let id = format!("{}:{verb}:response:{}", response.key(), request.id);
    Message::new(id, response, now)
}
