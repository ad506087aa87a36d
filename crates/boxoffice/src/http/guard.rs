//! Around every request: whose it may be, how many there may be at once, how long one may take, what is left of one that panics,
//! idempotency keys, the trace it belongs to, counting and one line of log. One layer, because every layer costs every request.

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
    hosts::{Hosts, Stranger},
    metrics::{HttpMetrics, Route},
};

/// Answered even when everything else is shed: overload is when an operator looks.
const ALWAYS_ANSWERED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];
/// The only encoding of a body.
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

    fn admit(&self, route: &Route) -> Option<Slot<'_>> {
        let slot = Slot(&self.in_flight);
        let under_way = self.in_flight.fetch_add(1, Ordering::Relaxed);
        (under_way < self.in_flight_max || ALWAYS_ANSWERED.contains(&route.as_str()))
            .then_some(slot)
    }

    /// What no route takes.
    fn refuse(&self, request: &Request) -> Option<Response> {
        match self.hosts.check(request) {
            Err(Stranger::Host) => Some(misdirected().into_response()),
            Err(Stranger::Origin) => Some(foreign().into_response()),
            Ok(()) if is_encoded(request) => Some(encoded()),
            Ok(()) => None,
        }
    }

    async fn perform(&self, request: Request, next: Next) -> Response {
        let answer = async {
            if idempotency::is_keyed(&request) {
                let keyed = idempotency::once(State(self.idempotency.clone()), request, next);
                keyed.await.into_response()
            } else {
                next.run(request).await
            }
        };
        // A handler that panics leaves nothing half done: what it changes is one Commit.
        let answer = AssertUnwindSafe(answer).catch_unwind();
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(_panic)) => internal().into_response(),
            Err(_elapsed) => gave_up().into_response(),
        }
    }
}

/// Counts one request under way until it is answered, or its client is gone.
struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The middleware.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let caller = caller(request.headers());
    trace::requested(caller, &guard.random, answer(&guard, request, next)).await
}

/// The trace that the request belongs to; one that says two belongs to none.
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut named = headers.get_all(trace::HEADER).into_iter();
    let text = named.next()?.to_str().ok()?;
    named.next().is_none().then(|| TraceContext::parse(text))?
}

async fn answer(guard: &Guard, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = Route::of(request.extensions().get::<MatchedPath>());
    let response = match guard.admit(&route) {
        Some(_slot) => match guard.refuse(&request) {
            Some(refusal) => refusal,
            None => guard.perform(request, next).await,
        },
        None => overloaded().into_response(),
    };
    let (status, elapsed) = (response.status(), started.elapsed());
    log(&method, &route, status, elapsed);
    guard.metrics.observe(&method, route, status, elapsed);
    response
}

fn log(method: &Method, route: &Route, status: StatusCode, elapsed: Duration) {
    let (route, status) = (route.as_str(), status.as_u16());
    if status >= 500 {
        tracing::warn!(%method, route, status, ?elapsed, "a request failed");
    } else {
        tracing::debug!(%method, route, status, ?elapsed, "a request was answered");
    }
}

/// A body that would have to be unpacked first. A body that is packed well is far larger than it looks.
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
    let detail = "a body is sent as it is, without a Content-Encoding";
    let problem = Problem {
        field: Some(header::CONTENT_ENCODING.to_string()),
        ..Problem::new(status, "UNSUPPORTED_ENCODING", detail)
    };
    ([(header::ACCEPT_ENCODING, IDENTITY)], problem).into_response()
}

fn misdirected() -> Problem {
    let status = StatusCode::MISDIRECTED_REQUEST;
    let detail =
        "this server has no such name as the request's Host; its settings list those that it has";
    Problem::new(status, "UNKNOWN_HOST", detail)
}

fn foreign() -> Problem {
    let detail = "a web page of another site may not change anything here";
    Problem::new(StatusCode::FORBIDDEN, "CROSS_ORIGIN_REQUEST", detail)
}

fn overloaded() -> Problem {
    Problem::unavailable("OVERLOADED", "too many requests at once; try again shortly")
}

fn internal() -> Problem {
    let detail = "the service failed at this request; the failure is logged";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail)
}

fn gave_up() -> Problem {
    let detail = "the answer took too long and what became of the request is not known; \
                  send it again with the same Idempotency-Key";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "REQUEST_TIMEOUT", detail)
}
