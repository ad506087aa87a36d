//! The console: one page for operators with the events on sale, the sagas in progress, and the work for a person.

use axum::response::Html;
use utoipa_axum::{router::OpenApiRouter, routes};

const PAGE: &str = include_str!("console.html");

pub fn router() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(console))
}

/// The operators' console.
#[utoipa::path(get, path = "/console", tag = "operations",
    responses((status = 200, description = "a self-contained page", body = String, content_type = "text/html")))]
async fn console() -> Html<&'static str> {
    Html(PAGE)
}
