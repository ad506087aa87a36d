//! The HTTP API of the event service.

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::Response,
};
use contract::{EventId, Money, Timestamp};
use messaging::Commit;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use web::{
    Body, Id, IdempotentRequest, Page, Params, Problem, ProblemDetails, extract::BODY_BYTES_MAX,
};

use crate::{Error, Service, model::Event, modify::ModifyInput, register::RegisterInput};

/// `POST /event`, `GET /event`, `GET /event/{id}`, `PUT /event/{id}`.
pub fn router(service: Service) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(register, list))
        .routes(routes!(show, modify))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(service)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListEvents {
    /// The last id of the previous page.
    after: Option<EventId>,
    /// Rows of the page, 1 to 500; the default is 50.
    limit: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventAnswer {
    id: EventId,
    name: String,
    ticket_quantity: i64,
    price: Option<Money>,
    /// There is no price: each buyer names the total amount.
    buyer_names_price: bool,
    sale_opens_at: Option<Timestamp>,
    sale_closes_at: Option<Timestamp>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Event> for EventAnswer {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            name: event.name.clone(),
            ticket_quantity: event.ticket_quantity,
            price: event.price,
            buyer_names_price: event.price.is_none(),
            sale_opens_at: event.sale_opens_at,
            sale_closes_at: event.sale_closes_at,
            version: event.version,
            created_at: event.created_at,
            updated_at: event.updated_at,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(invalid) => Self::invalid(invalid.field, invalid.detail),
            Error::NotFound(_) => Self::not_found("EVENT_NOT_FOUND", error),
            Error::VersionConflict { .. } => Self::conflict("VERSION_CONFLICT", error),
            Error::Commit(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Register an event.
#[utoipa::path(post, path = "/event", tag = "event", request_body = RegisterInput,
    responses(
        (status = 201, body = EventAnswer),
    ))]
async fn register(
    State(service): State<Service>,
    idempotent: IdempotentRequest,
    Body(input): Body<RegisterInput>,
) -> Result<Response, Problem> {
    let answer = |commit: &mut Commit, event: &Event| {
        idempotent.answer(commit, StatusCode::CREATED, &EventAnswer::from(event))
    };
    Ok(service.register(input, answer).await?)
}

/// Read an event.
#[utoipa::path(get, path = "/event/{id}", tag = "event", params(("id" = EventId, Path)),
    responses(
        (status = 200, body = EventAnswer),
        (status = 404, body = ProblemDetails, description = "EVENT_NOT_FOUND"),
    ))]
async fn show(
    State(service): State<Service>,
    Id(id): Id<EventId>,
) -> Result<Json<EventAnswer>, Problem> {
    Ok(Json(EventAnswer::from(&service.show(id).await?)))
}

/// List events in the order of their registration.
#[utoipa::path(get, path = "/event", tag = "event", params(ListEvents),
    responses(
        (status = 200, body = Page<EventAnswer>),
    ))]
async fn list(
    State(service): State<Service>,
    Params(params): Params<ListEvents>,
) -> Result<Json<Page<EventAnswer>>, Problem> {
    let limit = web::page::limit(params.limit)?;
    let events = service.list(params.after, limit).await?;
    let items = events.iter().map(EventAnswer::from).collect();
    Ok(Json(Page::new(items, limit, |event| event.id.to_string())))
}

/// Modify an event.
#[utoipa::path(put, path = "/event/{id}", tag = "event", request_body = ModifyInput, params(("id" = EventId, Path)),
    responses(
        (status = 200, body = EventAnswer),
        (status = 404, body = ProblemDetails, description = "EVENT_NOT_FOUND"),
        (status = 409, body = ProblemDetails, description = "VERSION_CONFLICT"),
    ))]
async fn modify(
    State(service): State<Service>,
    Id(id): Id<EventId>,
    idempotent: IdempotentRequest,
    Body(input): Body<ModifyInput>,
) -> Result<Response, Problem> {
    let answer = |commit: &mut Commit, event: &Event| {
        idempotent.answer(commit, StatusCode::OK, &EventAnswer::from(event))
    };
    Ok(service.modify(id, input, answer).await?)
}
