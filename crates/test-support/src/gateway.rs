//! What buyers, banks and merchants do at the sandbox gateway, without the program under test.

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::api;

/// A client of the sandbox's HTTP API.
pub struct GatewayClient {
    pub url: String,
    secret: &'static str,
    client: Client,
}

impl GatewayClient {
    pub fn new(url: String, secret: &'static str) -> Self {
        Self {
            url,
            secret,
            client: api::client(),
        }
    }

    /// Charges a card for an order, as the merchant's confirmation does; `None` if the connection broke.
    pub async fn confirm(&self, order: &str, payment_key: &str, amount: i64) -> Option<Response> {
        let body = json!({ "orderId": order, "paymentKey": payment_key, "amount": amount });
        let url = format!("{}/v1/payments/confirm", self.url);
        let request = self.client.post(url).header("Idempotency-Key", payment_key);
        let request = request.basic_auth(self.secret, Some("")).json(&body);
        request.send().await.ok()
    }

    /// Charges a card for an order, which must succeed.
    pub async fn charge(&self, order: &str, payment_key: &str, amount: i64) {
        let answer = self.confirm(order, payment_key, amount).await.unwrap();
        assert_eq!(answer.status(), 200, "{order} {payment_key} {amount}");
    }

    /// The buyer requests a virtual account for an order.
    pub async fn request_account(&self, order: &str, payment_key: &str, amount: i64) {
        let body = json!({ "orderId": order, "paymentKey": payment_key, "amount": amount,
            "method": "VIRTUAL_ACCOUNT" });
        let (status, answer) = self.call(Method::POST, "payments", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Performs an action, which the gateway may refuse: a `deposit`, the bank's `withdraw`, or a `cancel-by-merchant`
    /// at the gateway's console.
    pub async fn try_perform(&self, payment_key: &str, action: &str) -> (u16, Value) {
        let path = format!("payments/{payment_key}/{action}");
        self.call(Method::POST, &path, None).await
    }

    /// Performs an action, if the gateway allows it; returns whether it does.
    pub async fn can_perform(&self, payment_key: &str, action: &str) -> bool {
        self.try_perform(payment_key, action).await.0 == 200
    }

    /// The sandbox's webhooks: pending and delivered ones.
    pub async fn webhooks(&self) -> Value {
        self.call(Method::GET, "webhooks", None).await.1
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}/sandbox/{path}", self.url);
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }
}
