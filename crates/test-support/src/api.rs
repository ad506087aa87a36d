//! Requests of the HTTP API and their answers. The bodies of a purchase are written here once.

use reqwest::{
    Client, Method, RequestBuilder, Response,
    header::{self, HeaderMap},
};
use serde_json::{Value, json};

const WEBHOOK_PATH: &str = "/payment/webhook/toss";

/// An HTTP client that ignores proxies of the environment.
pub fn client() -> Client {
    // Fails if another test of the process has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

/// A request. Sending it again sends the same idempotency key.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    pub method: Method,
    pub path: String,
    /// Empty for a request without an idempotency key.
    pub key: String,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
}

/// What a reservation is processed with.
#[derive(Debug, Clone, Copy)]
pub struct Purchase<'a> {
    pub ticket: &'a str,
    pub event: i64,
    pub user: i64,
    pub total_amount: i64,
    pub points: i64,
}

impl ApiRequest {
    fn new(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self {
            method,
            path: path.into(),
            key: String::new(),
            body,
            headers: Vec::new(),
        }
    }

    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, Value::Null)
    }

    pub fn post(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::POST, path, body)
    }

    pub fn put(path: impl Into<String>, body: Value) -> Self {
        Self::new(Method::PUT, path, body)
    }

    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, Value::Null)
    }

    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Makes the sandbox gateway answer with this code.
    #[must_use]
    pub fn with_test_code(self, code: &str) -> Self {
        self.with_header("TossPayments-Test-Code", code)
    }

    pub fn register_event(name: &str, quantity: i64, price: i64) -> Self {
        let body = json!({ "name": name, "ticketQuantity": quantity, "price": price });
        Self::post("/event", body)
    }

    pub fn register_user(name: &str, status: &str, points: i64) -> Self {
        let body = json!({ "name": name, "status": status, "points": points });
        Self::post("/user", body)
    }

    pub fn reserve(event: i64, user: i64) -> Self {
        let body = json!({ "eventId": event, "userId": user });
        Self::post("/ticketing/reserve", body)
    }

    pub fn process(purchase: Purchase<'_>) -> Self {
        let body = json!({
            "ticketId": purchase.ticket, "eventId": purchase.event, "userId": purchase.user,
            "totalAmount": purchase.total_amount, "point": purchase.points,
        });
        Self::post("/ticketing/process", body)
    }

    pub fn confirm(payment: &str, payment_key: &str, amount: i64) -> Self {
        let body = json!({
            "paymentId": payment, "pgPaymentId": payment_key, "amount": amount,
        });
        Self::post("/payment/confirmed", body)
    }

    pub fn cancel_ticket(ticket: &str) -> Self {
        Self::post(format!("/ticket/{ticket}/cancel"), json!({}))
    }

    pub fn release(ticket: &str) -> Self {
        Self::delete(format!("/ticketing/reserve/{ticket}"))
    }

    /// A webhook of the gateway about a payment.
    pub fn webhook(transmission: &str, data: Value) -> Self {
        let body = json!({
            "eventType": "PAYMENT_STATUS_CHANGED", "createdAt": "2026-11-22T10:00:00.000000",
            "data": data,
        });
        Self::post(WEBHOOK_PATH, body)
            .with_header("tosspayments-webhook-transmission-id", transmission)
    }

    pub fn is_webhook(&self) -> bool {
        self.path == WEBHOOK_PATH
    }

    /// Sends the request to a server; an error if the connection broke before the end of the answer.
    pub async fn send(&self, client: &Client, url: &str) -> reqwest::Result<ApiAnswer> {
        ApiAnswer::read(self.on(client, url).send().await?).await
    }

    /// The request to the server at this URL.
    pub fn on(&self, client: &Client, url: &str) -> RequestBuilder {
        let mut request = client.request(self.method.clone(), format!("{url}{}", self.path));
        if self.method == Method::POST || self.method == Method::PUT {
            request = request.json(&self.body);
        }
        if !self.key.is_empty() {
            request = request.header("Idempotency-Key", &self.key);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request
    }
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct ApiAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// `null` for a text that is not JSON.
    pub body: Value,
}

impl ApiAnswer {
    pub async fn read(response: Response) -> reqwest::Result<Self> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Self {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        })
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// The problem that this answer must be.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.code()), (status, code), "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self.body
    }

    /// A 5xx, or an answer with `Retry-After`: the same request should be sent again.
    pub fn is_retryable(&self) -> bool {
        self.status >= 500 || self.headers.contains_key(header::RETRY_AFTER)
    }

    /// The request was not decided: a 5xx, or another request with its key is in flight.
    pub fn leaves_key_open(&self) -> bool {
        self.status >= 500 || self.code() == "IDEMPOTENCY_KEY_IN_FLIGHT"
    }

    /// A saved answer to an idempotency key.
    pub fn is_replayed(&self) -> bool {
        self.headers.contains_key("idempotency-replayed")
    }

    /// The problem's code, or an empty text.
    pub fn code(&self) -> &str {
        self.text_of("code").unwrap_or_default()
    }

    pub fn text_of(&self, field: &str) -> Option<&str> {
        self.body[field].as_str()
    }

    pub fn number_of(&self, field: &str) -> Option<i64> {
        self.body[field].as_i64()
    }
}
