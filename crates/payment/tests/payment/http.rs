//! The door for requests: every refusal by its code, and one charge for one idempotency key.

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

use crate::world::{Peer, World, input, settings, settled};

pub struct Door {
    pub world: World,
    pub router: Router,
    pub peer: Peer,
    id: PaymentId,
    pub folder: tempfile::TempDir,
}

impl Door {
    pub async fn open() -> Self {
        Self::open_with(true).await
    }

    async fn open_with(forward_test_codes: bool) -> Self {
        let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
        let mut settings = settings(peer.address);
        settings.forward_test_codes = forward_test_codes;
        let mut world = World::open(folder.path(), settings);
        let id = world.open_payment(1).await;
        let (routes, _) = payment::http::router(world.service.clone()).split_for_parts();
        let idempotency = Idempotency::new(world.store.clone(), world.clock.clone());
        let once = middleware::from_fn_with_state(idempotency, web::idempotency::idempotent);
        Self {
            world,
            router: routes.layer(once),
            peer,
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
    let mut door = Door::open().await;

    let (status, answer) = door.post(&door.body(), &[]).await;
    assert_eq!(status, StatusCode::OK);
    let expected = json!({"paymentId": door.id, "pgPaymentId": "pg-1", "succeeded": true});
    assert_eq!(answer, expected);
    door.world.drain().await;

    let (status, shown) = door.get(&door.id.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shown["status"], "SUCCEEDED");
    assert_eq!(shown["finalAmount"], 7_000);
    assert_eq!(shown["refund"], "NONE");
    let history = shown["history"].as_array().unwrap();
    let steps: Vec<_> = history.iter().map(|entry| &entry["status"]).collect();
    assert_eq!(steps, ["CREATED", "CONFIRMING", "SUCCEEDED"]);
    // Whoever lost the answer is told again, and another charge is another matter.
    assert_eq!(door.post(&door.body(), &[]).await, (StatusCode::OK, answer));
    let mut other = door.body();
    other["pgPaymentId"] = json!("pg-2");
    let (status, refusal) = door.post(&other, &[]).await;
    assert_eq!(
        (status, &refusal["code"]),
        (StatusCode::CONFLICT, &json!("ALREADY_CONFIRMED"))
    );
    assert_eq!(door.world.payment(door.id).await.attempt, 1);
}

#[tokio::test]
async fn a_confirmation_of_a_payment_whose_money_goes_back_says_so() {
    let mut door = Door::open().await;
    let (status, _) = door.post(&door.body(), &[]).await;
    assert_eq!(status, StatusCode::OK);
    let request = CancelRequest {
        payment_id: door.id,
        saga_id: None,
        reason: "there is no ticket left".to_owned(),
    };
    door.world.send("cancel", &request).await;

    for refund in ["REQUESTED", "DONE"] {
        let mut other = door.body();
        other["pgPaymentId"] = json!("pg-2");
        let (status, refusal) = door.post(&other, &[]).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(refusal["code"], "PAYMENT_CLOSED");
        let detail = refusal["detail"].as_str().unwrap();
        assert!(detail.contains(refund), "{detail}");
        door.world.settle().await;
    }
}

#[tokio::test]
async fn the_other_name_of_the_call_does_the_same() {
    let door = Door::open().await;
    let response = door.respond("/payment/confirm", &door.body(), &[]).await;
    let (status, answer) = read(response).await;
    assert_eq!(
        (status, &answer["succeeded"]),
        (StatusCode::OK, &json!(true))
    );
}

#[tokio::test]
async fn what_cannot_be_confirmed_is_refused_by_its_code_and_changes_nothing() {
    let door = Door::open().await;
    let with = |field: &str, value: Value| {
        let mut body = door.body();
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
        let (got, refusal) = door.post(&body, &[]).await;
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
    assert_eq!(door.world.payment(door.id).await.version, 1);
    assert_eq!(door.peer.charge(door.id).await, None);
}

#[tokio::test]
async fn a_payment_that_is_not_there_cannot_be_shown() {
    let door = Door::open().await;
    let (status, refusal) = door.get("0192f0c1-2f00-7abc-8def-0123456789ab").await;
    assert_eq!(
        (status, &refusal["code"]),
        (StatusCode::NOT_FOUND, &json!("PAYMENT_NOT_FOUND"))
    );
    let (status, refusal) = door.get("x").await;
    assert_eq!(
        (status, &refusal["field"]),
        (StatusCode::BAD_REQUEST, &json!("paymentId"))
    );
}

#[tokio::test]
async fn a_refusal_of_the_gateway_is_told_with_its_code() {
    let door = Door::open().await;
    let code = [("TossPayments-Test-Code", "REJECT_CARD_PAYMENT")];
    let (status, answer) = door.post(&door.body(), &code).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["succeeded"], false);
    assert_eq!(answer["declineCode"], "REJECT_CARD_PAYMENT");
}

#[tokio::test]
async fn test_codes_reach_the_gateway_only_where_that_is_set() {
    let door = Door::open_with(false).await;
    let code = [("TossPayments-Test-Code", "REJECT_CARD_PAYMENT")];
    let (_, answer) = door.post(&door.body(), &code).await;
    assert_eq!(answer["succeeded"], true);
}

#[tokio::test]
async fn an_unknown_outcome_is_accepted_and_a_second_attempt_must_wait() {
    let mut door = Door::open().await;
    let code = [("TossPayments-Test-Code", "SANDBOX_CHARGE_THEN_500")];
    let (status, answer) = door.post(&door.body(), &code).await;
    assert_eq!(
        (status, &answer["status"]),
        (StatusCode::ACCEPTED, &json!("CONFIRMING"))
    );

    let response = door.respond("/payment/confirmed", &door.body(), &[]).await;
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let (status, refusal) = read(response).await;
    let expected = (StatusCode::CONFLICT, &json!("CONFIRMATION_IN_PROGRESS"));
    assert_eq!((status, &refusal["code"]), expected);

    assert_eq!(door.world.settle().await, 1);
    assert_eq!(door.world.status(door.id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn one_idempotency_key_is_one_attempt_and_one_answer() {
    let mut door = Door::open().await;
    let key = [("Idempotency-Key", "pay-1")];
    let first = door.post(&door.body(), &key).await;
    door.world.drain().await;
    let second = door.post(&door.body(), &key).await;
    assert_eq!(first, second);
    assert_eq!(door.world.payment(door.id).await.attempt, 1);

    let mut other = door.body();
    other["pgPaymentId"] = json!("pg-2");
    let (status, refusal) = door.post(&other, &key).await;
    let expected = (
        StatusCode::UNPROCESSABLE_ENTITY,
        &json!("IDEMPOTENCY_KEY_REUSED"),
    );
    assert_eq!((status, &refusal["code"]), expected);
}

#[tokio::test]
async fn a_key_that_met_an_attempt_under_way_gets_the_outcome_when_it_comes_again() {
    let mut door = Door::open().await;
    let code = [("TossPayments-Test-Code", "SANDBOX_CHARGE_THEN_500")];
    door.post(&door.body(), &code).await;
    let key = [("Idempotency-Key", "pay-1")];
    let (_, refusal) = door.post(&door.body(), &key).await;
    assert_eq!(refusal["code"], "CONFIRMATION_IN_PROGRESS");

    door.world.settle().await;

    for _ in 0..2 {
        let (status, answer) = door.post(&door.body(), &key).await;
        assert_eq!(
            (status, &answer["succeeded"]),
            (StatusCode::OK, &json!(true))
        );
    }
    assert_eq!(door.world.payment(door.id).await.attempt, 1);
}

#[tokio::test]
async fn a_key_that_was_told_to_wait_gets_the_outcome_when_it_comes_again() {
    let mut door = Door::open().await;
    let slow = [
        ("TossPayments-Test-Code", "SANDBOX_CHARGE_THEN_500"),
        ("Idempotency-Key", "pay-1"),
    ];
    let (status, pending) = door.post(&door.body(), &slow).await;
    assert_eq!(
        (status, &pending["status"]),
        (StatusCode::ACCEPTED, &json!("CONFIRMING"))
    );

    door.world.settle().await;

    let key = [("Idempotency-Key", "pay-1")];
    let (status, answer) = door.post(&door.body(), &key).await;
    assert_eq!(
        (status, &answer["succeeded"]),
        (StatusCode::OK, &json!(true))
    );
    assert_eq!(door.world.payment(door.id).await.attempt, 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_kept_never_holds_back_the_outcome() {
    let mut door = Door::open().await;
    let answer = || web::idempotency::AnswerRecord {
        key: "POST /payment/confirmed pay-1".to_owned(),
        fingerprint: String::new(),
        status: 200,
        content_type: "application/json".to_owned(),
        body: "{}".to_owned(),
        created_at: door.world.clock.now(),
        revisable: 0,
        version: 0,
    };
    // The same key was answered meanwhile, while its first client was gone.
    let mut commit = Commit::new();
    commit.put(&answer());
    door.world.store.commit(commit).await.unwrap();

    let taken = answer();
    let answer = move |commit: &mut Commit, settled: &Settled| {
        commit.put(&taken);
        settled.clone()
    };
    let output = door.world.service.confirm(input(door.id), answer).await;
    door.world.drain().await;

    assert!(settled(output).succeeded);
    assert_eq!(door.world.status(door.id).await, PaymentStatus::Succeeded);
}
