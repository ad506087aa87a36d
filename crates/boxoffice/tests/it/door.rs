//! Validation of requests and the refusals: hosts, origins of other sites, encodings, parameters, times, names.

use axum::Router;
use reqwest::{Response, header};
use serde_json::{Value, json};

use crate::support::{Running, assert_problem};

impl Running {
    async fn register(&self, body: &Value) -> Response {
        let request = self.client.post(self.url("/event")).json(body);
        request.send().await.unwrap()
    }

    async fn register_from(&self, host: &str, origin: &str) -> Response {
        let show = json!({ "name": "Show", "ticketQuantity": 5 });
        let request = self.client.post(self.url("/event")).json(&show);
        let request = request
            .header(header::HOST, host)
            .header(header::ORIGIN, origin);
        request.send().await.unwrap()
    }

    async fn events(&self) -> Value {
        let listed: Value = self.get("/event").await.json().await.unwrap();
        listed["items"].clone()
    }
}

#[tokio::test]
async fn a_rebound_host_name_is_refused_and_changes_nothing() {
    let it = Running::start().await;
    // Given a site whose name resolves to this server since its page was loaded (DNS rebinding),
    let rebound = it.register_from("rebound.example", "http://rebound.example");
    assert_problem(rebound.await, 421, "UNKNOWN_HOST").await;
    // then its page neither changes nor reads anything,
    let read = it
        .client
        .get(it.url("/event"))
        .header(header::HOST, "rebound.example");
    assert_problem(read.send().await.unwrap(), 421, "UNKNOWN_HOST").await;
    assert_eq!(it.events().await, json!([]));
    // and an orchestrator reads the health by any name.
    for path in ["/healthz", "/readyz"] {
        let asked = it
            .client
            .get(it.url(path))
            .header(header::HOST, "boxoffice.internal");
        assert_eq!(asked.send().await.unwrap().status(), 200, "{path}");
    }
}

#[tokio::test]
async fn behind_a_proxy_pages_of_the_configured_hosts_are_allowed() {
    let set_hosts =
        |config: &mut boxoffice::config::Config| config.http.hosts = "tickets.example".to_owned();
    let it = Running::start_with(set_hosts, Router::new()).await;
    // The host as nginx sends it by default (the upstream's address), and the host that the buyer used.
    for host in [it.app.address().to_string(), "tickets.example".to_owned()] {
        let let_in = it.register_from(&host, "https://tickets.example").await;
        assert_eq!(let_in.status(), 201, "{host}");
        let other = it.register_from(&host, "https://elsewhere.example").await;
        assert_problem(other, 403, "CROSS_ORIGIN_REQUEST").await;
    }
    assert_eq!(it.events().await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_compressed_body_is_refused_with_the_accepted_encoding() {
    let it = Running::start().await;
    let send = |encoding: &'static str| {
        let request = it
            .client
            .post(it.url("/event"))
            .header(header::CONTENT_ENCODING, encoding);
        request.body(r#"{"name":"Show","ticketQuantity":5}"#).send()
    };
    for encoding in ["gzip", "br", "identity, gzip", "GZIP"] {
        let refused = send(encoding).await.unwrap();
        assert_eq!(refused.headers()["accept-encoding"], "identity");
        let body = assert_problem(refused, 415, "UNSUPPORTED_ENCODING").await;
        assert_eq!(body["field"], "content-encoding");
    }
    assert_eq!(it.events().await, json!([]));
    for encoding in ["identity", "Identity", ""] {
        assert_eq!(send(encoding).await.unwrap().status(), 201, "{encoding:?}");
    }
}

#[tokio::test]
async fn a_wrong_missing_unknown_or_repeated_parameter_is_named() {
    let it = Running::start().await;
    for (path, field) in [
        ("/ticket", "userId"),
        ("/ticket?userId=x", "userId"),
        ("/ticket?userId=1&userId=2", "userId"),
        ("/ticket?userId=1&limit=many", "limit"),
        ("/ticket?userId=1&limit=0", "limit"),
        ("/ticket?userId=1&limit=-1", "limit"),
        ("/ticket?userId=1&after=x", "after"),
        ("/ticket?userId=1&colour=red", "colour"),
        ("/saga?state=LOST", "state"),
        ("/event?limit=1&limit=1", "limit"),
        ("/payment?status=LOST", "status"),
    ] {
        let body = assert_problem(it.get(path).await, 400, "INVALID_REQUEST").await;
        assert_eq!(body["field"], field, "{path}: {body}");
    }
}

#[tokio::test]
async fn a_time_that_is_not_rfc_3339_is_refused_with_its_field() {
    let it = Running::start().await;
    let show = |time: &str| json!({ "name": "Show", "ticketQuantity": 5, "saleClosesAt": time });
    for time in [
        "2026-11-22T10:00:00+25:00",
        "20261122T100000Z",
        "2026-11-22T10:00Z",
        "-000001-11-22T10:00:00Z",
        "2026-11-22T10:00:00+09:00[Asia/Seoul]",
        "2026-11-22 10:00:00Z",
        "2026-11-22T10:00:00",
    ] {
        let refused = it.register(&show(time)).await;
        let body = assert_problem(refused, 400, "INVALID_REQUEST").await;
        assert_eq!(body["field"], "saleClosesAt", "{time}");
    }
    // The latest valid instant reaches every consumer of the event.
    let last = "9999-12-31T23:59:59Z";
    let event: Value = it.register(&show(last)).await.json().await.unwrap();
    assert_eq!(event["saleClosesAt"], "9999-12-31T23:59:59.000Z");
    let stock = format!("/ticketing/event/{}", event["id"]);
    it.eventually(&stock, |stock| stock["available"] == 5).await;
    let letters: Value = it.get("/dead-letter").await.json().await.unwrap();
    assert_eq!(letters["items"], json!([]));
}

#[tokio::test]
async fn an_invisible_name_is_refused_everywhere() {
    let it = Running::start().await;
    let account = |name: &str| json!({ "bank": "88", "accountNumber": "1", "holderName": name });
    let path = "/payment/0192f0c1-2f00-7abc-8def-0123456789ab/refund-account";
    for name in [
        "\u{200b}",
        " \u{a0}\u{2060}\u{feff} ",
        "\u{3164}\u{2800}",
        "\u{202e}",
    ] {
        let refused = it
            .register(&json!({ "name": name, "ticketQuantity": 5 }))
            .await;
        let body = assert_problem(refused, 400, "INVALID_REQUEST").await;
        assert_eq!(body["field"], "name");
        let user = it
            .client
            .post(it.url("/user"))
            .json(&json!({ "name": name }));
        let body = assert_problem(user.send().await.unwrap(), 400, "INVALID_REQUEST").await;
        assert_eq!(body["field"], "name");
        let account = it.client.put(it.url(path)).json(&account(name));
        let body = assert_problem(account.send().await.unwrap(), 400, "INVALID_REQUEST").await;
        assert_eq!(body["field"], "holderName");
    }
    let seen = it
        .register(&json!({ "name": "👩\u{200d}🚀", "ticketQuantity": 5 }))
        .await;
    assert_eq!(seen.status(), 201);
}

#[tokio::test]
async fn a_whole_number_is_accepted_in_every_json_form_and_a_fraction_is_refused() {
    let it = Running::start().await;
    let register = |price: &str| {
        let body = format!(r#"{{"name":"1.0","ticketQuantity":5e0,"price":{price}}}"#);
        it.client.post(it.url("/event")).body(body).send()
    };
    let event: Value = register("50000.0").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&event["price"], &event["name"]),
        (&json!(50_000), &json!("1.0"))
    );
    for price in ["0.5", "1e400", "-1.0"] {
        let body = assert_problem(register(price).await.unwrap(), 400, "INVALID_REQUEST").await;
        assert!(
            ["price", "body"].contains(&body["field"].as_str().unwrap()),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_whole_number_in_the_query_is_accepted_in_every_json_form() {
    let it = Running::start().await;
    for query in ["userId=1102025.0", "userId=1.0&limit=1e1"] {
        let listed = it.get(&format!("/ticket?{query}")).await;
        assert_eq!(listed.status(), 200, "{query}");
    }
    for (query, field) in [("userId=1.5", "userId"), ("userId=1.0&limit=0.0", "limit")] {
        let refused = it.get(&format!("/ticket?{query}")).await;
        let body = assert_problem(refused, 400, "INVALID_REQUEST").await;
        assert_eq!(body["field"], field, "{query}");
    }
}

#[tokio::test]
async fn a_list_is_refused_as_a_body_though_its_values_match_the_fields() {
    let it = Running::start().await;
    let payment = "/payment/confirmed";
    let id = "01a22d3b-21a2-8083-87d0-32b660885ea4";
    let account = json!(["088", "110123456789", "Kim"]);
    let confirmation = json!({ "paymentId": id, "amount": 0, "refundAccount": account });
    for (path, body, field) in [
        ("/payment/reconciliation", json!([null, null]), "body"),
        ("/user", json!(["Kim"]), "body"),
        ("/event", json!(["Show", 5, 1000, null, null, null]), "body"),
        (payment, confirmation, "refundAccount"),
    ] {
        let asked = it.client.post(it.url(path)).json(&body).send().await;
        let refused = assert_problem(asked.unwrap(), 400, "INVALID_REQUEST").await;
        assert_eq!(refused["field"], field, "{path}: {refused}");
    }
}

#[tokio::test]
async fn a_saved_answer_of_a_post_is_not_replayed_to_another_method() {
    let it = Running::start().await;
    let body = json!({ "eventType": "OTHER" });
    let ask = |method| {
        let request = it.client.request(method, it.url("/payment/webhook/toss"));
        request.header("Idempotency-Key", "k").json(&body).send()
    };
    assert_eq!(ask(reqwest::Method::POST).await.unwrap().status(), 200);
    assert_eq!(ask(reqwest::Method::PUT).await.unwrap().status(), 405);
}
