//! HTTP metrics: requests and their duration by method, route template and status. It owns both metric families.

use std::{
    fmt::Write,
    hash::{Hash, Hasher},
    time::Duration,
};

use axum::{
    extract::MatchedPath,
    http::{Method, StatusCode},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The matched route's template, never the path: the number of label values must be bounded.
#[derive(Debug, Clone)]
pub struct Route(Option<MatchedPath>);

impl Route {
    #[must_use]
    pub fn of(matched: Option<&MatchedPath>) -> Self {
        Self(matched.cloned())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("none", MatchedPath::as_str)
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Route {}

impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: Route,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimeLabels {
    method: &'static str,
    route: Route,
}

pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    time: Family<TimeLabels, Histogram>,
}

/// Bucket bounds from 0.25 ms to 8 s, each twice the one before.
fn time_histogram() -> Histogram {
    Histogram::new((0..16).map(|power| 0.000_25 * f64::from(1 << power)))
}

impl HttpMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            time: Family::new_with_constructor(time_histogram),
        };
        let (requests, time) = (metrics.requests.clone(), metrics.time.clone());
        registry.register("http_requests", "HTTP requests answered", requests);
        registry.register_with_unit(
            "http_request_duration",
            "Time from an HTTP request's head to its response",
            Unit::Seconds,
            time,
        );
        metrics
    }

    pub fn observe(&self, method: &Method, route: Route, status: StatusCode, elapsed: Duration) {
        let method = known(method);
        let labels = RequestLabels {
            method,
            route: route.clone(),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        self.time
            .get_or_create(&TimeLabels { method, route })
            .observe(elapsed.as_secs_f64());
    }
}

/// Maps methods that a client invents to one label value.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "OTHER",
    }
}
