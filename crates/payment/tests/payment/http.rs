//! The api for requests: every refusal by its code, and one charge for one idempotency key.

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    middleware,
    response::Response,
};
use contract::{PaymentId, domain::PaymentStatus, payment::CancelRequest};
use http_body_util::BodyExt;
use messaging::Commit;
use payment::confirm::Settled;
use serde_json::{Value, json};
use tower::ServiceExt;
use web::idempotency::Idempotency;

use crate::support::{TestGateway, TestPaymentService, input, settings, settled};

pub struct TestApi {
    pub app: TestPaymentService,
    pub router: Router,
    pub gateway: TestGateway,
    id: PaymentId,
    pub folder: tempfile::TempDir,
}

impl TestApi {
    pub async fn open() -> Self {
        Self::open_with(true).await
    }

    async fn open_with(forward_test_codes: bool) -> Self {
        let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
        let mut settings = settings(gateway.address);
        settings.forward_test_codes = forward_test_codes;
        let mut app = TestPaymentService::open(folder.path(), settings);
        let id = app.open_payment(1).await;
        let (routes, _) = payment::http::router(app.service.clone()).split_for_parts();
        let idempotency = Idempotency::new(app.store.clone(), app.clock.clone());
        let once = middleware::from_fn_with_state(idempotency, web::idempotency::idempotent);
        Self {
            app,
            router: routes.layer(once),
            gateway,
            id,
            folder,
        }
    }

    fn body(&self) -> Value {
        json!({"paymentId": self.id, "pgPaymentId": "pg-1", "amount": 7_000, "userId": 2})
    }

    async fn post(&self, body: &Value, headers: &[(&str, &str)]) -> (StatusCode, Value) {
        read(self.respond("/payment/confirmed", body, headers).await).await
    }

    pub async fn respond(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_string())).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, id: &str) -> (StatusCode, Value) {
        let request = Request::get(format!("/payment/{id}"));
        let request = request.body(Body::empty()).unwrap();
        read(self.router.clone().oneshot(request).await.unwrap()).await
    }
}

pub async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn a_confirmed_payment_is_answered_and_shown_with_its_history() {
    let mut api = TestApi::open().await;

    let (status, answer) = api.post(&api.body(), &[]).await;
    assert_eq!(status, StatusCode::OK);
    let expected = json!({"paymentId": api.id, "pgPaymentId": "pg-1", "succeeded": true});
    assert_eq!(answer, expected);
    api.app.drain().await;

    let (status, shown) = api.get(&api.id.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["status"], "SUCCEEDED");
    assert_eq!(shown["finalAmount"], 7_000);
    assert_eq!(shown["refund"], "NONE");
    let history = shown["history"].as_array().unwrap();
    let steps: Vec<_> = history.iter().map(|entry| &entry["status"]).collect();
    assert_eq!(steps, ["CREATED", "CONFIRMING", "SUCCEEDED"]);
    // Whoever lost the answer is told again, and another charge is another matter.
    assert_eq!(api.post(&api.body(), &[]).await, (StatusCode::OK, answer));
    let mut other = api.body();
    other["pgPaymentId"] = json!("pg-2");
    let (status, refusal) = api.post(&other, &[]).await;
    assert_eq!(
        (status, &refusal["code"]),
        (StatusCode::CONFLICT, &json!("ALREADY_CONFIRMED"))
    );
    assert_eq!(api.app.payment(api.id).await.attempt, 1);
}

#[tokio::test]
async fn the_other_name_of_confirm_is_documented_alike() {
    let api = TestApi::open().await;
    let (_, document) = payment::http::router(api.app.service.clone()).split_for_parts();
    let paths = serde_json::to_value(document.paths).unwrap();
    let mut one = paths["/payment/confirmed"]["post"].clone();
    let mut other = paths["/payment/confirm"]["post"].clone();
    assert_eq!(other["operationId"], "confirm_by_verb");
    assert_eq!(other["summary"], "Confirm a payment, by another name");
    let same = "The same as `POST /payment/confirmed`.";
    assert_eq!(other["description"], same);
    for operation in [&mut one, &mut other] {
        for name in ["operationId", "summary", "description"] {
            operation[name].take();
        }
    }
    assert_eq!(one, other);
    assert_eq!(one["tags"], json!(["payment"]));
}

#[tokio::test]
async fn confirming_a_payment_with_a_refund_is_refused_with_the_state_of_the_refund() {
    let mut api = TestApi::open().await;
    let (status, _) = api.post(&api.body(), &[]).await;
    assert_eq!(status, StatusCode::OK);
    let request = CancelRequest {
        payment_id: api.id,
        saga_id: None,
        reason: "there is no ticket left".to_owned(),
    };
    api.app.send("cancel", &request).await;

    for refund in ["REQUESTED", "DONE"] {
        let mut other = api.body();
        other["pgPaymentId"] = json!("pg-2");
        let (status, refusal) = api.post(&other, &[]).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(refusal["code"], "PAYMENT_CLOSED");
        let detail = refusal["detail"].as_str().unwrap();
        assert!(detail.contains(refund), "{detail}");
        api.app.settle().await;
    }
}

#[tokio::test]
async fn both_confirm_routes_do_the_same() {
    let api = TestApi::open().await;
    let response = api.respond("/payment/confirm", &api.body(), &[]).await;
    let (status, answer) = read(response).await;
    assert_eq!(
        (status, &answer["succeeded"]),
        (StatusCode::OK, &json!(true))
    );
}

#[tokio::test]
async fn a_refused_confirmation_has_its_code_and_changes_nothing() {
    let api = TestApi::open().await;
    let with = |field: &str, value: Value| {
        let mut body = api.body();
        body[field] = value;
        body
    };
    let stranger = "0192f0c1-2f00-7abc-8def-0123456789ab";
    let long = "k".repeat(201);
    for (body, status, code, field) in [
        (
            with("paymentId", json!(stranger)),
            404,
            "PAYMENT_NOT_FOUND",
            None,
        ),
        (
            with("paymentId", json!("x")),
            400,
            "INVALID_REQUEST",
            Some("paymentId"),
        ),
        (
            with("amount", json!(6_999)),
            400,
            "AMOUNT_MISMATCH",
            Some("amount"),
        ),
        (
            with("amount", json!(-1)),
            400,
            "INVALID_REQUEST",
            Some("amount"),
        ),
        (
            with("amount", json!("7000")),
            400,
            "INVALID_REQUEST",
            Some("amount"),
        ),
        (
            with("userId", json!(3)),
            403,
            "PAYMENT_OWNER_MISMATCH",
            None,
        ),
        (
            with("pgPaymentId", json!("")),
            400,
            "INVALID_REQUEST",
            Some("pgPaymentId"),
        ),
        (
            with("pgPaymentId", json!(long)),
            400,
            "INVALID_REQUEST",
            Some("pgPaymentId"),
        ),
        (
            with("pgPaymentId", json!("../x")),
            400,
            "INVALID_REQUEST",
            Some("pgPaymentId"),
        ),
        (with("more", json!(1)), 400, "INVALID_REQUEST", Some("more")),
    ] {
        let (got, refusal) = api.post(&body, &[]).await;
        assert_eq!(
            (got.as_u16(), refusal["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
        assert_eq!(
            refusal.get("field").and_then(Value::as_str),
            field,
            "{body}"
        );
    }
    assert_eq!(api.app.payment(api.id).await.version, 1);
    assert_eq!(api.gateway.charge(api.id).await, None);
}

#[tokio::test]
async fn an_unknown_payment_is_not_found() {
    let api = TestApi::open().await;
    let (status, refusal) = api.get("0192f0c1-2f00-7abc-8def-0123456789ab").await;
    assert_eq!(
        (status, &refusal["code"]),
        (StatusCode::NOT_FOUND, &json!("PAYMENT_NOT_FOUND"))
    );
    let (status, refusal) = api.get("x").await;
    assert_eq!(
        (status, &refusal["field"]),
        (StatusCode::BAD_REQUEST, &json!("paymentId"))
    );
}

#[tokio::test]
async fn a_decline_is_answered_with_the_gateways_code() {
    let api = TestApi::open().await;
    let code = [("TossPayments-Test-Code", "REJECT_CARD_PAYMENT")];
    let (status, answer) = api.post(&api.body(), &code).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["succeeded"], false);
    assert_eq!(answer["declineCode"], "REJECT_CARD_PAYMENT");
}

#[tokio::test]
async fn test_codes_reach_the_gateway_only_if_the_setting_allows() {
    let api = TestApi::open_with(false).await;
    let code = [("TossPayments-Test-Code", "REJECT_CARD_PAYMENT")];
    let (_, answer) = api.post(&api.body(), &code).await;
    assert_eq!(answer["succeeded"], true);
}

#[tokio::test]
async fn an_unknown_outcome_is_accepted_and_a_second_attempt_must_wait() {
    let mut api = TestApi::open().await;
    let code = [("TossPayments-Test-Code", "SANDBOX_CHARGE_THEN_500")];
    let (status, answer) = api.post(&api.body(), &code).await;
    assert_eq!(
        (status, &answer["status"]),
        (StatusCode::ACCEPTED, &json!("CONFIRMING"))
    );

    let response = api.respond("/payment/confirmed", &api.body(), &[]).await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (status, refusal) = read(response).await;
    let expected = (StatusCode::CONFLICT, &json!("CONFIRMATION_IN_PROGRESS"));
    assert_eq!((status, &refusal["code"]), expected);

    assert_eq!(api.app.settle().await, 1);
    assert_eq!(api.app.status(api.id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn one_idempotency_key_is_one_attempt_and_one_answer() {
    let mut api = TestApi::open().await;
    let key = [("Idempotency-Key", "pay-1")];
    let first = api.post(&api.body(), &key).await;
    api.app.drain().await;
    let second = api.post(&api.body(), &key).await;
    assert_eq!(first, second);
    assert_eq!(api.app.payment(api.id).await.attempt, 1);

    let mut other = api.body();
    other["pgPaymentId"] = json!("pg-2");
    let (status, refusal) = api.post(&other, &key).await;
    let expected = (
        StatusCode::UNPROCESSABLE_ENTITY,
        &json!("IDEMPOTENCY_KEY_REUSED"),
    );
    assert_eq!((status, &refusal["code"]), expected);
}

#[tokio::test]
async fn a_key_refused_during_an_attempt_gets_the_outcome_on_retry() {
    let mut api = TestApi::open().await;
    let code = [("TossPayments-Test-Code", "SANDBOX_CHARGE_THEN_500")];
    api.post(&api.body(), &code).await;
    let key = [("Idempotency-Key", "pay-1")];
    let (_, refusal) = api.post(&api.body(), &key).await;
    assert_eq!(refusal["code"], "CONFIRMATION_IN_PROGRESS");

    api.app.settle().await;

    for _ in 0..2 {
        let (status, answer) = api.post(&api.body(), &key).await;
        assert_eq!(
            (status, &answer["succeeded"]),
            (StatusCode::OK, &json!(true))
        );
    }
    assert_eq!(api.app.payment(api.id).await.attempt, 1);
}

#[tokio::test]
async fn a_key_answered_as_pending_gets_the_outcome_on_retry() {
    let mut api = TestApi::open().await;
    let slow = [
        ("TossPayments-Test-Code", "SANDBOX_CHARGE_THEN_500"),
        ("Idempotency-Key", "pay-1"),
    ];
    let (status, pending) = api.post(&api.body(), &slow).await;
    assert_eq!(
        (status, &pending["status"]),
        (StatusCode::ACCEPTED, &json!("CONFIRMING"))
    );

    api.app.settle().await;

    let key = [("Idempotency-Key", "pay-1")];
    let (status, answer) = api.post(&api.body(), &key).await;
    assert_eq!(
        (status, &answer["succeeded"]),
        (StatusCode::OK, &json!(true))
    );
    assert_eq!(api.app.payment(api.id).await.attempt, 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_stored_never_blocks_the_outcome() {
    let mut api = TestApi::open().await;
    let answer = || web::idempotency::AnswerRecord {
        key: "POST /payment/confirmed pay-1".to_owned(),
        fingerprint: String::new(),
        status: 200,
        content_type: "application/json".to_owned(),
        body: "{}".to_owned(),
        created_at: api.app.clock.now(),
        revisable: 0,
        version: 0,
    };
    // The same key was answered meanwhile, while its first client was gone.
    let mut commit = Commit::new();
    commit.put(&answer());
    api.app.store.commit(commit).await.unwrap();

    let taken = answer();
    let answer = move |commit: &mut Commit, settled: &Settled| {
        commit.put(&taken);
        settled.clone()
    };
    let output = api.app.service.confirm(input(api.id), answer).await;
    api.app.drain().await;

    assert!(settled(output).succeeded);
    assert_eq!(api.app.status(api.id).await, PaymentStatus::Succeeded);
}
