//! The console: one page that shows what is on sale, what is under way, and what needs a person.

use axum::response::Html;
use utoipa_axum::{router::OpenApiRouter, routes};

const PAGE: &str = include_str!("console.html");

pub fn router() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(console))
}

/// The console, for a browser.
#[utoipa::path(get, path = "/console", tag = "operations",
    responses((status = 200, description = "one page, complete in itself", body = String, content_type = "text/html")))]
async fn console() -> Html<&'static str> {
    Html(PAGE)
}
