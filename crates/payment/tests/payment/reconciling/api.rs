//! The api for requests: reports are asked for, kept, and refused by their codes.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{
    http::{TestApi, read},
    support::START,
};

impl TestApi {
    async fn get_from(&self, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        read(self.router.clone().oneshot(request).await.unwrap()).await
    }
}

#[tokio::test]
async fn a_reconciliation_is_requested_stored_and_shown() {
    let api = TestApi::open().await;
    let path = "/payment/reconciliation";
    let from = "2023-11-01T00:00:00Z";
    let body = json!({"from": from, "to": "2023-11-20T00:00:00Z"});
    let key = [("idempotency-key", "once")];

    let (status, report) = read(api.respond(path, &body, &key).await).await;
    assert_eq!(status, StatusCode::OK, "{report}");
    assert_eq!(report["from"], "2023-11-01T00:00:00.000Z");
    assert_eq!(
        (&report["matched"], &report["differences"]),
        (&json!(0), &json!([]))
    );
    let (_, again) = read(api.respond(path, &body, &key).await).await;
    assert_eq!(again["id"], report["id"], "the same key, the same report");
    // What nobody said: the last 24 hours.
    let (_, day) = read(api.respond(path, &json!({}), &[]).await).await;
    assert_eq!(day["to"], START.to_string());
    assert_eq!(day["from"], START.plus_secs(-86_400).to_string());

    let id = report["id"].as_str().unwrap();
    let (_, shown) = api.get_from(&format!("{path}/{id}")).await;
    assert_eq!(shown, report);
    let (_, page) = api.get_from(&format!("{path}?limit=1")).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let (_, page) = api.get_from(path).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert_eq!(page["items"][0].get("differences"), None);
    let (status, refusal) = api.get_from(&format!("{path}/none")).await;
    assert_eq!(
        (status, &refusal["code"]),
        (StatusCode::NOT_FOUND, &json!("RECONCILIATION_NOT_FOUND"))
    );
}

#[tokio::test]
async fn an_impossible_reconciliation_is_refused_by_its_code() {
    let api = TestApi::open().await;
    let path = "/payment/reconciliation";
    for (body, field) in [
        (
            json!({"from": "2023-11-02T00:00:00Z", "to": "2023-11-01T00:00:00Z"}),
            "from",
        ),
        (
            json!({"from": "2023-10-01T00:00:00Z", "to": "2023-11-02T00:00:00Z"}),
            "from",
        ),
        (json!({"to": "yesterday"}), "to"),
        (json!({"until": "2023-11-01T00:00:00Z"}), "until"),
    ] {
        let (status, refusal) = read(api.respond(path, &body, &[]).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {refusal}");
        assert_eq!(refusal["code"], "INVALID_REQUEST", "{body}");
        assert_eq!(refusal["field"], field, "{body}");
    }

    let address = api.gateway.address;
    let TestApi {
        app,
        router,
        gateway,
        folder: _folder,
        ..
    } = api;
    gateway.stop().await;
    // A gateway that takes the connection and says nothing: the first one waits, the second is refused.
    let silent = tokio::net::TcpListener::bind(address).await.unwrap();
    let ask = || {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        router
            .clone()
            .oneshot(request.body(Body::from("{}")).unwrap())
    };
    let first = tokio::spawn(ask());
    let heard = silent.accept().await.unwrap();
    let (status, refusal) = read(ask().await.unwrap()).await;
    assert_eq!(
        (status, &refusal["code"]),
        (StatusCode::CONFLICT, &json!("RECONCILIATION_RUNNING"))
    );
    drop((heard, silent));
    let (status, refusal) = read(first.await.unwrap().unwrap()).await;
    assert_eq!(
        (status, &refusal["code"]),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            &json!("GATEWAY_UNAVAILABLE")
        )
    );
    drop(app);
}
