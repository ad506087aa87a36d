//! A gateway that tells whatever it is told to tell: for what the sandbox, being honest, cannot show.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

#[derive(Default)]
struct Shown {
    transactions: Vec<Value>,
    payments: Vec<Value>,
}

/// Dropping it ends it.
pub struct StubGateway {
    pub address: SocketAddr,
    shown: Arc<Mutex<Shown>>,
    server: JoinHandle<()>,
}

impl Drop for StubGateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StubGateway {
    pub async fn start() -> Self {
        let shown = Arc::<Mutex<Shown>>::default();
        let router = Router::new()
            .route("/v1/transactions", get(transactions))
            .route("/v1/payments/{key}", get(find))
            .route("/v1/payments/{key}/cancel", post(cancel))
            .with_state(Arc::clone(&shown));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            shown,
            server,
        }
    }

    /// Lists an approval, and shows its payment.
    pub fn charge(&self, key: &str, order: &str, amount: i64, at: contract::Timestamp) {
        self.list(key, order, "DONE", amount, at);
        self.show(key, order, "DONE", amount, amount);
    }

    pub fn list(&self, key: &str, order: &str, status: &str, amount: i64, at: contract::Timestamp) {
        let mut shown = self.shown.lock().unwrap();
        let transaction_key = format!("tx-{}", shown.transactions.len());
        shown.transactions.push(json!({
            "transactionKey": transaction_key, "paymentKey": key, "orderId": order, "status": status,
            "amount": amount, "currency": "KRW", "transactionAt": at.to_string(),
        }));
    }

    pub fn list_nonsense(&self) {
        let mut shown = self.shown.lock().unwrap();
        shown.transactions.push(json!({"transactionKey": 7}));
    }

    pub fn show(&self, key: &str, order: &str, status: &str, total: i64, balance: i64) {
        let mut shown = self.shown.lock().unwrap();
        shown
            .payments
            .retain(|payment| payment["paymentKey"] != key);
        shown.payments.push(json!({
            "paymentKey": key, "orderId": order, "status": status, "totalAmount": total,
            "balanceAmount": balance, "currency": "KRW",
        }));
    }

    /// What is left of a charge.
    pub fn balance(&self, key: &str) -> i64 {
        let shown = self.shown.lock().unwrap();
        let found = shown.payments.iter().find(|it| it["paymentKey"] == key);
        found.unwrap()["balanceAmount"].as_i64().unwrap()
    }
}

async fn transactions(State(shown): State<Arc<Mutex<Shown>>>) -> Json<Value> {
    Json(json!(shown.lock().unwrap().transactions))
}

fn not_found() -> Response {
    let body = json!({"code": "NOT_FOUND_PAYMENT", "message": "none"});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn find(State(shown): State<Arc<Mutex<Shown>>>, Path(key): Path<String>) -> Response {
    let shown = shown.lock().unwrap();
    let found = shown.payments.iter().find(|it| it["paymentKey"] == key);
    found.map_or_else(not_found, |it| Json(it.clone()).into_response())
}

async fn cancel(State(shown): State<Arc<Mutex<Shown>>>, Path(key): Path<String>) -> Response {
    let mut shown = shown.lock().unwrap();
    let found = shown.payments.iter_mut().find(|it| it["paymentKey"] == key);
    found.map_or_else(not_found, |it| {
        it["status"] = json!("CANCELED");
        it["balanceAmount"] = json!(0);
        it["cancels"] = json!([{"cancelAmount": it["totalAmount"]}]);
        Json(it.clone()).into_response()
    })
}
