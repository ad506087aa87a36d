//! The sagas: [`PURCHASE`] goes from a reservation to a payment that the buyer can settle, [`EXPIRE`] undoes an unpaid
//! purchase, [`CANCEL`] undoes a paid one. Each has a table of its steps ([`step`]), where a step's request, reply and
//! compensation stand side by side. A saga's payload carries what its requests need.

mod cancellation;
mod expiry;
mod purchase;
mod reply;
mod step;

use contract::ticketing::SAGA_TIMEOUT;
use messaging::{
    Group, Message, Rejection,
    coordinator::{Domain, Reply, SagaRecord, StepRequest},
};
use saga::{Catalog, SagaState, StepState};

use crate::progress;

pub use cancellation::{CANCEL, CancellationPayload};
pub use expiry::EXPIRE;
pub use purchase::{PURCHASE, PurchasePayload};
/// Every definition that a stored saga may have started with. Versions are added, never changed: a new version
/// stands beside the one before.
pub const CATALOG: Catalog = Catalog(&[&PURCHASE, &EXPIRE, &CANCEL]);

/// Whether, by the state of this saga, no payment of the purchase can take money any more. `saga` is the purchase itself
/// or its expiry. Until then its claim stays, so that an attempt that began in time keeps its ticket.
#[must_use]
pub fn is_payment_closed(saga: &SagaRecord) -> bool {
    let step = |name| saga.steps.iter().find(|step| step.name == name);
    if saga.saga_type == EXPIRE.kind {
        return step(expiry::DELETE_PAYMENT).is_some_and(|it| it.state == StepState::Succeeded);
    }
    let is_compensating = match saga.state {
        SagaState::Compensating | SagaState::Compensated => true,
        SagaState::Started | SagaState::Completed => false,
    };
    // The payment may not have been requested, or was refused.
    let is_undone = step(purchase::CREATE_PAYMENT)
        .is_none_or(|it| matches!(it.state, StepState::Compensated | StepState::Failed));
    is_compensating && is_undone
}

/// Makes the messages of all sagas.
pub struct Sagas;

impl Domain for Sagas {
    const GROUP: Group = progress::GROUP;
    const TIMEOUT_TOPIC: &'static str = SAGA_TIMEOUT;
    const CATALOG: Catalog = CATALOG;

    fn request(&self, saga: &SagaRecord, request: &StepRequest) -> Result<Message, Rejection> {
        match saga.saga_type.as_str() {
            kind if kind == CANCEL.kind => step::message(&cancellation::STEPS, saga, request),
            kind if kind == EXPIRE.kind => step::message(&expiry::STEPS, saga, request),
            _ => step::message(&purchase::STEPS, saga, request),
        }
    }

    fn read_reply(&self, message: &Message) -> Result<Reply, Rejection> {
        reply::read(message)
    }
}

#[cfg(test)]
mod tests {
    use messaging::coordinator;

    use super::*;

    #[test]
    fn every_definition_is_sound_and_every_reply_that_a_step_waits_for_is_consumed() {
        assert_eq!(coordinator::check::<Sagas>(), Ok(()));
    }

    #[test]
    fn every_reply_belongs_to_its_request() {
        for definition in CATALOG.0 {
            for (index, step) in definition.steps.iter().enumerate() {
                let waits_for = |topic: &str| {
                    let found = definition.find_by_response(topic);
                    found.is_some_and(|(place, _)| place == index)
                };
                let mut readers = reply::readers();
                assert!(
                    readers.any(|reader| waits_for(reader.topic)),
                    "{}",
                    step.name
                );
            }
        }
    }
}
