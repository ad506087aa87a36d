//! The two sagas: a purchase going forward, and an unpaid purchase being taken back. What a purchase needs to make
//! its requests travels with the saga as its payload.

use contract::{EventId, Money, Points, TicketId, Timestamp, UserId, payment, user};
use messaging::{
    Message, Rejection,
    coordinator::{Domain, SagaRecord, Send},
};
use saga::{Backoff, Catalog, Definition, Direction, Failure, Outcome, Step};
use serde::{Deserialize, Serialize};

/// How long a participant may take before it is asked again.
const ANSWER_MILLIS: u64 = 10_000;
const ASK_AGAIN_MAX: u32 = 3;
/// A purchase that is being taken back waits while money may be moving: ten minutes, then a person looks.
const CLOSE_AGAIN_MAX: u32 = 60;
const UNDO: Backoff = Backoff {
    initial_millis: 1_000,
    max_millis: 60_000,
    retry_limit: 20,
};

const CHECK_ACTIVE: &str = "user.check.active";
const RESERVE_POINT: &str = "user.reserve.point";
const CHECK_FRAUD: &str = "user.check.fraud";
const CREATE_PAYMENT: &str = "payment.create";
const DELETE_PAYMENT: &str = "payment.delete";
const RESTORE_POINT: &str = "user.restore.point";

const fn asking(name: &'static str, request: &'static str) -> Step {
    Step::new(name, request)
        .timeout_millis(ANSWER_MILLIS)
        .retry_limit(ASK_AGAIN_MAX)
        .compensation_backoff(UNDO)
}

/// From a reservation to a payment that the buyer can settle.
pub static PURCHASE: Definition = Definition {
    kind: "ticketing.process",
    version: 1,
    steps: &[
        asking(CHECK_ACTIVE, "user.check.active.request"),
        asking(RESERVE_POINT, "user.reserve.point.request")
            .compensated_by("user.restore.point.request"),
        asking(CHECK_FRAUD, "user.check.fraud.request"),
        asking(CREATE_PAYMENT, "payment.create.request").compensated_by("payment.delete.request"),
    ],
};

/// What an unpaid purchase took is given back. The payment goes first: where it is refused, because it was paid
/// after all, the points stay used.
pub static EXPIRE: Definition = Definition {
    kind: "ticketing.expire",
    version: 1,
    steps: &[
        Step::new(DELETE_PAYMENT, "payment.delete.request")
            .timeout_millis(ANSWER_MILLIS)
            .retry_limit(CLOSE_AGAIN_MAX)
            .when_refused(Failure::Compensate)
            .when_silent(Failure::Park),
        Step::new(RESTORE_POINT, "user.restore.point.request")
            .timeout_millis(ANSWER_MILLIS)
            .retry_limit(CLOSE_AGAIN_MAX)
            .must_succeed(),
    ],
};

/// Every definition that a stored saga may have begun with. Versions are added, never changed.
pub static CATALOG: Catalog = Catalog(&[&PURCHASE, &EXPIRE]);

/// What a purchase is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
    pub expires_at: Option<Timestamp>,
}

impl Payload {
    /// # Errors
    /// A [`Rejection`] where the stored payload is not one.
    pub fn of(saga: &SagaRecord) -> Result<Self, Rejection> {
        serde_json::from_value(saga.payload.clone()).map_err(|error| {
            Rejection::new(format_args!(
                "the payload of saga {} cannot be read: {error}",
                saga.saga_id
            ))
        })
    }

    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a payload has string keys only")
    }
}

/// Makes the requests of both sagas.
pub struct Purchases;

impl Domain for Purchases {
    fn catalog(&self) -> Catalog {
        Catalog(CATALOG.0)
    }

    fn request(
        &self,
        saga: &SagaRecord,
        send: &Send,
        now: Timestamp,
    ) -> Result<Message, Rejection> {
        let Payload {
            ticket_id,
            event_id,
            user_id,
            total_amount,
            point,
            expires_at,
        } = Payload::of(saga)?;
        let saga_id = saga.saga_id;
        let name = saga
            .steps
            .get(send.step)
            .map_or("", |step| step.name.as_str());
        let id = send.message_id.clone();
        let message = match (name, send.direction) {
            (CHECK_ACTIVE, _) => {
                Message::new(id, &user::CheckActiveRequest { saga_id, user_id }, now)
            }
            (RESERVE_POINT, Direction::Request) => Message::new(
                id,
                &user::ReservePointRequest {
                    saga_id,
                    user_id,
                    point,
                },
                now,
            ),
            (RESERVE_POINT, Direction::Compensation) | (RESTORE_POINT, _) => {
                let held_by = Some(ticket_id.purchase_saga());
                Message::new(
                    id,
                    &user::RestorePointRequest {
                        saga_id,
                        user_id,
                        point,
                        held_by,
                        refunded: false,
                    },
                    now,
                )
            }
            (CHECK_FRAUD, _) => {
                let total_amount = Some(total_amount);
                Message::new(
                    id,
                    &user::CheckFraudRequest {
                        saga_id,
                        user_id,
                        total_amount,
                    },
                    now,
                )
            }
            (CREATE_PAYMENT, Direction::Request) => {
                let request = payment::CreateRequest {
                    saga_id,
                    ticket_id,
                    event_id,
                    user_id,
                    total_amount,
                    point,
                    expires_at,
                };
                Message::new(id, &request, now)
            }
            (CREATE_PAYMENT, Direction::Compensation) | (DELETE_PAYMENT, _) => {
                let payment_id = ticket_id.purchase_saga().payment();
                Message::new(
                    id,
                    &payment::DeleteRequest {
                        saga_id,
                        payment_id,
                    },
                    now,
                )
            }
            (unknown, _) => {
                return Err(Rejection::new(format_args!(
                    "saga {saga_id} has no step {unknown:?}"
                )));
            }
        };
        Ok(message)
    }
}

/// A participant's answer, as the machine understands it.
#[derive(Debug)]
pub struct Answer {
    pub saga_id: contract::SagaId,
    pub outcome: Outcome,
}

/// Reads a response.
///
/// # Errors
/// A [`Rejection`] where it cannot be read or is of no topic that a saga waits for.
pub fn read_answer(message: &Message) -> Result<Answer, Rejection> {
    use contract::Payload as _;
    let answer = |saga_id, proceeds: bool, reason: &str| {
        let outcome = if proceeds {
            Outcome::Proceed
        } else {
            Outcome::Refuse {
                reason: reason.to_owned(),
            }
        };
        Ok(Answer { saga_id, outcome })
    };
    match message.topic.as_str() {
        user::CheckActiveResponse::TOPIC => {
            let response: user::CheckActiveResponse = message.parse()?;
            answer(response.saga_id, response.is_active, "USER_NOT_ACTIVE")
        }
        user::ReservePointResponse::TOPIC => {
            let response: user::ReservePointResponse = message.parse()?;
            answer(response.saga_id, response.reserved, "NOT_ENOUGH_POINTS")
        }
        user::CheckFraudResponse::TOPIC => {
            let response: user::CheckFraudResponse = message.parse()?;
            answer(response.saga_id, !response.is_fraudulent, "FRAUD_SUSPECTED")
        }
        user::RestorePointResponse::TOPIC => {
            let response: user::RestorePointResponse = message.parse()?;
            answer(response.saga_id, response.succeed, "POINTS_NOT_RESTORED")
        }
        payment::CreateResponse::TOPIC => {
            let response: payment::CreateResponse = message.parse()?;
            answer(response.saga_id, response.succeed, "PAYMENT_NOT_CREATED")
        }
        payment::DeleteResponse::TOPIC => {
            let response: payment::DeleteResponse = message.parse()?;
            answer(response.saga_id, response.succeed, "PAYMENT_UNDER_WAY")
        }
        unknown => Err(Rejection::new(format_args!("no saga waits for {unknown}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_sound() {
        assert_eq!(CATALOG.validate(), Ok(()));
    }
}
