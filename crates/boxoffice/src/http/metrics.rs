//! HTTP metrics: requests and their duration by method, route template and status. It owns both metric families.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    /// The matched route's template, never the path: the number of label values must be bounded.
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimeLabels {
    method: &'static str,
    route: String,
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

    pub fn observe(&self, method: &Method, route: &str, status: StatusCode, elapsed: Duration) {
        let (method, route) = (known(method), route.to_owned());
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
