//! The service over its restarts: each server has another port and the same folder.

use std::{path::Path, time::Duration};

use reqwest::{Client, Method};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use crate::{
    calls::{ApiAnswer, ApiRequest, CallLog},
    gateway::{SECRET, TestGateway},
    server::Server,
};

/// The test fails if an awaited condition takes longer.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a condition is polled.
pub const POLL_INTERVAL: Duration = Duration::from_millis(40);

pub struct RestartableService {
    folder: TempDir,
    pub gateway: TestGateway,
    pub calls: CallLog,
    client: Client,
    server: Mutex<Option<Server>>,
    /// The URL of the current server; `None` while there is none.
    address: watch::Sender<Option<String>>,
}

impl RestartableService {
    /// A new folder without a server.
    pub async fn new_folder() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            folder: tempfile::tempdir().unwrap(),
            gateway: TestGateway::open().await,
            calls: CallLog::default(),
            client: Client::builder().no_proxy().build().unwrap(),
            server: Mutex::new(None),
            address: watch::Sender::new(None),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub async fn start(&self) {
        let (folder, url) = (self.path().to_owned(), self.gateway.url.clone());
        let starting = tokio::task::spawn_blocking(move || Server::start(&folder, &url, SECRET));
        let server = starting.await.unwrap();
        self.gateway.send_webhooks_to(&server.url);
        self.address.send_replace(Some(server.url.clone()));
        *self.server.lock().await = Some(server);
    }

    /// `kill -9`, followed by a restart.
    pub async fn kill(&self) {
        let server = self.detach().await;
        tokio::task::spawn_blocking(|| server.kill()).await.unwrap();
        self.start().await;
    }

    pub async fn stop(&self) {
        let server = self.detach().await;
        tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
    }

    async fn detach(&self) -> Server {
        self.gateway.send_webhooks_to_closed_port();
        self.address.send_replace(None);
        self.server.lock().await.take().unwrap()
    }

    /// Sends a request once; `None` if the service died before it answered.
    pub async fn send_once(&self, request: &ApiRequest) -> Option<ApiAnswer> {
        let url = format!("{}{}", self.address().await, request.path);
        let mut http = self.client.request(request.method.clone(), url);
        if request.method != Method::GET && request.method != Method::DELETE {
            http = http
                .header("Idempotency-Key", &request.key)
                .json(&request.body);
        }
        let answer = ApiAnswer::read(http.send().await.ok()?).await?;
        self.calls.note(request, &answer);
        Some(answer)
    }

    /// Sends a request with the same key until it is answered.
    pub async fn send(&self, request: &ApiRequest) -> ApiAnswer {
        let sending = async {
            let mut poll = tokio::time::interval(POLL_INTERVAL);
            loop {
                poll.tick().await;
                match self.send_once(request).await {
                    Some(answer) if !answer.is_retryable() => return answer,
                    _ => {}
                }
            }
        };
        let answer = tokio::time::timeout(TIMEOUT, sending).await;
        answer.unwrap_or_else(|_| panic!("never answered: {request:?}"))
    }

    /// The answer to a GET, once there is one.
    pub async fn get(&self, path: &str) -> ApiAnswer {
        let request = ApiRequest {
            method: Method::GET,
            path: path.to_owned(),
            key: String::new(),
            body: Value::Null,
        };
        self.send(&request).await
    }

    async fn address(&self) -> String {
        let mut address = self.address.subscribe();
        let open = tokio::time::timeout(TIMEOUT, address.wait_for(Option::is_some)).await;
        let open = open.expect("the service was never restarted").unwrap();
        open.clone().unwrap()
    }
}

impl Drop for RestartableService {
    /// Keeps the folder of a failed test for inspection.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the folder is kept: {}", self.path().display());
        }
    }
}
