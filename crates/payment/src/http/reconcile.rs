//! Requests and reports of reconciliations.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use contract::Timestamp;
use messaging::{Commit, Find, Record};
use serde::Deserialize;
use utoipa::ToSchema;
use web::{Body, Id, IdempotentRequest, Page, Params, Problem, ProblemDetails};

use crate::{
    Service,
    reconcile::{Error, PERIOD_SECS_DEFAULT, Period, Report, Summary},
    record::ReconciliationRecord,
};

/// The period; the last 24 hours by default.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReconcileBody {
    /// Default: 24 hours before the end.
    #[serde(default)]
    from: Option<Timestamp>,
    /// Exclusive. Default: now.
    #[serde(default)]
    to: Option<Timestamp>,
}

/// Compare the payments with the gateway's transactions
///
/// For a period of at most 31 days. What can be settled is settled; the report lists the rest. It continues if the caller
/// disconnects, and the report is stored.
#[utoipa::path(
    post, path = "/payment/reconciliation", tag = "payment", request_body = Option<ReconcileBody>,
    responses(
        (status = 200, body = Report),
        (status = 409, description = "RECONCILIATION_RUNNING, IDEMPOTENCY_KEY_IN_FLIGHT", body = ProblemDetails),
        (status = 503, description = "GATEWAY_UNAVAILABLE, OVERLOADED, UNAVAILABLE", body = ProblemDetails),
    )
)]
pub(super) async fn reconcile(
    State(service): State<Service>,
    idempotent: IdempotentRequest,
    body: Option<Body<ReconcileBody>>,
) -> Result<Response, Problem> {
    let asked = body.map(|Body(body)| body).unwrap_or_default();
    let to = asked.to.unwrap_or_else(|| service.inner.clock.now());
    let from = asked
        .from
        .unwrap_or_else(|| to.plus_secs(-PERIOD_SECS_DEFAULT));
    let answer = move |commit: &mut Commit, report: &Report| {
        idempotent.answer(commit, StatusCode::OK, report)
    };
    Ok(service.reconcile_for(Period { from, to }, answer).await?)
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReconciliationsWhere {
    /// The last id seen.
    after: Option<String>,
    /// Rows of a page: 1 to 500.
    limit: Option<u32>,
}

/// List reconciliations, newest first
///
/// Without their differences: see `GET /payment/reconciliation/{id}`.
#[utoipa::path(
    get, path = "/payment/reconciliation", tag = "payment", params(ReconciliationsWhere),
    responses(
        (status = 200, body = Page<Summary>),
    )
)]
pub(super) async fn list(
    State(service): State<Service>,
    Params(wanted): Params<ReconciliationsWhere>,
) -> Result<Json<Page<Summary>>, Problem> {
    let limit = web::page::limit(wanted.limit)?;
    let find = Find::all(ReconciliationRecord::TABLE, limit)
        .after(wanted.after)
        .newest_first();
    let records: Vec<ReconciliationRecord> = service.inner.store.find(find).await?;
    let summaries = records.into_iter().map(|it| Report::from(it).summary);
    Ok(Json(Page::new(
        summaries.collect(),
        limit,
        |it: &Summary| it.id.clone(),
    )))
}

/// Show the report of a reconciliation
#[utoipa::path(
    get, path = "/payment/reconciliation/{id}", tag = "payment",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = Report),
        (status = 404, description = "RECONCILIATION_NOT_FOUND", body = ProblemDetails),
    )
)]
pub(super) async fn show(
    State(service): State<Service>,
    Id(id): Id<String>,
) -> Result<Json<Report>, Problem> {
    let report = service.reconciliation(&id).await?;
    report.map(Json).ok_or_else(|| {
        let detail = format_args!("there is no reconciliation {id}");
        Problem::not_found("RECONCILIATION_NOT_FOUND", detail)
    })
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Running => Self {
                retry_after_secs: Some(1),
                ..Self::conflict("RECONCILIATION_RUNNING", text)
            },
            Error::Period { field, .. } => Self::invalid(field, text),
            Error::Gateway { .. } | Error::TooMany => {
                tracing::warn!(%error, "a reconciliation has failed");
                Self::unavailable("GATEWAY_UNAVAILABLE", text)
            }
            Error::Store(error) => error.into(),
            Error::Died => {
                tracing::error!(%error, "a reconciliation has failed");
                Self::internal(text)
            }
        }
    }
}
