//! The HTTP routes of the ticketing service.

mod cancel;
mod progress;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use contract::{EventId, Money, PaymentId, SagaId, TicketId, Timestamp, UserId};
use messaging::Commit;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use web::{
    Body, Caller, ExistingReservation, Id, IdempotentRequest, Page, Params, Problem, ProblemDetails,
};

use crate::{
    Service,
    model::{Allocation, Purchase, ReservationState, Ticket, TicketStatus},
    process::{self, ProcessInput},
    release,
    reservations::Refusal,
    reserve::{self, ReserveInput, ReserveOutput},
    resume,
};

/// Every route of the ticketing service.
pub fn router(service: Service) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(reserve_ticket, read_reservation))
        .routes(routes!(release_reservation))
        .routes(routes!(start_purchase))
        .routes(routes!(progress::read_progress))
        .routes(routes!(progress::read_progress_alias))
        .routes(routes!(read_stock))
        .routes(routes!(read_ticket))
        .routes(routes!(list_tickets))
        .routes(routes!(cancel::cancel_ticket, cancel::read_cancellation))
        .routes(routes!(resume_saga))
        .with_state(service)
}

/// Reserve a ticket. The answer comes when the reservation is durable. The same key gets the same reservation as long as
/// it stands; after it was released, has expired or was refunded, the key reserves again.
#[utoipa::path(post, path = "/ticketing/reserve", tag = "ticketing", request_body = ReserveInput, responses(
    (status = 200, body = ReserveOutput),
    (status = 404, description = "EVENT_NOT_FOUND", body = ProblemDetails),
    (status = 409, description = "ALREADY_RESERVED, ALREADY_PURCHASED, SOLD_OUT, SALE_NOT_OPEN", body = ProblemDetails),
    (status = 503, description = "RESERVATIONS_REBUILDING, UNAVAILABLE, OVERLOADED, OUTCOME_UNKNOWN", body = ProblemDetails)))]
async fn reserve_ticket(
    State(service): State<Service>,
    idempotent: IdempotentRequest,
    Body(input): Body<ReserveInput>,
) -> Result<Response, Problem> {
    let input = ReserveInput {
        request_digest: idempotent.short_digest(),
        ..input
    };
    let saved = idempotent.saved::<ReserveOutput>();
    let saved = saved.map(|saved| (saved.answer.ticket_id, saved.response));
    let answer = |commit: &mut Commit, reserved: &ReserveOutput| {
        idempotent.revisable_answer(commit, StatusCode::OK, reserved)
    };
    match service.reserve(input, saved, answer).await {
        Err(reserve::Error::Refused(Refusal::AlreadyReserved)) => {
            Err(already_reserved(&service, input).await)
        }
        reserved => Ok(reserved?),
    }
}

/// Names the reservation that the user has; it may have ended since.
async fn already_reserved(service: &Service, input: ReserveInput) -> Problem {
    let found = service.0.reservations.find(input.event_id, input.user_id);
    let existing = found.await.ok().flatten().map(|found| ExistingReservation {
        ticket_id: found.ticket_id,
        expires_at: found.expires_at,
    });
    Problem {
        existing,
        ..reserve::Error::from(Refusal::AlreadyReserved).into()
    }
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ReservationQuery {
    event_id: EventId,
    user_id: UserId,
}

/// A user's reservation for an event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReservationAnswer {
    ticket_id: TicketId,
    event_id: EventId,
    user_id: UserId,
    state: HeldState,
    /// The deadline for payment.
    expires_at: Timestamp,
    /// The price, fixed when the ticket was reserved; absent if the buyer names the total amount.
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Money>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum HeldState {
    /// For payment.
    Waiting,
    /// The deadline has passed: it cannot be paid any more, and will be released.
    Expired,
    /// The ticket is bought.
    Completed,
}

/// Find the reservation of a user for an event, such as one whose answer was lost.
#[utoipa::path(get, path = "/ticketing/reserve", tag = "ticketing", params(ReservationQuery), responses(
    (status = 200, description = "what the user has", body = ReservationAnswer),
    (status = 404, description = "RESERVATION_NOT_FOUND", body = ProblemDetails),
    (status = 503, description = "RESERVATIONS_REBUILDING, UNAVAILABLE", body = ProblemDetails)))]
async fn read_reservation(
    State(service): State<Service>,
    Params(query): Params<ReservationQuery>,
) -> Result<Json<ReservationAnswer>, Problem> {
    let ReservationQuery { event_id, user_id } = query;
    let found = service.0.reservations.find(event_id, user_id).await?;
    let found = found.ok_or_else(|| {
        let detail = format_args!("user {user_id} has no reservation for event {event_id}");
        Problem::not_found("RESERVATION_NOT_FOUND", detail)
    })?;
    let state = match found.state {
        ReservationState::Completed => HeldState::Completed,
        ReservationState::Waiting if service.0.clock.now() > found.expires_at => HeldState::Expired,
        ReservationState::Waiting => HeldState::Waiting,
    };
    Ok(Json(ReservationAnswer {
        ticket_id: found.ticket_id,
        event_id,
        user_id,
        state,
        expires_at: found.expires_at,
        price: found.price,
    }))
}

impl From<reserve::Error> for Problem {
    fn from(error: reserve::Error) -> Self {
        let refusal = match error {
            reserve::Error::Refused(refusal) => refusal,
            reserve::Error::Commit(error) => return error.into(),
        };
        match refusal {
            Refusal::EventNotFound => Problem::not_found("EVENT_NOT_FOUND", refusal),
            Refusal::AlreadyReserved => Problem::conflict("ALREADY_RESERVED", refusal),
            Refusal::AlreadyPurchased => Problem::conflict("ALREADY_PURCHASED", refusal),
            Refusal::SaleNotOpen => Problem::conflict("SALE_NOT_OPEN", refusal),
            Refusal::SoldOut => Problem::conflict("SOLD_OUT", refusal),
            Refusal::Rebuilding => Problem::unavailable("RESERVATIONS_REBUILDING", refusal),
        }
    }
}

/// Release a reservation. A purchase of it that is in progress is undone too.
#[utoipa::path(delete, path = "/ticketing/reserve/{ticketId}", tag = "ticketing",
    params(("ticketId" = TicketId, Path), Caller), responses(
    (status = 204),
    (status = 403, description = "TICKET_OWNER_MISMATCH", body = ProblemDetails),
    (status = 404, description = "RESERVATION_NOT_FOUND", body = ProblemDetails),
    (status = 503, description = "RESERVATIONS_REBUILDING, UNAVAILABLE, OUTCOME_UNKNOWN", body = ProblemDetails)))]
async fn release_reservation(
    State(service): State<Service>,
    Id(ticket_id): Id<TicketId>,
    Params(caller): Params<Caller>,
) -> Result<StatusCode, Problem> {
    match service.release(ticket_id, caller.user_id()).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error @ release::Error::NotFound(_)) => {
            Err(Problem::not_found("RESERVATION_NOT_FOUND", error))
        }
        Err(error @ release::Error::OwnerMismatch) => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "TICKET_OWNER_MISMATCH",
            error,
        )),
        Err(release::Error::Store(error)) => Err(error.into()),
        Err(release::Error::Reservations(error)) => Err(error.into()),
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ProcessAnswer {
    ticket_id: TicketId,
}

/// Start the purchase of a reserved ticket; follow it at /ticketing/process/{ticketId}.
#[utoipa::path(post, path = "/ticketing/process", tag = "ticketing", request_body = ProcessInput, responses(
    (status = 202, body = ProcessAnswer),
    (status = 400, description = "INVALID_REQUEST, TICKET_MISMATCH, PRICE_MISMATCH", body = ProblemDetails),
    (status = 404, description = "RESERVATION_NOT_FOUND", body = ProblemDetails),
    (status = 409, description = "ALREADY_PROCESSING, DEADLINE_PASSED", body = ProblemDetails),
    (status = 503, description = "RESERVATIONS_REBUILDING, UNAVAILABLE, OUTCOME_UNKNOWN", body = ProblemDetails)))]
async fn start_purchase(
    State(service): State<Service>,
    idempotent: IdempotentRequest,
    Body(input): Body<ProcessInput>,
) -> Result<Response, Problem> {
    let ticket_id = input.ticket_id;
    let answer = |commit: &mut Commit, _: &Purchase| {
        idempotent.answer(commit, StatusCode::ACCEPTED, &ProcessAnswer { ticket_id })
    };
    Ok(service.process(input, answer).await?)
}

impl From<process::Error> for Problem {
    fn from(error: process::Error) -> Self {
        use process::Refusal as R;
        let refusal = match error {
            process::Error::Refused(refusal) => refusal,
            process::Error::Reservations(error) => return error.into(),
        };
        match refusal {
            R::ReservationNotFound => Problem::not_found("RESERVATION_NOT_FOUND", refusal),
            R::TicketMismatch => Problem {
                field: Some("ticketId".to_owned()),
                ..Problem::bad_request("TICKET_MISMATCH", refusal)
            },
            R::PriceMismatch { .. } => Problem {
                field: Some("totalAmount".to_owned()),
                ..Problem::bad_request("PRICE_MISMATCH", refusal)
            },
            R::TooManyPoints => Problem::invalid("point", refusal),
            R::AlreadyProcessing => Problem::conflict("ALREADY_PROCESSING", refusal),
            R::DeadlinePassed { .. } => Problem::conflict("DEADLINE_PASSED", refusal),
        }
    }
}

/// The numbers of an event's tickets at this moment.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StockAnswer {
    quantity: i64,
    waiting: i64,
    completed: i64,
    /// quantity - waiting - completed; negative after the quantity was lowered below what is claimed.
    available: i64,
    sold: i64,
}

/// Count an event's tickets: in total, waiting for payment, bought, available.
#[utoipa::path(get, path = "/ticketing/event/{eventId}", tag = "ticketing",
    params(("eventId" = EventId, Path)), responses(
    (status = 200, body = StockAnswer),
    (status = 404, description = "EVENT_NOT_FOUND", body = ProblemDetails),
    (status = 503, description = "RESERVATIONS_REBUILDING, UNAVAILABLE", body = ProblemDetails)))]
async fn read_stock(
    State(service): State<Service>,
    Id(event_id): Id<EventId>,
) -> Result<Json<StockAnswer>, Problem> {
    let missing = || Problem::not_found("EVENT_NOT_FOUND", Refusal::EventNotFound);
    let stats = service.0.reservations.stats(event_id).await?;
    let stats = stats.ok_or_else(missing)?;
    let allocation: Option<Allocation> = service.0.store.load(event_id).await?;
    Ok(Json(StockAnswer {
        quantity: stats.quantity,
        waiting: stats.waiting,
        completed: stats.completed,
        available: stats.available,
        sold: allocation.map_or(0, |allocation| allocation.sold),
    }))
}

/// A ticket, as its buyer owns it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct TicketAnswer {
    ticket_id: TicketId,
    event_id: EventId,
    user_id: UserId,
    payment_id: PaymentId,
    /// RESERVED, CANCELLED or EXPIRED.
    status: TicketStatus,
    /// How many cancellations its buyer has requested; the last is at /ticket/{ticketId}/cancel.
    cancellation: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Ticket> for TicketAnswer {
    fn from(ticket: Ticket) -> Self {
        Self {
            ticket_id: ticket.ticket_id,
            event_id: ticket.event_id,
            user_id: ticket.user_id,
            payment_id: ticket.payment_id,
            status: ticket.status,
            cancellation: ticket.cancellation,
            created_at: ticket.created_at,
            updated_at: ticket.updated_at,
        }
    }
}

/// Read a ticket.
#[utoipa::path(get, path = "/ticket/{ticketId}", tag = "ticketing",
    params(("ticketId" = TicketId, Path)), responses(
    (status = 200, body = TicketAnswer),
    (status = 404, description = "TICKET_NOT_FOUND", body = ProblemDetails)))]
async fn read_ticket(
    State(service): State<Service>,
    Id(ticket_id): Id<TicketId>,
) -> Result<Json<TicketAnswer>, Problem> {
    Ok(Json(service.ticket(ticket_id).await?.into()))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct TicketsQuery {
    user_id: UserId,
    /// The last id seen.
    after: Option<TicketId>,
    /// Rows of a page: 1 to 500.
    limit: Option<u32>,
}

/// List a user's tickets in the order in which they were issued. A page after the last ticket seen misses none, however
/// long ago it was reserved.
#[utoipa::path(get, path = "/ticket", tag = "ticketing", params(TicketsQuery), responses(
    (status = 200, body = Page<TicketAnswer>)))]
async fn list_tickets(
    State(service): State<Service>,
    Params(query): Params<TicketsQuery>,
) -> Result<Json<Page<TicketAnswer>>, Problem> {
    let limit = web::page::limit(query.limit)?;
    let tickets = service
        .tickets_of(query.user_id, query.after, limit)
        .await?;
    let answers = tickets.into_iter().map(TicketAnswer::from).collect();
    Ok(Json(Page::new(answers, limit, |ticket: &TicketAnswer| {
        ticket.ticket_id.to_string()
    })))
}

/// Resume a parked saga.
#[utoipa::path(post, path = "/saga/{sagaId}/resume", tag = "operations",
    params(("sagaId" = SagaId, Path)), responses(
    (status = 202, description = "its pending request is sent again"),
    (status = 404, description = "SAGA_NOT_FOUND", body = ProblemDetails),
    (status = 409, description = "SAGA_NOT_PARKED", body = ProblemDetails)))]
async fn resume_saga(
    State(service): State<Service>,
    Id(saga_id): Id<SagaId>,
) -> Result<Response, Problem> {
    service.resume_saga(saga_id).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

impl From<resume::Error> for Problem {
    fn from(error: resume::Error) -> Self {
        match error {
            resume::Error::NotFound(_) => Problem::not_found("SAGA_NOT_FOUND", error),
            resume::Error::NotParked(_) => Problem::conflict("SAGA_NOT_PARKED", error),
            resume::Error::Commit(error) => error.into(),
        }
    }
}
