//! The sagas: a purchase going forward, an unpaid purchase being taken back, and a paid one being given back by its
//! buyer. What a saga needs to make its requests travels with it as its payload.

mod answer;
mod cancellation;
mod purchase;

use contract::{Timestamp, ticketing::SAGA_TIMEOUT};
use messaging::{
    Message, Rejection,
    coordinator::{Domain, SagaRecord, Send},
};
use saga::{Backoff, Catalog, Definition, OnFailure, SagaState, Step, StepState};

pub use answer::{Answer, read_answer};
pub use cancellation::Cancellation;
pub use purchase::Payload;

/// How long a participant may take before it is asked again.
const ANSWER_MILLIS: u64 = 10_000;
const ASK_AGAIN_MAX: u32 = 3;
/// What is being taken back waits while money may be moving: ten minutes, then a person looks.
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
const CANCEL_PAYMENT: &str = "payment.cancel";
const CANCEL_TICKET: &str = "ticket.cancel";

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
            .on_refusal(OnFailure::Compensate)
            .on_timeout(OnFailure::Park),
        Step::new(RESTORE_POINT, "user.restore.point.request")
            .timeout_millis(ANSWER_MILLIS)
            .retry_limit(CLOSE_AGAIN_MAX)
            .must_succeed(),
    ],
};

/// What was paid goes back, because the buyer wants so. The money goes first: where the gateway refuses, everything
/// stays as it was, and the buyer may try again.
pub static CANCEL: Definition = Definition {
    kind: "ticketing.cancel",
    version: 1,
    steps: &[
        Step::new(CANCEL_PAYMENT, "payment.cancel.request")
            .timeout_millis(ANSWER_MILLIS)
            .retry_limit(CLOSE_AGAIN_MAX)
            .on_refusal(OnFailure::Compensate)
            .on_timeout(OnFailure::Park),
        Step::new(RESTORE_POINT, "user.restore.point.request")
            .timeout_millis(ANSWER_MILLIS)
            .retry_limit(CLOSE_AGAIN_MAX)
            .must_succeed(),
        Step::new(CANCEL_TICKET, "ticketing.ticket.cancel.request")
            .timeout_millis(ANSWER_MILLIS)
            .retry_limit(CLOSE_AGAIN_MAX)
            .must_succeed(),
    ],
};

/// Every definition that a stored saga may have begun with. Versions are added, never changed.
pub static CATALOG: Catalog = Catalog(&[&PURCHASE, &EXPIRE, &CANCEL]);

/// Whether no payment of a purchase can take money any more, as far as this saga knows: the one that runs it, or the one
/// that takes it back. Until then its claim stays, so that an attempt that began in time keeps its ticket.
#[must_use]
pub fn is_payment_closed(saga: &SagaRecord) -> bool {
    let step = |name| saga.steps.iter().find(|step| step.name == name);
    if saga.saga_type == EXPIRE.kind {
        return step(DELETE_PAYMENT).is_some_and(|it| it.state == StepState::Succeeded);
    }
    let is_turning_back = match saga.state {
        SagaState::Compensating | SagaState::Compensated => true,
        SagaState::Started | SagaState::Completed => false,
    };
    // It may not have been asked for, or was refused.
    let is_undone = step(CREATE_PAYMENT)
        .is_none_or(|it| matches!(it.state, StepState::Compensated | StepState::Failed));
    is_turning_back && is_undone
}

/// Makes the requests of all sagas.
pub struct Purchases;

impl Domain for Purchases {
    const TIMEOUT_TOPIC: &'static str = SAGA_TIMEOUT;

    fn catalog(&self) -> Catalog {
        Catalog(CATALOG.0)
    }

    fn request(
        &self,
        saga: &SagaRecord,
        send: &Send,
        now: Timestamp,
    ) -> Result<Message, Rejection> {
        if saga.saga_type == CANCEL.kind {
            cancellation::request(saga, send, now)
        } else {
            purchase::request(saga, send, now)
        }
    }
}

/// The name of the step that a request belongs to.
fn step_name<'a>(saga: &'a SagaRecord, send: &Send) -> &'a str {
    saga.steps
        .get(send.step)
        .map_or("", |step| step.name.as_str())
}

fn read_payload<T: serde::de::DeserializeOwned>(saga: &SagaRecord) -> Result<T, Rejection> {
    serde_json::from_value(saga.payload.clone()).map_err(|error| {
        Rejection::new(format_args!(
            "the payload of saga {} cannot be read: {error}",
            saga.saga_id
        ))
    })
}

fn no_such_step(saga: &SagaRecord, name: &str) -> Rejection {
    Rejection::new(format_args!("saga {} has no step {name:?}", saga.saga_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_sound() {
        assert_eq!(CATALOG.validate(), Ok(()));
    }
}
