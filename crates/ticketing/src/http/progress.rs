//! Following a purchase.

use axum::{Json, extract::State};
use contract::{Money, PaymentId, SagaId, TicketId, Timestamp};
use saga::{SagaState, StepState};
use serde::Serialize;
use utoipa::ToSchema;
use web::{Id, Problem, ProblemDetails};

use crate::{Service, progress::PurchaseProgress, sagas::Payload};

/// How far a purchase has come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProgressAnswer {
    saga_id: SagaId,
    reference_id: String,
    saga_type: String,
    /// STARTED, COMPENSATING, COMPENSATED or COMPLETED.
    #[schema(value_type = String)]
    saga_state: SagaState,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_step: Option<String>,
    step_history: Vec<StepAnswer>,
    /// What to pay at the gateway; there once the purchase is COMPLETED, until it lapses.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<PaymentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    final_amount: Option<Money>,
    /// Why the purchase came to nothing, or needs a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StepAnswer {
    name: String,
    #[schema(value_type = String)]
    state: StepState,
}

/// Follow a purchase.
#[utoipa::path(get, path = "/ticketing/process/{ticketId}", tag = "ticketing",
    params(("ticketId" = TicketId, Path)), responses(
    (status = 200, body = ProgressAnswer),
    (status = 404, description = "PROCESS_NOT_FOUND", body = ProblemDetails)))]
pub(super) async fn read_progress(
    State(service): State<Service>,
    Id(ticket_id): Id<TicketId>,
) -> Result<Json<ProgressAnswer>, Problem> {
    let missing = || {
        Problem::not_found(
            "PROCESS_NOT_FOUND",
            format_args!("no purchase of {ticket_id} was started"),
        )
    };
    let progress = service.progress(ticket_id).await?.ok_or_else(missing)?;
    progress_answer(ticket_id, progress).map(Json)
}

/// The same as /ticketing/process/{ticketId}.
#[utoipa::path(get, path = "/process/{ticketId}", tag = "ticketing",
    params(("ticketId" = TicketId, Path)), responses(
    (status = 200, body = ProgressAnswer),
    (status = 404, description = "PROCESS_NOT_FOUND", body = ProblemDetails)))]
pub(super) async fn read_progress_alias(
    state: State<Service>,
    id: Id<TicketId>,
) -> Result<Json<ProgressAnswer>, Problem> {
    read_progress(state, id).await
}

fn progress_answer(
    ticket_id: TicketId,
    progress: PurchaseProgress,
) -> Result<ProgressAnswer, Problem> {
    let PurchaseProgress {
        purchase,
        saga,
        expiry,
    } = progress;
    let Some(saga) = saga else {
        let requested_at = purchase.map_or(Timestamp::default(), |purchase| purchase.requested_at);
        return Ok(ProgressAnswer {
            saga_id: ticket_id.purchase_saga(),
            reference_id: ticket_id.to_string(),
            saga_type: crate::sagas::PURCHASE.kind.to_owned(),
            saga_state: SagaState::Started,
            current_step: None,
            step_history: Vec::new(),
            payment_id: None,
            final_amount: None,
            failure: None,
            created_at: requested_at,
            updated_at: requested_at,
        });
    };
    let payload = Payload::of(&saga).map_err(messaging::StoreError::from)?;
    let expired = expiry.filter(|expiry| expiry.state != SagaState::Compensated);
    // What lapsed cannot be paid any more.
    let can_be_paid = saga.state == SagaState::Completed && expired.is_none();
    let failure = match expired {
        Some(expiry) => Some(
            expiry
                .parked
                .unwrap_or_else(|| "RESERVATION_EXPIRED".to_owned()),
        ),
        None => saga.parked.or(saga.failure),
    };
    Ok(ProgressAnswer {
        saga_id: saga.saga_id,
        reference_id: saga.reference_id,
        saga_type: saga.saga_type,
        saga_state: saga.state,
        current_step: saga.current_step,
        step_history: saga
            .steps
            .into_iter()
            .map(|step| StepAnswer {
                name: step.name,
                state: step.state,
            })
            .collect(),
        payment_id: can_be_paid.then(|| saga.saga_id.payment()),
        final_amount: payload
            .total_amount
            .less(payload.point)
            .filter(|_| can_be_paid),
        failure,
        created_at: saga.created_at,
        updated_at: saga.updated_at,
    })
}
