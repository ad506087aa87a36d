//! The routes of sagas: list and show.

use axum::{Json, extract::State};
use contract::{SagaId, Timestamp};
use messaging::{Find, Record, Store, coordinator::SagaRecord};
use saga::{SagaState, StepState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use web::{Id, Page, Params, Problem, page};

pub fn router(store: Store) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .with_state(store)
}

/// A purchase, expiry or cancellation, and its progress.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SagaView {
    saga_id: SagaId,
    /// The ticket's id.
    reference_id: String,
    #[schema(example = "ticketing.process")]
    saga_type: String,
    /// `STARTED`, `COMPENSATING`, `COMPENSATED` or `COMPLETED`.
    #[schema(value_type = String, example = "STARTED")]
    saga_state: SagaState,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_step: Option<String>,
    step_history: Vec<SagaStepView>,
    /// Why it is parked and needs a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<String>,
    /// Why it compensates.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SagaStepView {
    name: String,
    /// `STARTED`, `SUCCEEDED`, `FAILED`, `COMPENSATING` or `COMPENSATED`.
    #[schema(value_type = String, example = "SUCCEEDED")]
    state: StepState,
}

impl From<SagaRecord> for SagaView {
    fn from(record: SagaRecord) -> Self {
        let step = |step: saga::StepProgress| SagaStepView {
            name: step.name,
            state: step.state,
        };
        Self {
            saga_id: record.saga_id,
            reference_id: record.reference_id,
            saga_type: record.saga_type,
            saga_state: record.state,
            current_step: record.current_step,
            step_history: record.steps.into_iter().map(step).collect(),
            parked: record.parked,
            failure: record.failure,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

/// A saga's state, or `PARKED`, which is a property of an open saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum SagaFilter {
    Started,
    Compensating,
    Compensated,
    Completed,
    Parked,
}

impl SagaFilter {
    fn narrow(self, find: Find) -> Find {
        match self {
            Self::Started => find.equals("state", "STARTED"),
            Self::Compensating => find.equals("state", "COMPENSATING"),
            Self::Compensated => find.equals("state", "COMPENSATED"),
            Self::Completed => find.equals("state", "COMPLETED"),
            // The first condition selects the index; a parked saga has never ended.
            Self::Parked => {
                find.only("state IN ('STARTED', 'COMPENSATING') AND parked IS NOT NULL")
            }
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListParams {
    #[param(inline)]
    state: Option<SagaFilter>,
    /// The last id of the previous page.
    after: Option<SagaId>,
    limit: Option<u32>,
}

/// Sagas, the newest first.
#[utoipa::path(get, path = "/saga", tag = "sagas", params(ListParams), responses(
    (status = 200, body = Page<SagaView>)))]
async fn list(
    State(store): State<Store>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<SagaView>>, Problem> {
    let limit = page::limit(params.limit)?;
    let all = Find::all(SagaRecord::TABLE, limit)
        .after(params.after)
        .newest_first();
    let find = match params.state {
        Some(filter) => filter.narrow(all),
        None => all,
    };
    let records: Vec<SagaRecord> = store.find(find).await?;
    let views = records.into_iter().map(SagaView::from).collect();
    Ok(Json(Page::new(views, limit, |view| {
        view.saga_id.to_string()
    })))
}

/// One saga with the steps that it has started.
#[utoipa::path(get, path = "/saga/{sagaId}", tag = "sagas", params(("sagaId" = SagaId, Path)), responses(
    (status = 200, body = SagaView),
    (status = 404, description = "SAGA_NOT_FOUND")))]
async fn show(State(store): State<Store>, Id(id): Id<SagaId>) -> Result<Json<SagaView>, Problem> {
    let record: Option<SagaRecord> = store.load(id).await?;
    let not_found = || Problem::not_found("SAGA_NOT_FOUND", format_args!("there is no saga {id}"));
    record
        .map(|record| Json(record.into()))
        .ok_or_else(not_found)
}
