//! A step of a saga whose payload is `P`: its definition, its request, the reply that it waits for, and its compensation.

use messaging::{
    Message, Rejection,
    coordinator::{SagaRecord, StepRequest},
};
use saga::{Backoff, Direction, OnFailure, Step};
use serde::de::DeserializeOwned;

use super::reply::ReplyReader;

/// How long a participant may take before the request is sent again.
const REPLY_TIMEOUT_MILLIS: u64 = 10_000;
/// How often a request of a purchase is sent again.
const REQUEST_RETRIES: u32 = 3;
/// How often a request of an expiry or cancellation is sent again, while a payment may be in progress: for ten minutes,
/// then the saga is parked.
const CLOSE_RETRIES: u32 = 60;
const COMPENSATION: Backoff = Backoff {
    initial_millis: 1_000,
    max_millis: 60_000,
    retry_limit: 20,
};

pub(super) struct SagaStep<P> {
    pub definition: Step,
    pub request: MakeMessage<P>,
    pub reply: ReplyReader,
    pub compensation: Option<Compensation<P>>,
}

/// Undoes a step. The topic of its request is in the step's definition too.
pub(super) struct Compensation<P> {
    pub request: MakeMessage<P>,
    pub reply: ReplyReader,
}

pub(super) type MakeMessage<P> = fn(&P, &StepRequest) -> Message;

/// A step that is refused or gets no reply has no effect that must be undone, and ends the purchase.
pub(super) const fn check(name: &'static str, request: &'static str) -> Step {
    undoable(name, request).harmless()
}

/// A step that is compensated if it gets no reply, or a later one fails.
pub(super) const fn undoable(name: &'static str, request: &'static str) -> Step {
    Step::new(name, request)
        .timeout_millis(REPLY_TIMEOUT_MILLIS)
        .retry_limit(REQUEST_RETRIES)
        .compensation_backoff(COMPENSATION)
}

/// The first step of an undoing saga: a refusal leaves everything as it was, and silence parks the saga.
pub(super) const fn refusable(name: &'static str, request: &'static str) -> Step {
    Step::new(name, request)
        .timeout_millis(REPLY_TIMEOUT_MILLIS)
        .retry_limit(CLOSE_RETRIES)
        .on_refusal(OnFailure::Compensate)
        .on_timeout(OnFailure::Park)
}

/// A later step of an undoing saga: it must succeed, or the saga is parked.
pub(super) const fn required(name: &'static str, request: &'static str) -> Step {
    Step::new(name, request)
        .timeout_millis(REPLY_TIMEOUT_MILLIS)
        .retry_limit(CLOSE_RETRIES)
        .must_succeed()
}

/// The definitions of these steps, in the same order.
pub(super) const fn definitions<P, const N: usize>(steps: &[SagaStep<P>; N]) -> [Step; N] {
    let mut all = [steps[0].definition; N];
    let mut index = 1;
    while index < N {
        all[index] = steps[index].definition;
        index += 1;
    }
    all
}

/// The message that the saga machine asks to send.
pub(super) fn message<P: DeserializeOwned>(
    steps: &[SagaStep<P>],
    saga: &SagaRecord,
    sent: &StepRequest,
) -> Result<Message, Rejection> {
    let payload: P = read_payload(saga)?;
    let name = saga
        .steps
        .get(sent.step)
        .map_or("", |step| step.name.as_str());
    let step = steps.iter().find(|step| step.definition.name == name);
    let request = step.and_then(|step| match sent.direction {
        Direction::Request => Some(step.request),
        Direction::Compensation => step.compensation.as_ref().map(|undo| undo.request),
    });
    let request = request.ok_or_else(|| {
        Rejection::new(format_args!(
            "saga {} has no {:?} of step {name:?}",
            saga.saga_id, sent.direction
        ))
    })?;
    Ok(request(&payload, sent))
}

pub(super) fn read_payload<P: DeserializeOwned>(saga: &SagaRecord) -> Result<P, Rejection> {
    serde_json::from_value(saga.payload.clone()).map_err(|error| {
        Rejection::new(format_args!(
            "cannot read the payload of saga {}: {error}",
            saga.saga_id
        ))
    })
}
