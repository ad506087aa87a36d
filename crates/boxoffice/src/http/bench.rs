//! A route that does no work, to measure the HTTP stack alone. Served only if `http.bench_route` is true.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use web::Body;

pub fn router() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(echo))
}

/// A body as large as that of a small request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Echo {
    event_id: i64,
    user_id: i64,
}

/// Returns the request's body.
#[utoipa::path(post, path = "/bench/echo", tag = "bench", request_body = Echo, responses(
    (status = 200, body = Echo)))]
async fn echo(Body(echo): Body<Echo>) -> Json<Echo> {
    Json(echo)
}
