//! The middleware around each request: host and origin checks, admission, timeout, panics, idempotency keys, trace,
//! metrics and one log line. It is one layer, because each layer costs each request. It owns the count in flight.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use messaging::{Random, TraceContext, trace};
use web::{
    Problem,
    idempotency::{self, Idempotency},
};

use super::{
    Parts,
    hosts::{HostRefusal, Hosts},
    metrics::HttpMetrics,
};

/// Answered also under overload, because that is when operators need them.
const ALWAYS_ANSWERED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// The only accepted encoding of a body.
const IDENTITY: &str = "identity";

pub struct Guard {
    idempotency: Idempotency,
    metrics: HttpMetrics,
    random: Random,
    hosts: Hosts,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    timeout: Duration,
}

impl Guard {
    pub fn new(parts: &mut Parts) -> Self {
        Self {
            idempotency: Idempotency::new(parts.store.clone(), parts.clock.clone()),
            metrics: HttpMetrics::register(&mut parts.registry),
            random: parts.random.clone(),
            hosts: Hosts::read(&parts.settings.hosts).expect("settings were validated"),
            in_flight: AtomicUsize::new(0),
            in_flight_max: parts.settings.in_flight_max,
            timeout: Duration::from_millis(parts.settings.request_timeout_millis),
        }
    }

    fn admit(&self, route: &str) -> Option<InFlightPermit<'_>> {
        let permit = InFlightPermit(&self.in_flight);
        let under_way = self.in_flight.fetch_add(1, Ordering::Relaxed);
        (under_way < self.in_flight_max || ALWAYS_ANSWERED.contains(&route)).then_some(permit)
    }

    /// Refuses requests that no route accepts.
    fn refuse(&self, request: &Request) -> Option<Response> {
        match self.hosts.check(request) {
            Err(HostRefusal::Host) => Some(misdirected().into_response()),
            Err(HostRefusal::Origin) => Some(foreign().into_response()),
            Ok(()) if is_encoded(request) => Some(encoded()),
            Ok(()) => None,
        }
    }

    async fn perform(&self, request: Request, next: Next) -> Response {
        let answer = async {
            if idempotency::is_keyed(&request) {
                let keyed = idempotency::idempotent(State(self.idempotency.clone()), request, next);
                keyed.await.into_response()
            } else {
                next.run(request).await
            }
        };
        // A panicking handler leaves nothing half done, because its changes are one Commit.
        let answer = AssertUnwindSafe(answer).catch_unwind();
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(_panic)) => internal().into_response(),
            Err(_elapsed) => gave_up().into_response(),
        }
    }
}

/// Counts one request in flight until it is answered or its client disconnects.
struct InFlightPermit<'a>(&'a AtomicUsize);

impl Drop for InFlightPermit<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The middleware.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let caller = caller_trace(request.headers());
    trace::requested(caller, &guard.random, answer(&guard, request, next)).await
}

/// The caller's trace. Duplicate `traceparent` headers are ignored.
fn caller_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let mut named = headers.get_all(trace::HEADER).into_iter();
    let text = named.next()?.to_str().ok()?;
    named.next().is_none().then(|| TraceContext::parse(text))?
}

async fn answer(guard: &Guard, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let response = match guard.admit(route) {
        Some(_permit) => match guard.refuse(&request) {
            Some(refusal) => refusal,
            None => guard.perform(request, next).await,
        },
        None => overloaded().into_response(),
    };
    let (status, elapsed) = (response.status(), started.elapsed());
    log(&method, route, status, elapsed);
    guard.metrics.observe(&method, route, status, elapsed);
    response
}

fn log(method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
    let status = status.as_u16();
    if status >= 500 {
        tracing::warn!(%method, route, status, ?elapsed, "a request failed");
    } else {
        tracing::debug!(%method, route, status, ?elapsed, "a request was answered");
    }
}

/// Whether the body is compressed; a small compressed body may decompress to gigabytes.
fn is_encoded(request: &Request) -> bool {
    let mut encodings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let is_plain = |value: &HeaderValue| {
        let mut names = value.to_str().unwrap_or("?").split(',').map(str::trim);
        names.all(|name| name.is_empty() || name.eq_ignore_ascii_case(IDENTITY))
    };
    !request.method().is_safe() && !encodings.all(is_plain)
}

fn encoded() -> Response {
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let detail = "the body has a Content-Encoding; send it uncompressed";
    let problem = Problem {
        field: Some(header::CONTENT_ENCODING.to_string()),
        ..Problem::new(status, "UNSUPPORTED_ENCODING", detail)
    };
    ([(header::ACCEPT_ENCODING, IDENTITY)], problem).into_response()
}

fn misdirected() -> Problem {
    let status = StatusCode::MISDIRECTED_REQUEST;
    let detail =
        "the request's Host is not a name of this server; the setting http.hosts lists its names";
    Problem::new(status, "UNKNOWN_HOST", detail)
}

fn foreign() -> Problem {
    let detail = "a web page of another origin may not change anything here";
    Problem::new(StatusCode::FORBIDDEN, "CROSS_ORIGIN_REQUEST", detail)
}

fn overloaded() -> Problem {
    Problem::unavailable(
        "OVERLOADED",
        "too many requests in flight; try again after Retry-After",
    )
}

fn internal() -> Problem {
    let detail = "the server failed to handle this request; the failure is logged";
    Problem::internal(detail)
}

fn gave_up() -> Problem {
    let detail = "the request timed out and its outcome is unknown; \
                  send it again with the same Idempotency-Key";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "REQUEST_TIMEOUT", detail)
}
