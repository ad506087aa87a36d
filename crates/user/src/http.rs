//! The HTTP API of the user service.

use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::Response,
};
use contract::{Points, SagaId, Timestamp, UserId};
use messaging::Commit;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use web::{
    Body, Id, IdempotentRequest, Page, Params, Problem, ProblemDetails, extract::BODY_BYTES_MAX,
};

use crate::{
    Error, Service,
    grant::GrantInput,
    ledger::{EntryKind, LedgerEntry},
    model::{Status, User},
    modify::ModifyInput,
    register::RegisterInput,
};

/// `POST /user`, `GET /user/{id}`, `PUT /user/{id}`, `POST /user/{id}/points`, `GET /user/{id}/points`.
pub fn router(service: Service) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(show, modify))
        .routes(routes!(grant, ledger))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(service)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListEntries {
    /// The last entry id of the previous page.
    after: Option<String>,
    /// Rows of the page, 1 to 500; the default is 50.
    limit: Option<u32>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserAnswer {
    id: UserId,
    name: String,
    status: Status,
    flagged: bool,
    /// The balance.
    points: Points,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PointsAnswer {
    user_id: UserId,
    /// The new balance.
    points: Points,
}

/// One change of a balance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntryAnswer {
    entry_id: String,
    kind: EntryKind,
    /// Negative if points were taken.
    amount: i64,
    balance_after: Points,
    /// The purchase that took or restored the points.
    saga_id: Option<SagaId>,
    reason: Option<String>,
    at: Timestamp,
}

impl From<&User> for UserAnswer {
    fn from(user: &User) -> Self {
        Self {
            id: user.user_id,
            name: user.name.clone(),
            status: user.status,
            flagged: user.flagged,
            points: user.balance,
            version: user.version,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

impl From<LedgerEntry> for LedgerEntryAnswer {
    fn from(entry: LedgerEntry) -> Self {
        Self {
            entry_id: entry.entry_id,
            kind: entry.kind,
            amount: entry.amount,
            balance_after: entry.balance_after,
            saga_id: entry.saga_id,
            reason: entry.reason,
            at: entry.at,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(invalid) => Self::invalid(invalid.field, invalid.detail),
            Error::NotFound(_) => Self::not_found("USER_NOT_FOUND", error),
            Error::Exists(_) => Self::conflict("USER_EXISTS", error),
            Error::VersionConflict { .. } => Self::conflict("VERSION_CONFLICT", error),
            Error::Contended => Self::unavailable("UNAVAILABLE", error),
            Error::Commit(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

/// Register a user.
#[utoipa::path(post, path = "/user", tag = "user", request_body = RegisterInput,
    responses(
        (status = 201, body = UserAnswer),
        (status = 409, body = ProblemDetails, description = "USER_EXISTS"),
    ))]
async fn register(
    State(service): State<Service>,
    idempotent: IdempotentRequest,
    Body(input): Body<RegisterInput>,
) -> Result<Response, Problem> {
    let answer = |commit: &mut Commit, user: &User| {
        idempotent.answer(commit, StatusCode::CREATED, &UserAnswer::from(user))
    };
    Ok(service.register(input, answer).await?)
}

/// Read a user.
#[utoipa::path(get, path = "/user/{id}", tag = "user", params(("id" = UserId, Path)),
    responses(
        (status = 200, body = UserAnswer),
        (status = 404, body = ProblemDetails, description = "USER_NOT_FOUND"),
    ))]
async fn show(
    State(service): State<Service>,
    Id(id): Id<UserId>,
) -> Result<Json<UserAnswer>, Problem> {
    Ok(Json(UserAnswer::from(&service.show(id).await?)))
}

/// Modify a user.
#[utoipa::path(put, path = "/user/{id}", tag = "user", request_body = ModifyInput, params(("id" = UserId, Path)),
    responses(
        (status = 200, body = UserAnswer),
        (status = 404, body = ProblemDetails, description = "USER_NOT_FOUND"),
        (status = 409, body = ProblemDetails, description = "VERSION_CONFLICT"),
    ))]
async fn modify(
    State(service): State<Service>,
    Id(id): Id<UserId>,
    idempotent: IdempotentRequest,
    Body(input): Body<ModifyInput>,
) -> Result<Response, Problem> {
    let answer = |commit: &mut Commit, user: &User| {
        idempotent.answer(commit, StatusCode::OK, &UserAnswer::from(user))
    };
    Ok(service.modify(id, input, answer).await?)
}

/// Grant points to a user.
#[utoipa::path(post, path = "/user/{id}/points", tag = "user", request_body = GrantInput,
    params(("id" = UserId, Path)),
    responses(
        (status = 200, body = PointsAnswer),
        (status = 404, body = ProblemDetails, description = "USER_NOT_FOUND"),
    ))]
async fn grant(
    State(service): State<Service>,
    Id(id): Id<UserId>,
    idempotent: IdempotentRequest,
    Body(input): Body<GrantInput>,
) -> Result<Response, Problem> {
    let answer = |commit: &mut Commit, points: Points| {
        let user_id = id;
        idempotent.answer(commit, StatusCode::OK, &PointsAnswer { user_id, points })
    };
    Ok(service.grant(id, input, answer).await?)
}

/// List a user's ledger in the order of its changes.
#[utoipa::path(get, path = "/user/{id}/points", tag = "user", params(("id" = UserId, Path), ListEntries),
    responses(
        (status = 200, body = Page<LedgerEntryAnswer>),
        (status = 404, body = ProblemDetails, description = "USER_NOT_FOUND"),
    ))]
async fn ledger(
    State(service): State<Service>,
    Id(id): Id<UserId>,
    Params(params): Params<ListEntries>,
) -> Result<Json<Page<LedgerEntryAnswer>>, Problem> {
    let limit = web::page::limit(params.limit)?;
    let entries = service.ledger(id, params.after, limit).await?;
    let items = entries.into_iter().map(LedgerEntryAnswer::from).collect();
    Ok(Json(Page::new(items, limit, |entry| {
        entry.entry_id.clone()
    })))
}
