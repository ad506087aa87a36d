//! The routes of no service: health, metrics, the OpenAPI and AsyncAPI documents, dead letters, sagas, the console.

use std::collections::BTreeSet;

use crate::support::{Running, TIMEOUT, assert_problem};
use axum::Router;
use boxoffice::{
    config::{Config, Flags},
    http::{self, Parts},
};
use contract::{SagaId, TicketId, Timestamp};
use messaging::{
    Bus, Clock, Commit, Message, Metrics, Random, Runner, Store, WorkerContext,
    coordinator::SagaRecord,
};
use prometheus_client::registry::Registry;
use reqwest::Method;
use saga::{SagaState, StepProgress, StepState};
use serde_json::{Value, json};
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

#[tokio::test]
async fn health_and_readiness_are_answered() {
    let it = Running::start().await;
    assert_eq!(it.get("/healthz").await.text().await.unwrap(), "ok\n");
    assert_eq!(it.get("/readyz").await.text().await.unwrap(), "ready\n");
}

#[tokio::test]
async fn it_is_not_ready_when_a_worker_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::unregistered();
    let tables = boxoffice::app::tables();
    let store = Store::open_embedded(
        boxoffice::backends::data_folder(folder.path()),
        &tables,
        metrics.clone(),
    )
    .unwrap();
    let clock = Clock::manual(NOW);
    let mut runner = Runner::with_context(WorkerContext {
        store: store.clone(),
        bus: Bus::Local(store.clone()),
        clock: clock.clone(),
        random: Random::seeded(1),
        metrics,
        dead_letters: messaging::DeadLetterSettings::default(),
    });
    runner.task("short-lived", |_| async {});
    let mut running = runner.start().unwrap();
    let ended = tokio::time::timeout(TIMEOUT, running.ended())
        .await
        .unwrap();
    assert_eq!(ended, "the short-lived task has ended");

    let parts = Parts {
        bus: Bus::Local(store.clone()),
        store,
        clock,
        random: messaging::Random::seeded(1),
        registry: Registry::default(),
        handles: running.handles(),
        settings: Config::load(None, [], &Flags::default()).unwrap().http,
    };
    let router = http::router(parts, OpenApiRouter::new(), Router::new());
    let request = axum::http::Request::get("/readyz").body(axum::body::Body::empty());
    let response = router.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
}

#[tokio::test]
async fn requests_are_counted_by_the_template_of_their_route() {
    let it = Running::start().await;
    for path in ["/event/1", "/event/2", "/nowhere", "/elsewhere"] {
        assert_eq!(it.get(path).await.status(), 404);
    }
    let text = it.get("/metrics").await.text().await.unwrap();
    for line in [
        r#"boxoffice_http_requests_total{method="GET",route="/event/{id}",status="404"} 2"#,
        r#"boxoffice_http_requests_total{method="GET",route="none",status="404"} 2"#,
        r#"boxoffice_http_request_duration_seconds_count{method="GET",route="/event/{id}"} 2"#,
        r#"boxoffice_open_sagas{state="PARKED"} 0"#,
        r#"boxoffice_dead_letters{state="PARKED"} 0"#,
        r#"boxoffice_open_payments{state="REFUND_PARKED"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_openapi_page_describes_idempotency_and_body_limit_answers_of_every_post() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    let posts: Vec<_> = page["paths"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|item| item.get("post"))
        .collect();
    assert_eq!(posts.len(), 15, "every POST that is served");
    for post in posts {
        for status in ["409", "413", "422", "503"] {
            assert!(
                post["responses"].get(status).is_some(),
                "{status} is missing: {post}"
            );
        }
        let keys = post["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|it| it["name"] == "Idempotency-Key");
        assert_eq!(keys.count(), 1, "{post}");
    }
}

#[tokio::test]
async fn every_operation_describes_the_answers_that_any_request_may_get() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    let (mut missing, mut unlimited) = (Vec::new(), Vec::new());
    for (path, item) in page["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut described = |status: &str, code: &str| {
                let text = &operation["responses"][status]["description"];
                if !text.as_str().unwrap_or_default().contains(code) {
                    missing.push(format!("{method} {path}: {status} {code}"));
                }
            };
            described("500", "INTERNAL");
            if path != "/healthz" {
                described("503", "OVERLOADED");
                described("504", "REQUEST_TIMEOUT");
            }
            if !matches!(path.as_str(), "/healthz" | "/readyz") {
                described("421", "UNKNOWN_HOST");
            }
            if method != "get" {
                described("403", "CROSS_ORIGIN_REQUEST");
                described("415", "UNSUPPORTED_ENCODING");
            }
            let parameters = operation["parameters"].as_array();
            for parameter in parameters.into_iter().flatten() {
                if parameter["in"] != "header" {
                    described("400", "INVALID_REQUEST");
                }
                let schema = &parameter["schema"];
                let is_limited = schema["minimum"] == 1 && schema["maximum"] == 500;
                if parameter["name"] == "limit" && !is_limited {
                    unlimited.push(format!("{method} {path}"));
                }
            }
        }
    }
    assert_eq!((missing, unlimited), (vec![], vec![]));
}

#[tokio::test]
async fn the_openapi_page_lists_exactly_the_methods_that_are_served() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    let paths = page["paths"].as_object().unwrap();
    for (path, item) in paths {
        let described: BTreeSet<_> = item
            .as_object()
            .unwrap()
            .keys()
            .map(|name| name.to_uppercase())
            .collect();
        let filled = path.replace(['{', '}'], "");
        let refused = it.send(Method::TRACE, &filled).await;
        let allow = refused.headers()["allow"].to_str().unwrap().to_owned();
        assert_problem(refused, 405, "METHOD_NOT_ALLOWED").await;
        // HEAD comes with every GET.
        let served: BTreeSet<_> = allow
            .split(',')
            .filter(|name| *name != "HEAD")
            .map(str::to_owned)
            .collect();
        assert_eq!(served, described, "{path}");
    }
}

#[tokio::test]
async fn every_operation_on_the_openapi_page_has_a_unique_id_and_every_reference_resolves() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    assert!(
        page["info"]["description"]
            .as_str()
            .unwrap()
            .contains("| `OVERLOADED` |")
    );
    assert_references_end(&page, &page);
    let text = page.to_string();
    for name in page["components"]["schemas"].as_object().unwrap().keys() {
        let is_used = text.contains(&format!("\"#/components/schemas/{name}\""));
        assert!(is_used, "{name} is on the page and nothing refers to it");
    }
    let operations = operations(&page);
    let names: BTreeSet<_> = operations
        .iter()
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), operations.len(), "{names:?}");
}

#[tokio::test]
async fn every_answer_on_the_openapi_page_is_described_and_every_refusal_is_a_problem() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(page["servers"][0]["url"], "/");
    let mut links = 0;
    for operation in operations(&page) {
        let name = &operation["operationId"];
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let text = answer["description"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{name}: {status}");
            if status.starts_with(['4', '5']) {
                let content = answer["content"].as_object().unwrap();
                let types: Vec<_> = content.keys().collect();
                assert_eq!(types, ["application/problem+json"], "{name}: {status}");
            }
            links += answer["links"].as_object().map_or(0, serde_json::Map::len);
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["schema"].is_object(), "{name}: {parameter}");
        }
    }
    assert!(links > 15, "{links}");
}

#[tokio::test]
async fn every_link_of_the_openapi_page_leads_to_an_operation_with_its_parameters() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    let operations = operations(&page);
    for operation in &operations {
        let answers = operation["responses"].as_object().unwrap().values();
        let links = answers.filter_map(|answer| answer["links"].as_object());
        for link in links.flat_map(|links| links.values()) {
            let mut found = operations.iter();
            let found = found.find(|it| it["operationId"] == link["operationId"]);
            let found = found.unwrap_or_else(|| panic!("{link} leads nowhere"));
            for name in link["parameters"].as_object().unwrap().keys() {
                let mut parameters = found["parameters"].as_array().unwrap().iter();
                assert!(parameters.any(|it| it["name"] == **name), "{link}");
            }
        }
    }
}

fn operations(page: &Value) -> Vec<&Value> {
    let items = page["paths"].as_object().unwrap().values();
    items
        .flat_map(|item| item.as_object().unwrap().values())
        .collect()
}

#[tokio::test]
async fn every_documented_problem_code_is_explained() {
    let it = Running::start().await;
    let page: Value = it.get("/openapi.json").await.json().await.unwrap();
    let explained = it.get("/docs/problems").await.text().await.unwrap();
    let mut described = BTreeSet::new();
    for operation in operations(&page) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.starts_with('4') || status.starts_with('5') {
                described.extend(codes(response["description"].as_str().unwrap()));
            }
        }
    }
    assert!(described.len() > 10, "{described:?}");
    for code in described {
        assert!(
            explained.contains(&format!("<code>{code}</code>")),
            "{code} is not explained"
        );
    }
}

/// Words in capitals with more than five letters.
fn codes(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'))
        .filter(|word| word.len() > 5)
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn the_docs_page_and_the_console_need_no_network() {
    let it = Running::start().await;
    let docs = it.get("/docs").await;
    assert_eq!(docs.status(), 200);
    let docs = docs.text().await.unwrap();
    let console = it.get("/console").await.text().await.unwrap();
    for page in [&docs, &console] {
        assert!(page.contains("<title>"));
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "{page}"
        );
    }
    let script = it
        .get("/docs/swagger-initializer.js")
        .await
        .text()
        .await
        .unwrap();
    assert!(script.contains("/openapi.json"));
    assert_eq!(it.get("/docs/swagger-ui-bundle.js").await.status(), 200);
}

#[tokio::test]
async fn the_contract_is_published_completely_and_every_reference_resolves() {
    let it = Running::start().await;
    let document: Value = it.get("/asyncapi.json").await.json().await.unwrap();
    assert_eq!(document["asyncapi"], "3.1.0");
    let channels: BTreeSet<_> = document["channels"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(channels, contract::topic::ALL.iter().copied().collect());
    let asked = &document["operations"]["payment.create.request"];
    assert_eq!(
        asked["reply"]["channel"]["$ref"],
        "#/channels/payment.create.response"
    );
    let key = |topic: &str| {
        let message = &document["components"]["messages"][topic];
        message["bindings"]["kafka"]["key"]["description"].clone()
    };
    for (topic, field) in [
        (
            "payment.create.request",
            "`sagaId`; with `bus.kafka.message_identity",
        ),
        ("ticketing.ticket.cancel.request", "`eventId`, as text."),
        ("domain.payment", "`payload.eventId`, as text."),
        ("domain.event", "`payload.id`, as text."),
    ] {
        assert!(key(topic).as_str().unwrap().starts_with(field), "{topic}");
    }
    let headers = &document["components"]["messageTraits"]["record"]["headers"];
    assert!(headers["properties"]["ce_id"].is_object() && headers["required"].is_null());
    let rules = document["info"]["description"].as_str().unwrap();
    for word in [
        "ce_id",
        "idempotent by `sagaId`",
        "message_identity",
        "repeat",
    ] {
        assert!(rules.contains(word), "{word}");
    }
    let payload = &document["components"]["schemas"]["CheckActiveRequest"]["properties"];
    assert!(payload["sagaId"].is_object() && payload["userId"].is_object());
    assert_references_end(&document, &document);
}

fn assert_references_end(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(
                    document.pointer(pointer).is_some(),
                    "{reference} leads nowhere"
                );
            }
            fields
                .values()
                .for_each(|field| assert_references_end(document, field));
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| assert_references_end(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn a_dead_letter_can_be_listed_inspected_replayed_and_discarded() {
    let it = Running::start().await;
    // Given a message that the payment service cannot read.
    let mut commit = Commit::new();
    commit.publish(Message {
        id: "poison".to_owned(),
        topic: "payment.create.request".to_owned(),
        key: "1".to_owned(),
        subject: None,
        time: NOW,
        payload: "{}".to_owned(),
        reissue: None,
        trace: None,
    });
    it.app.store().commit(commit).await.unwrap();
    let listed = it
        .eventually("/dead-letter?state=WAITING", |page| {
            page["items"][0].is_object()
        })
        .await;
    let letter = &listed["items"][0];
    assert_eq!(letter["letter"]["messageId"], "poison");
    assert_eq!(letter["letter"]["maxRetryCount"], 3);
    let path = format!("/dead-letter/{}", letter["id"].as_str().unwrap());

    // When it is replayed, its group rejects it again.
    let replayed: Value = it
        .send(Method::POST, &format!("{path}/replay"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(replayed["state"], "REPLAYED");
    it.eventually(&path, |view| view["state"] == "WAITING")
        .await;

    // Then it can be discarded, once.
    let discarded: Value = it.send(Method::DELETE, &path).await.json().await.unwrap();
    assert_eq!(discarded["state"], "DISCARDED");
    assert_problem(
        it.send(Method::DELETE, &path).await,
        409,
        "DEAD_LETTER_CLOSED",
    )
    .await;
    let replay = it.send(Method::POST, &format!("{path}/replay")).await;
    assert_problem(replay, 409, "DEAD_LETTER_CLOSED").await;
    let text = it.get("/metrics").await.text().await.unwrap();
    assert!(
        text.contains(r#"boxoffice_dead_letters{state="DISCARDED"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn an_unknown_dead_letter_and_a_malformed_id_are_distinguished() {
    let it = Running::start().await;
    let unknown = "/dead-letter/0192f0c1-2f00-7abc-8def-0123456789ab";
    assert_problem(it.get(unknown).await, 404, "DEAD_LETTER_NOT_FOUND").await;
    let body = assert_problem(it.get("/dead-letter/x").await, 400, "INVALID_REQUEST").await;
    assert_eq!(body["field"], "id");
    let wrong = it.get("/dead-letter?state=LOST").await;
    let body = assert_problem(wrong, 400, "INVALID_REQUEST").await;
    assert_eq!(body["field"], "state");
}

fn saga(number: u128, state: SagaState, parked: Option<&str>) -> SagaRecord {
    let id = uuid_of(number);
    SagaRecord {
        saga_id: SagaId(id),
        saga_type: "ticketing.process".to_owned(),
        definition_version: 1,
        reference_id: TicketId(id).to_string(),
        state,
        current_step: Some("user.check.active".to_owned()),
        steps: vec![StepProgress {
            name: "user.check.active".to_owned(),
            state: StepState::Started,
            attempt: 1,
            retries: 0,
            refusal: None,
        }],
        payload: json!({}),
        failure: None,
        parked: parked.map(str::to_owned),
        traceparent: None,
        created_at: NOW,
        updated_at: NOW,
        version: 0,
    }
}

fn uuid_of(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

#[tokio::test]
async fn sagas_are_listed_newest_first_by_state_and_in_pages() {
    let it = Running::start().await;
    let mut commit = Commit::new();
    commit.put(&saga(1, SagaState::Completed, None));
    commit.put(&saga(2, SagaState::Started, None));
    commit.put(&saga(3, SagaState::Compensating, Some("no reply")));
    it.app.store().commit(commit).await.unwrap();

    let ids = async |path: &str| {
        let page: Value = it.get(path).await.json().await.unwrap();
        let items = page["items"].as_array().unwrap();
        let id = |item: &Value| {
            item["sagaId"]
                .as_str()
                .unwrap()
                .parse::<SagaId>()
                .unwrap()
                .0
                .as_u128()
        };
        items.iter().map(id).collect::<Vec<_>>()
    };
    assert_eq!(ids("/saga").await, [3, 2, 1]);
    assert_eq!(ids("/saga?limit=2").await, [3, 2]);
    assert_eq!(
        ids(&format!("/saga?after={}", SagaId(uuid_of(2)))).await,
        [1]
    );
    assert_eq!(ids("/saga?state=STARTED").await, [2]);
    assert_eq!(ids("/saga?state=COMPENSATING").await, [3]);
    assert_eq!(ids("/saga?state=COMPLETED").await, [1]);
    assert_eq!(ids("/saga?state=COMPENSATED").await, [0_u128; 0]);
    assert_eq!(ids("/saga?state=PARKED").await, [3]);
}

#[tokio::test]
async fn a_saga_is_shown_with_its_steps_and_the_reason_why_it_is_parked() {
    let it = Running::start().await;
    let mut commit = Commit::new();
    commit.put(&saga(3, SagaState::Compensating, Some("no reply")));
    it.app.store().commit(commit).await.unwrap();

    let path = format!("/saga/{}", SagaId(uuid_of(3)));
    let shown: Value = it.get(&path).await.json().await.unwrap();
    assert_eq!(shown["sagaState"], "COMPENSATING");
    assert_eq!(shown["parked"], "no reply");
    assert_eq!(
        shown["stepHistory"],
        json!([{ "name": "user.check.active", "state": "STARTED" }])
    );
    assert!(shown.get("failure").is_none());
    let unknown = it.get(&format!("/saga/{}", SagaId(uuid_of(9)))).await;
    assert_problem(unknown, 404, "SAGA_NOT_FOUND").await;
}

#[tokio::test]
async fn the_bench_route_is_served_only_if_it_is_enabled() {
    let without = Running::start().await;
    assert_problem(
        without.send(Method::POST, "/bench/echo").await,
        404,
        "NOT_FOUND",
    )
    .await;

    let with = Running::start_with(|config| config.http.bench_route = true, Router::new()).await;
    let sent = json!({ "eventId": 1, "userId": 2 });
    let echoed = with
        .client
        .post(with.url("/bench/echo"))
        .json(&sent)
        .send()
        .await
        .unwrap();
    assert_eq!(echoed.json::<Value>().await.unwrap(), sent);
}
