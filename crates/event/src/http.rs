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

use crate::{
    Error, Service,
    model::{self, Event, EventChanges, EventDetails, FieldChange, Invalid},
    modify::ModifyInput,
};

/// `POST /event`, `GET /event`, `GET /event/{id}`, `PUT /event/{id}`.
pub fn router(service: Service) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(register, list))
        .routes(routes!(show, modify))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(service)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegisterEvent {
    #[schema(schema_with = web::schema::name)]
    name: String,
    #[schema(minimum = 1, maximum = 10_000_000)]
    ticket_quantity: i64,
    /// The price of every ticket. If omitted, each buyer names the total amount, as with `buyerNamesPrice`.
    price: Option<Money>,
    /// true: there is no price, and each buyer names the total amount. false: there must be one.
    buyer_names_price: Option<bool>,
    sale_opens_at: Option<Timestamp>,
    /// After `saleOpensAt`.
    sale_closes_at: Option<Timestamp>,
}

/// The new name and quantity. An omitted price or time stays as it is; `null` removes a time. A reservation keeps the
/// price that the event had when it was made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModifyEvent {
    #[schema(schema_with = web::schema::name)]
    name: String,
    /// 0 takes the event off sale.
    #[schema(minimum = 0, maximum = 10_000_000)]
    ticket_quantity: i64,
    /// The price of every ticket from now on.
    #[serde(default)]
    #[schema(value_type = Money, required = false)]
    price: FieldChange<Money>,
    /// true removes the price: each buyer names the total amount. Nothing else removes a price.
    buyer_names_price: Option<bool>,
    #[serde(default)]
    #[schema(value_type = Option<Timestamp>)]
    sale_opens_at: FieldChange<Timestamp>,
    /// After `saleOpensAt`.
    #[serde(default)]
    #[schema(value_type = Option<Timestamp>)]
    sale_closes_at: FieldChange<Timestamp>,
    /// The version that the client has read.
    version: i64,
}

/// `null` differs from an omitted field.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for FieldChange<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<T>::deserialize(deserializer)?;
        Ok(value.map_or(Self::Clear, Self::Set))
    }
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

impl From<Event> for EventAnswer {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            name: event.name,
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

impl RegisterEvent {
    fn details(self) -> Result<EventDetails, Invalid> {
        let price = self.price.map_or(FieldChange::Keep, FieldChange::Set);
        Ok(EventDetails {
            name: self.name,
            ticket_quantity: self.ticket_quantity,
            price: model::resolve_price(None, price, self.buyer_names_price)?,
            sale_opens_at: self.sale_opens_at,
            sale_closes_at: self.sale_closes_at,
        })
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
#[utoipa::path(post, path = "/event", tag = "event", request_body = RegisterEvent,
    responses(
        (status = 201, body = EventAnswer),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json", description = "INVALID_REQUEST"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "IDEMPOTENCY_KEY_IN_FLIGHT"),
        (status = 413, body = ProblemDetails, content_type = "application/problem+json", description = "BODY_TOO_LARGE"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "IDEMPOTENCY_KEY_REUSED"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json", description = "OVERLOADED, UNAVAILABLE"),
    ))]
async fn register(
    State(service): State<Service>,
    idempotent: IdempotentRequest,
    Body(request): Body<RegisterEvent>,
) -> Result<Response, Problem> {
    let answer = |commit: &mut Commit, event: &Event| {
        idempotent.answer(
            commit,
            StatusCode::CREATED,
            &EventAnswer::from(event.clone()),
        )
    };
    let details = request.details().map_err(Error::from)?;
    Ok(service.register(details, answer).await?)
}

/// Read an event.
#[utoipa::path(get, path = "/event/{id}", tag = "event", params(("id" = EventId, Path)),
    responses(
        (status = 200, body = EventAnswer),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json", description = "INVALID_REQUEST"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "EVENT_NOT_FOUND"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json", description = "UNAVAILABLE"),
    ))]
async fn show(
    State(service): State<Service>,
    Id(id): Id<EventId>,
) -> Result<Json<EventAnswer>, Problem> {
    Ok(Json(service.show(id).await?.into()))
}

/// List events in the order of their registration.
#[utoipa::path(get, path = "/event", tag = "event", params(ListEvents),
    responses(
        (status = 200, body = Page<EventAnswer>),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json", description = "INVALID_REQUEST"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json", description = "UNAVAILABLE"),
    ))]
async fn list(
    State(service): State<Service>,
    Params(params): Params<ListEvents>,
) -> Result<Json<Page<EventAnswer>>, Problem> {
    let limit = web::page::limit(params.limit)?;
    let events = service.list(params.after, limit).await?;
    let items = events.into_iter().map(EventAnswer::from).collect();
    Ok(Json(Page::new(items, limit, |event| event.id.to_string())))
}

/// Modify an event.
#[utoipa::path(put, path = "/event/{id}", tag = "event", request_body = ModifyEvent, params(("id" = EventId, Path)),
    responses(
        (status = 200, body = EventAnswer),
        (status = 400, body = ProblemDetails, content_type = "application/problem+json", description = "INVALID_REQUEST"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "EVENT_NOT_FOUND"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "VERSION_CONFLICT"),
        (status = 413, body = ProblemDetails, content_type = "application/problem+json", description = "BODY_TOO_LARGE"),
        (status = 503, body = ProblemDetails, content_type = "application/problem+json", description = "OVERLOADED, UNAVAILABLE"),
    ))]
async fn modify(
    State(service): State<Service>,
    Id(id): Id<EventId>,
    idempotent: IdempotentRequest,
    Body(request): Body<ModifyEvent>,
) -> Result<Response, Problem> {
    let ModifyEvent {
        name,
        ticket_quantity,
        price,
        buyer_names_price,
        sale_opens_at,
        sale_closes_at,
        version,
    } = request;
    let changes = EventChanges {
        name,
        ticket_quantity,
        price,
        buyer_names_price,
        sale_opens_at,
        sale_closes_at,
    };
    let input = ModifyInput {
        id,
        changes,
        version,
    };
    let answer = |commit: &mut Commit, event: &Event| {
        idempotent.answer(commit, StatusCode::OK, &EventAnswer::from(event.clone()))
    };
    Ok(service.modify(input, answer).await?)
}
