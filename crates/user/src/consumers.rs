//! The door for messages: the purchase saga's questions, and what becomes of payments.
//!
//! Every request is answered once for each request message, in the Commit that does the work.

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
    fraud::{self, Rules, Verdict},
    model::User,
    points::{self, Claim, Hold, Settlement, Why},
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

/// Answers the purchase saga and follows payments.
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
    type Prepared = ();

    fn group(&self) -> &'static str {
        GROUP
    }

    fn topics(&self) -> &'static [&'static str] {
        TOPICS
    }

    fn concerns(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        let (user_id, holder) = match Question::read(message)? {
            Question::CheckActive(request) => (request.user_id, None),
            Question::CheckFraud(request) => (request.user_id, None),
            Question::ReservePoint(request) => (request.user_id, Some(request.saga_id)),
            Question::RestorePoint(request) => (request.user_id, Some(holder(&request))),
            Question::Payment(payment) => (payment.payload.user_id, Some(saga_of(&payment))),
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
        match Question::read(message)? {
            Question::CheckActive(request) => check_active(message, request, records, now),
            Question::ReservePoint(request) => reserve_point(message, request, records, now),
            Question::RestorePoint(request) => restore_point(message, request, records, now),
            Question::CheckFraud(request) => {
                check_fraud(&self.rules, message, request, records, now)
            }
            Question::Payment(payment) => follow_payment(&payment, records, now),
        }
    }
}

/// A message, read.
enum Question {
    CheckActive(CheckActiveRequest),
    ReservePoint(ReservePointRequest),
    RestorePoint(RestorePointRequest),
    CheckFraud(CheckFraudRequest),
    Payment(Box<PaymentMessage>),
}

impl Question {
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

/// The saga whose hold is to be given back.
fn holder(request: &RestorePointRequest) -> SagaId {
    request.held_by.unwrap_or(request.saga_id)
}

/// An unknown user is not active; that alone ends the purchase.
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
    commit.publish(answer(message, "check.active", saga_id, &response, now));
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
    let claim = Claim {
        saga_id,
        user_id,
        point,
    };
    let (user, hold) = (records.get(user_id)?, records.get(saga_id)?);
    let (reserved, change) = points::reserve(claim, user, hold, now).map_err(Rejection::new)?;
    let response = ReservePointResponse {
        saga_id,
        user_id,
        point,
        reserved,
    };
    let mut commit = change.into_commit();
    commit.publish(answer(message, "reserve.point", saga_id, &response, now));
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
    let claim = Claim {
        saga_id: holder(&request),
        user_id,
        point: Points::ZERO,
    };
    let why = if request.refunded {
        Why::Refunded
    } else {
        Why::Unpaid
    };
    let (user, hold) = (records.get(user_id)?, records.get(claim.saga_id)?);
    let (told, change) = points::restore(claim, why, user, hold, now).map_err(Rejection::new)?;
    let response = RestorePointResponse {
        saga_id,
        user_id,
        point: told.point,
        succeed: told.succeed,
    };
    let mut commit = change.into_commit();
    commit.publish(answer(message, "restore.point", saga_id, &response, now));
    Ok(commit)
}

/// Of an unknown user there is nothing to suspect: it was not active, and did not come this far.
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
        None => Verdict::Clear,
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
        is_fraudulent: verdict != Verdict::Clear,
    };
    commit.publish(answer(message, "check.fraud", saga_id, &response, now));
    Ok(commit)
}

/// The purchase that a payment belongs to: a payment service of another make need not name it.
fn saga_of(payment: &PaymentMessage) -> SagaId {
    let derived = || payment.payload.ticket_id.purchase_saga();
    payment.payload.saga_id.unwrap_or_else(derived)
}

/// A payment whose saga has no hold took no points.
fn follow_payment(
    payment: &PaymentMessage,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let saga_id = saga_of(payment);
    let settlement = Settlement {
        user_id: payment.payload.user_id,
        status: payment.payload.status,
        version: payment.version,
    };
    let (user, hold) = (records.get(settlement.user_id)?, records.get(saga_id)?);
    points::settle(settlement, user, hold, now)
        .map(crate::ledger::Change::into_commit)
        .map_err(Rejection::new)
}

/// One response for each request message: its id follows from the request's.
fn answer<P: Payload>(
    request: &Message,
    verb: &str,
    saga_id: SagaId,
    response: &P,
    now: Timestamp,
) -> Message {
    let id = format!("{saga_id}:{verb}:response:{}", request.id);
    Message::new(id, response, now)
}
