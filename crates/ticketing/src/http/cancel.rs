//! The routes of cancelling a ticket.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use contract::{
    SagaId, TicketId, UserId,
    text::{self, REASON_CHARS_MAX},
};
use messaging::{Commit, coordinator::SagaRecord};
use saga::SagaState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use web::{Body, Caller, Id, IdempotentRequest, Params, Problem, ProblemDetails};

use super::progress::{StepAnswer, steps};
use crate::{
    Service,
    cancel::{self, CancelInput, CancelOutput, Refusal},
};

#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CancellationRequest {
    /// The user who cancels; must own the ticket. May be given in the query instead.
    user_id: Option<UserId>,
    #[schema(schema_with = web::schema::stated_reason)]
    reason: Option<String>,
}

/// Cancel a ticket: its payment is refunded, its points are restored, and it is on sale again. Follow it at
/// GET /ticket/{ticketId}/cancel. The body is optional. The same key gets the same cancellation, unless that failed: then
/// it starts the next one.
#[utoipa::path(post, path = "/ticket/{ticketId}/cancel", tag = "ticketing",
    params(("ticketId" = TicketId, Path), Caller), request_body = Option<CancellationRequest>, responses(
    (status = 202, body = CancelOutput),
    (status = 403, description = "TICKET_OWNER_MISMATCH", body = ProblemDetails),
    (status = 404, description = "TICKET_NOT_FOUND", body = ProblemDetails),
    (status = 409, description = "TICKET_CANCELLED, CANCELLATION_IN_PROGRESS", body = ProblemDetails)))]
pub(super) async fn cancel_ticket(
    State(service): State<Service>,
    Id(ticket_id): Id<TicketId>,
    Params(caller): Params<Caller>,
    idempotent: IdempotentRequest,
    body: Option<Body<CancellationRequest>>,
) -> Result<Response, Problem> {
    let request = body.map(|Body(request)| request).unwrap_or_default();
    let user_id = caller.or(request.user_id)?;
    check_reason(request.reason.as_deref())?;
    let input = CancelInput {
        ticket_id,
        user_id,
        reason: request.reason,
    };
    let saved = idempotent.saved::<CancelOutput>();
    let saved = saved.map(|saved| (saved.answer.saga_id, saved.response));
    let answer = |commit: &mut Commit, started: &CancelOutput| {
        idempotent.revisable_answer(commit, StatusCode::ACCEPTED, started)
    };
    Ok(service.cancel(input, saved, answer).await?)
}

fn check_reason(reason: Option<&str>) -> Result<(), Problem> {
    let is_good = |reason: &str| {
        (1..=REASON_CHARS_MAX).contains(&reason.chars().count()) && text::is_plain(reason)
    };
    if reason.is_none_or(is_good) {
        return Ok(());
    }
    let detail = format!("the reason is not 1 to {REASON_CHARS_MAX} characters of text");
    Err(Problem::invalid("reason", detail))
}

impl From<cancel::Error> for Problem {
    fn from(error: cancel::Error) -> Self {
        let refusal = match error {
            cancel::Error::Refused(refusal) => refusal,
            cancel::Error::Contended => return Problem::conflict("VERSION_CONFLICT", error),
            cancel::Error::Commit(error) => return error.into(),
        };
        match refusal {
            Refusal::TicketNotFound(_) => Problem::not_found("TICKET_NOT_FOUND", refusal),
            Refusal::OwnerMismatch => {
                Problem::new(StatusCode::FORBIDDEN, "TICKET_OWNER_MISMATCH", refusal)
            }
            Refusal::Cancelled => Problem::conflict("TICKET_CANCELLED", refusal),
            Refusal::InProgress => Problem::conflict("CANCELLATION_IN_PROGRESS", refusal),
        }
    }
}

/// How far the last cancellation of a ticket has come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CancellationAnswer {
    ticket_id: TicketId,
    /// Counted from 1.
    cancellation: u32,
    saga_id: SagaId,
    /// STARTED, COMPENSATING, COMPENSATED (the ticket stays; it may be tried again) or COMPLETED.
    #[schema(value_type = String)]
    saga_state: SagaState,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_step: Option<String>,
    step_history: Vec<StepAnswer>,
    /// Why it failed or is parked.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// Follow the cancellation of a ticket.
#[utoipa::path(get, path = "/ticket/{ticketId}/cancel", tag = "ticketing",
    params(("ticketId" = TicketId, Path)), responses(
    (status = 200, body = CancellationAnswer),
    (status = 404, description = "TICKET_NOT_FOUND, CANCELLATION_NOT_FOUND", body = ProblemDetails)))]
pub(super) async fn read_cancellation(
    State(service): State<Service>,
    Id(ticket_id): Id<TicketId>,
) -> Result<Json<CancellationAnswer>, Problem> {
    let ticket = service.ticket(ticket_id).await?;
    if ticket.cancellation == 0 {
        let detail = format_args!("no cancellation of ticket {ticket_id} was requested");
        return Err(Problem::not_found("CANCELLATION_NOT_FOUND", detail));
    }
    let saga_id = ticket_id.cancel_saga(ticket.cancellation);
    let saga: Option<SagaRecord> = service.0.store.load(saga_id).await?;
    let answer = CancellationAnswer {
        ticket_id,
        cancellation: ticket.cancellation,
        saga_id,
        saga_state: SagaState::Started,
        current_step: None,
        step_history: Vec::new(),
        failure: None,
    };
    Ok(Json(match saga {
        // The saga worker has not started it yet.
        None => answer,
        Some(saga) => CancellationAnswer {
            saga_state: saga.state,
            current_step: saga.current_step,
            step_history: steps(saga.steps),
            failure: saga.parked.or(saga.failure),
            ..answer
        },
    }))
}
