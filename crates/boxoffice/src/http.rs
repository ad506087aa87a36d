//! All routes of the process behind one guard, described by one OpenAPI document. State: none of its own.
//!
//! Each route is added to an [`OpenApiRouter`], so that none is served undocumented; the exception is `/docs`, which
//! shows the document.
//!
//! - [`guard`]: what surrounds each request; [`hosts`]: the names that the server answers to
//! - [`operations`], [`saga`], [`dead_letter`], [`console`]: the routes for operators
//! - [`openapi`], [`asyncapi`], [`problems`]: the documents; [`metrics`]: HTTP metrics

mod asyncapi;
mod bench;
mod console;
pub mod dead_letter;
mod guard;
pub(crate) mod hosts;
mod metrics;
mod openapi;
mod operations;
mod problems;
mod saga;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    middleware,
};
use messaging::{Bus, Clock, Random, Store, TaskHandles};
use prometheus_client::registry::Registry;
use tower::util::MapRequest;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;
use web::ProblemDetails;

use crate::config::HttpSettings;
use guard::Guard;
use operations::Operations;

/// What the routes need.
pub struct Parts {
    pub store: Store,
    pub bus: Bus,
    pub clock: Clock,
    pub random: Random,
    pub registry: Registry,
    pub handles: TaskHandles,
    pub settings: HttpSettings,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Boxoffice",
        description = "Sells tickets for shows that everyone wants in the same second.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ProblemDetails))
)]
struct Page;

/// All routes. `services` are those of the service crates; `extra` are undocumented routes behind the same guard.
pub fn router(mut parts: Parts, services: OpenApiRouter, extra: Router) -> Router {
    let guard = Guard::new(&mut parts);
    let mut described = OpenApiRouter::with_openapi(Page::openapi())
        .merge(services)
        .merge(dead_letter::router(
            parts.store.clone(),
            parts.clock.clone(),
        ))
        .merge(saga::router(parts.store.clone()))
        .merge(console::router());
    if parts.settings.bench_route {
        described = described.merge(bench::router());
    }
    let (routes, page) = described.split_for_parts();
    let (own_routes, own_page) = operations::router().split_for_parts();
    let mut page = page.merge_from(own_page);
    openapi::finish(&mut page);
    let own_routes = own_routes.with_state(Operations::new(parts, &page));
    let docs = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::new(["/openapi.json"]));
    let routes = routes
        .merge(own_routes)
        .merge(docs)
        .merge(extra)
        .fallback(problems::no_such_route)
        .method_not_allowed_fallback(problems::no_such_method)
        .layer(DefaultBodyLimit::max(web::extract::BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(
            Arc::new(guard),
            guard::guard,
        ));
    Router::new().fallback_service(MapRequest::new(routes, without_trailing_slash))
}

/// Treats a path with a trailing slash as the path without it, except `/docs/`, which is another page.
fn without_trailing_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let shorter = uri.path().strip_suffix('/').filter(|path| !path.is_empty());
    let Some(path) = shorter.filter(|path| !path.starts_with("/docs")) else {
        return request;
    };
    let query = uri.query().map(|query| format!("?{query}"));
    let text = format!("{path}{}", query.unwrap_or_default());
    if let Ok(shorter) = text.parse() {
        *request.uri_mut() = shorter;
    }
    request
}
