//! The service as its clients find it: it goes away and comes back elsewhere on the same folder.

use std::{path::Path, time::Duration};

use reqwest::{Client, Method};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};

use crate::{
    gateway::{Gateway, SECRET},
    ledger::{Ask, Ledger, Told},
    server::Server,
};

/// What must come does so within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at until it is as wanted.
pub const LOOK: Duration = Duration::from_millis(40);

pub struct House {
    folder: TempDir,
    pub gateway: Gateway,
    pub ledger: Ledger,
    client: Client,
    server: Mutex<Option<Server>>,
    /// Where it listens; `None` while it is away.
    door: watch::Sender<Option<String>>,
}

impl House {
    /// A new folder, on which nobody serves.
    pub async fn build() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            folder: tempfile::tempdir().unwrap(),
            gateway: Gateway::open().await,
            ledger: Ledger::default(),
            client: Client::builder().no_proxy().build().unwrap(),
            server: Mutex::new(None),
            door: watch::Sender::new(None),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub async fn open_doors(&self) {
        let (folder, url) = (self.path().to_owned(), self.gateway.url.clone());
        let starting = tokio::task::spawn_blocking(move || Server::start(&folder, &url, SECRET));
        let server = starting.await.unwrap();
        self.gateway.tell(&server.url);
        self.door.send_replace(Some(server.url.clone()));
        *self.server.lock().await = Some(server);
    }

    /// `kill -9`; it comes back at once.
    pub async fn kill(&self) {
        let server = self.close_doors().await;
        tokio::task::spawn_blocking(|| server.kill()).await.unwrap();
        self.open_doors().await;
    }

    pub async fn stop(&self) {
        let server = self.close_doors().await;
        tokio::task::spawn_blocking(|| server.stop()).await.unwrap();
    }

    async fn close_doors(&self) -> Server {
        self.gateway.tell_nobody();
        self.door.send_replace(None);
        self.server.lock().await.take().unwrap()
    }

    /// Sends it once; `None` where the service went away before it answered.
    pub async fn try_once(&self, ask: &Ask) -> Option<Told> {
        let url = format!("{}{}", self.address().await, ask.path);
        let mut request = self.client.request(ask.method.clone(), url);
        if ask.method != Method::GET && ask.method != Method::DELETE {
            request = request.header("Idempotency-Key", &ask.key).json(&ask.body);
        }
        let told = Told::read(request.send().await.ok()?).await?;
        self.ledger.note(ask, &told);
        Some(told)
    }

    /// Sends it until it is answered, with the same key.
    pub async fn ask(&self, ask: &Ask) -> Told {
        let asking = async {
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                match self.try_once(ask).await {
                    Some(told) if !told.is_passing() => return told,
                    _ => {}
                }
            }
        };
        let told = tokio::time::timeout(PATIENCE, asking).await;
        told.unwrap_or_else(|_| panic!("nobody ever answered {ask:?}"))
    }

    /// What is shown at a path, once it is shown.
    pub async fn get(&self, path: &str) -> Told {
        let ask = Ask {
            method: Method::GET,
            path: path.to_owned(),
            key: String::new(),
            body: Value::Null,
        };
        self.ask(&ask).await
    }

    async fn address(&self) -> String {
        let mut door = self.door.subscribe();
        let open = tokio::time::timeout(PATIENCE, door.wait_for(Option::is_some)).await;
        let open = open.expect("the service never came back").unwrap();
        open.clone().unwrap()
    }
}

impl Drop for House {
    /// What a failed test leaves is kept for whoever looks into it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the folder is kept: {}", self.path().display());
        }
    }
}
