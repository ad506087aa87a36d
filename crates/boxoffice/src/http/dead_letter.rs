//! The routes of dead letters: list, show, replay, discard.

use super::operations::LETTER_STATES;
use axum::{Json, extract::State};
use contract::{DeadLetterId, Timestamp, dead_letter::DeadLetter};
use messaging::{
    Clock, Store,
    dead_letters::{self, DeadLetterRecord, DeadLetterState, Error},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use web::{Id, Page, Params, Problem, page};

#[derive(Clone)]
struct Service {
    store: Store,
    clock: Clock,
}

pub fn router(store: Store, clock: Clock) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, discard))
        .routes(routes!(replay))
        .with_state(Service { store, clock })
}

/// A message that a consumer rejected, and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterView {
    pub id: DeadLetterId,
    #[schema(schema_with = state_schema)]
    pub state: DeadLetterState,
    /// How often it was reissued, by schedule or by a person.
    pub reissues: u32,
    pub letter: DeadLetter,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl From<DeadLetterRecord> for DeadLetterView {
    fn from(record: DeadLetterRecord) -> Self {
        Self {
            id: record.id,
            state: record.state,
            reissues: record.reissues,
            letter: record.letter,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

fn state_schema() -> utoipa::openapi::Object {
    let state = utoipa::openapi::ObjectBuilder::new();
    let state = state.schema_type(utoipa::openapi::Type::String);
    state.enum_values(Some(LETTER_STATES)).build()
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListParams {
    #[param(schema_with = state_schema)]
    state: Option<DeadLetterState>,
    /// The last id of the previous page.
    after: Option<DeadLetterId>,
    limit: Option<u32>,
}

/// Dead letters, the oldest first.
#[utoipa::path(get, path = "/dead-letter", tag = "dead letters", params(ListParams), responses(
    (status = 200, body = Page<DeadLetterView>)))]
async fn list(
    State(service): State<Service>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<DeadLetterView>>, Problem> {
    let limit = page::limit(params.limit)?;
    let records = dead_letters::list(&service.store, params.state, params.after, limit).await?;
    let views = records.into_iter().map(DeadLetterView::from).collect();
    Ok(Json(Page::new(views, limit, |view| view.id.to_string())))
}

/// One dead letter.
#[utoipa::path(get, path = "/dead-letter/{id}", tag = "dead letters", params(("id" = DeadLetterId, Path)), responses(
    (status = 200, body = DeadLetterView),
    (status = 404, description = "DEAD_LETTER_NOT_FOUND")))]
async fn show(
    State(service): State<Service>,
    Id(id): Id<DeadLetterId>,
) -> Result<Json<DeadLetterView>, Problem> {
    let record = dead_letters::show(&service.store, id)
        .await
        .map_err(refuse)?;
    Ok(Json(record.into()))
}

/// Reissues its message at once to the consumer group that rejected it. If it names no group, because another company's
/// service wrote it, the message goes to each group of its topic.
#[utoipa::path(post, path = "/dead-letter/{id}/replay", tag = "dead letters", params(("id" = DeadLetterId, Path)),
    responses(
        (status = 200, body = DeadLetterView),
        (status = 404, description = "DEAD_LETTER_NOT_FOUND"),
        (status = 409, description = "DEAD_LETTER_CLOSED, DEAD_LETTER_UNPUBLISHABLE, VERSION_CONFLICT")))]
async fn replay(
    State(service): State<Service>,
    Id(id): Id<DeadLetterId>,
) -> Result<Json<DeadLetterView>, Problem> {
    let replayed = dead_letters::replay(&service.store, id, service.clock.now()).await;
    Ok(Json(replayed.map_err(refuse)?.into()))
}

/// Closes it without handling its message.
#[utoipa::path(delete, path = "/dead-letter/{id}", tag = "dead letters", params(("id" = DeadLetterId, Path)),
    responses(
        (status = 200, body = DeadLetterView),
        (status = 404, description = "DEAD_LETTER_NOT_FOUND"),
        (status = 409, description = "DEAD_LETTER_CLOSED, VERSION_CONFLICT")))]
async fn discard(
    State(service): State<Service>,
    Id(id): Id<DeadLetterId>,
) -> Result<Json<DeadLetterView>, Problem> {
    let discarded = dead_letters::discard(&service.store, id, service.clock.now()).await;
    Ok(Json(discarded.map_err(refuse)?.into()))
}

fn refuse(error: Error) -> Problem {
    match error {
        Error::NotFound(_) => Problem::not_found("DEAD_LETTER_NOT_FOUND", error),
        Error::WrongState { .. } => Problem::conflict("DEAD_LETTER_CLOSED", error),
        Error::Unpublishable { .. } => Problem::conflict("DEAD_LETTER_UNPUBLISHABLE", error),
        Error::Changed(_) => Problem::conflict("VERSION_CONFLICT", error),
        Error::Store(error) => error.into(),
    }
}
