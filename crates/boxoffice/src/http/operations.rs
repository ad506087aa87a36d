//! The routes for operators: health, readiness, metrics, OpenAPI and AsyncAPI. It owns the gauges that a scrape sets.

use std::sync::{Arc, atomic::AtomicI64};

use axum::{
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use messaging::{
    Bus, Record, Store, StoreError, Table, TaskHandles, coordinator::SagaRecord,
    dead_letters::DeadLetterRecord,
};
use payment::record::{OrphanChargeRecord, PaymentRecord, WebhookRecord};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use web::Problem;

use super::{Parts, asyncapi};

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON_TYPE: &str = "application/json";
/// The states of dead letters.
pub(super) const LETTER_STATES: [&str; 5] =
    ["WAITING", "PARKED", "REPLAYED", "RESOLVED", "DISCARDED"];
/// Sagas that have not ended.
const OPEN: &str = "state IN ('STARTED', 'COMPENSATING')";
const OPEN_AND_PARKED: &str = "state IN ('STARTED', 'COMPENSATING') AND parked IS NOT NULL";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: String,
}

type Gauges = Family<StateLabel, Gauge<i64, AtomicI64>>;

#[derive(Clone)]
pub struct Operations(Arc<Shared>);

struct Shared {
    store: Store,
    bus: Bus,
    handles: TaskHandles,
    registry: Registry,
    outbox_messages: Gauge<i64, AtomicI64>,
    dead_letters: Gauges,
    open_sagas: Gauges,
    open_payments: Gauges,
    openapi: Bytes,
    asyncapi: Bytes,
}

impl Operations {
    pub fn new(parts: Parts, page: &OpenApi) -> Self {
        let mut registry = parts.registry;
        let mut by_state = |name: &str, help: &str| {
            let gauges = Gauges::default();
            registry.register(name, help, gauges.clone());
            gauges
        };
        let dead_letters = by_state("dead_letters", "Dead letters by state");
        let open_sagas = by_state(
            "open_sagas",
            "Sagas that have not ended, by state; PARKED are counted in their state too",
        );
        let open_payments = by_state(
            "open_payments",
            "Money in transit, or waiting for a person: attempts, refunds, orphan charges, webhooks",
        );
        let outbox_messages = Gauge::default();
        let help = "Committed messages that are not published yet, counted up to 10000";
        registry.register("outbox_messages", help, outbox_messages.clone());
        let json = |document: serde_json::Result<Vec<u8>>| {
            Bytes::from(document.expect("a document has string keys only"))
        };
        Self(Arc::new(Shared {
            store: parts.store,
            bus: parts.bus,
            handles: parts.handles,
            registry,
            outbox_messages,
            dead_letters,
            open_sagas,
            open_payments,
            openapi: json(serde_json::to_vec(page)),
            asyncapi: json(serde_json::to_vec(&asyncapi::document())),
        }))
    }
}

pub fn router() -> OpenApiRouter<Operations> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
        .routes(routes!(asyncapi_document))
        .routes(routes!(super::problems::page))
}

/// Liveness: the process runs.
#[utoipa::path(get, path = "/healthz", tag = "operations",
    responses((status = 200, description = "the process runs", body = String, content_type = "text/plain")))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Readiness: the store accepts commits, and each worker runs.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "the store accepts commits, and each worker runs", body = String, content_type = "text/plain"),
    (status = 503, description = "NOT_READY: the store has failed, or a worker has ended")))]
async fn readyz(State(Operations(shared)): State<Operations>) -> Result<&'static str, Problem> {
    if let Err(error) = shared.store.check() {
        return Err(Problem::unavailable("NOT_READY", error));
    }
    match shared.handles.ended() {
        Some(name) => {
            let detail = format_args!("the {name} task has ended");
            Err(Problem::unavailable("NOT_READY", detail))
        }
        None => Ok("ready\n"),
    }
}

/// Metrics, as OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses(
    (status = 200, description = "OpenMetrics", body = String, content_type = "application/openmetrics-text"),
    (status = 503, description = "UNAVAILABLE: the store cannot be read")))]
async fn metrics(State(Operations(shared)): State<Operations>) -> Result<Response, Problem> {
    shared.count().await?;
    let mut body = String::new();
    text::encode(&mut body, &shared.registry).expect("a String can always be written to");
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], body).into_response())
}

/// The HTTP API, as OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "operations",
    responses((status = 200, description = "OpenAPI", body = serde_json::Value)))]
async fn openapi(State(Operations(shared)): State<Operations>) -> Response {
    ([(header::CONTENT_TYPE, JSON_TYPE)], shared.openapi.clone()).into_response()
}

/// The messages between the services, as AsyncAPI 3.1.
#[utoipa::path(get, path = "/asyncapi.json", tag = "operations",
    responses((status = 200, description = "AsyncAPI", body = serde_json::Value)))]
async fn asyncapi_document(State(Operations(shared)): State<Operations>) -> Response {
    ([(header::CONTENT_TYPE, JSON_TYPE)], shared.asyncapi.clone()).into_response()
}

const PAYMENTS: &Table = PaymentRecord::TABLE;
const ORPHANS: &Table = OrphanChargeRecord::TABLE;
const WEBHOOKS: &Table = WebhookRecord::TABLE;
/// The states of `open_payments`: name, table, and a condition, which begins with its column.
const OPEN_MONEY: [(&str, &Table, &str); 6] = [
    ("CONFIRMING", PAYMENTS, "status = 'CONFIRMING'"),
    ("REFUND_REQUESTED", PAYMENTS, "refund = 'REQUESTED'"),
    ("REFUND_PARKED", PAYMENTS, "refund = 'PARKED'"),
    ("STRAY_REQUESTED", ORPHANS, "refund = 'REQUESTED'"),
    ("STRAY_PARKED", ORPHANS, "refund = 'PARKED'"),
    ("WEBHOOK_RECEIVED", WEBHOOKS, "state = 'RECEIVED'"),
];

impl Shared {
    /// Sets the gauges from the store.
    async fn count(&self) -> Result<(), StoreError> {
        let letters = self.store.count_by(DeadLetterRecord::TABLE, "state", None);
        set(&self.dead_letters, &LETTER_STATES, letters.await?);
        let sagas = self.store.count_by(SagaRecord::TABLE, "state", Some(OPEN));
        let mut sagas = sagas.await?;
        let parked = self.total(SagaRecord::TABLE, "state", OPEN_AND_PARKED);
        sagas.push(("PARKED".to_owned(), parked.await?));
        set(&self.open_sagas, &["STARTED", "COMPENSATING"], sagas);
        self.outbox_messages.set(self.bus.unpublished().await?);
        let mut money = Vec::new();
        for (name, table, only) in OPEN_MONEY {
            let column = only.split(' ').next().unwrap_or(only);
            money.push((name.to_owned(), self.total(table, column, only).await?));
        }
        set(&self.open_payments, &[], money);
        Ok(())
    }

    async fn total(
        &self,
        table: &'static Table,
        column: &'static str,
        only: &'static str,
    ) -> Result<i64, StoreError> {
        let counts = self.store.count_by(table, column, Some(only)).await?;
        Ok(counts.iter().map(|(_, count)| count).sum())
    }
}

/// Sets empty states to 0, because an alert cannot watch a missing series.
fn set(gauges: &Gauges, states: &[&str], counts: Vec<(String, i64)>) {
    gauges.clear();
    for state in states {
        let state = (*state).to_owned();
        gauges.get_or_create(&StateLabel { state }).set(0);
    }
    for (state, count) in counts {
        gauges.get_or_create(&StateLabel { state }).set(count);
    }
}
