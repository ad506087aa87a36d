//! The routes of following a purchase.

use axum::{Json, extract::State};
use contract::{
    Money, PaymentId, SagaId, TicketId, Timestamp,
    domain::{PaymentStatus, Refund, TicketStatus},
};
use saga::{SagaState, StepState};
use serde::Serialize;
use utoipa::ToSchema;
use web::{Id, Problem, ProblemDetails};

use crate::{Service, progress::PurchaseProgress, refund::PurchaseRefund, sagas::PurchasePayload};

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
    /// The payment to pay at the gateway: present from COMPLETED until the purchase expires, and after a payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<PaymentId>,
    /// The amount of that payment: present while it can be paid, or if it bought a ticket.
    #[serde(skip_serializing_if = "Option::is_none")]
    final_amount: Option<Money>,
    /// SUCCEEDED or CANCELLED: present if there is a refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_status: Option<PaymentStatus>,
    /// REQUESTED, DONE or PARKED; NONE if the gateway cancelled the payment by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund: Option<Refund>,
    /// RESERVED, CANCELLED or EXPIRED: present if a ticket was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket_status: Option<TicketStatus>,
    /// Why the purchase failed or is parked. PAYMENT_REFUND_REQUESTED, PAYMENT_REFUNDED and PAYMENT_REFUND_PARKED are the
    /// states of its refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Why the payment is refunded.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_detail: Option<String>,
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

pub(super) fn steps(steps: Vec<saga::StepProgress>) -> Vec<StepAnswer> {
    let answers = steps.into_iter().map(|step| StepAnswer {
        name: step.name,
        state: step.state,
    });
    answers.collect()
}

fn progress_answer(
    ticket_id: TicketId,
    progress: PurchaseProgress,
) -> Result<ProgressAnswer, Problem> {
    let Some(saga) = progress.saga else {
        let purchase = progress.purchase;
        let requested_at = purchase.map_or(Timestamp::default(), |purchase| purchase.requested_at);
        return Ok(not_started(ticket_id, requested_at));
    };
    let ticket = progress.ticket;
    let payload = PurchasePayload::of(&saga).map_err(messaging::StoreError::from)?;
    let ticket_status = ticket.as_ref().map(|ticket| ticket.status);
    let is_bought = ticket_status == Some(TicketStatus::Reserved);
    let expired = progress
        .expiry
        .filter(|expiry| expiry.state != SagaState::Compensated);
    // A refund that the gateway refused changed nothing.
    let refund = progress.refund.filter(PurchaseRefund::is_active);
    // An expired or refunded purchase cannot be paid any more.
    let can_be_paid = saga.state == SagaState::Completed && expired.is_none() && refund.is_none();
    let failure = match (&refund, expired) {
        (Some(refund), _) => Some(refund_code(refund).to_owned()),
        // It was paid after its expiry, and its claim was retaken.
        (None, _) if is_bought => None,
        (None, Some(expiry)) => Some(
            expiry
                .parked
                .unwrap_or_else(|| "RESERVATION_EXPIRED".to_owned()),
        ),
        (None, None) => saga.parked.or(saga.failure),
    };
    let refunded = refund.as_ref().map(|refund| refund.payment_id);
    let paid = refunded.or_else(|| ticket.map(|ticket| ticket.payment_id));
    let payment_id = paid.or_else(|| can_be_paid.then(|| payload.payment_id()));
    let amount = payload.total_amount.less(payload.point);
    Ok(ProgressAnswer {
        saga_state: saga.state,
        current_step: saga.current_step,
        step_history: steps(saga.steps),
        payment_id,
        final_amount: amount.filter(|_| can_be_paid || is_bought),
        payment_status: refund.as_ref().map(|refund| refund.payment_status),
        refund: refund.as_ref().map(|refund| refund.refund),
        ticket_status,
        failure,
        failure_detail: refund.and_then(|refund| refund.reason),
        updated_at: saga.updated_at,
        ..not_started(ticket_id, saga.created_at)
    })
}

/// Requested, and not handled by the saga worker yet.
fn not_started(ticket_id: TicketId, requested_at: Timestamp) -> ProgressAnswer {
    ProgressAnswer {
        saga_id: ticket_id.purchase_saga(),
        reference_id: ticket_id.to_string(),
        saga_type: crate::sagas::PURCHASE.kind.to_owned(),
        saga_state: SagaState::Started,
        current_step: None,
        step_history: Vec::new(),
        payment_id: None,
        final_amount: None,
        payment_status: None,
        refund: None,
        ticket_status: None,
        failure: None,
        failure_detail: None,
        created_at: requested_at,
        updated_at: requested_at,
    }
}

/// The code of a refund's state. Without a refund, the gateway cancelled the payment by itself.
const fn refund_code(refund: &PurchaseRefund) -> &'static str {
    match refund.refund {
        Refund::Requested => "PAYMENT_REFUND_REQUESTED",
        Refund::Parked => "PAYMENT_REFUND_PARKED",
        Refund::Done | Refund::None => "PAYMENT_REFUNDED",
    }
}
