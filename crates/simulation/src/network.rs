//! How requests of clients reach the processes: late, twice, or not at all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use parking_lot::Mutex;
use test_support::api::{ApiAnswer, ApiRequest};
use tokio::sync::{mpsc, oneshot};
use tower::ServiceExt;

use crate::{
    faults::Fault,
    world::{World, pause},
};

/// The longest wait of a client.
const PATIENCE_MILLIS: u64 = 20_000;

/// A request on its way, and where its answer goes.
pub struct Call {
    request: reqwest::Request,
    reply: oneshot::Sender<ApiAnswer>,
}

/// The processes that listen, by their names, which begin with their services.
#[derive(Clone)]
pub struct Network {
    world: Arc<World>,
    client: reqwest::Client,
    listeners: Arc<Mutex<BTreeMap<String, mpsc::UnboundedSender<Call>>>>,
}

impl Network {
    #[must_use]
    pub fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            client: test_support::api::client(),
            listeners: Arc::default(),
        }
    }

    pub fn listen(&self, process: &str, to: mpsc::UnboundedSender<Call>) {
        self.listeners.lock().insert(process.to_owned(), to);
    }

    pub fn close(&self, process: &str) {
        self.listeners.lock().remove(process);
    }

    /// Sends a request once; `None` if there was no answer.
    pub async fn send(&self, request: &ApiRequest) -> Option<ApiAnswer> {
        let service = match request.path.split(['/', '?']).nth(1).unwrap_or_default() {
            service @ ("event" | "user" | "payment") => service,
            _ => "ticketing",
        };
        self.send_to(service, request).await
    }

    /// Sends a request once to a process of this service.
    pub async fn send_to(&self, service: &str, request: &ApiRequest) -> Option<ApiAnswer> {
        let route = route(request);
        if request.method != reqwest::Method::GET
            && self.world.strikes(Fault::ClientRepeats, &route)
        {
            let (one, other) = futures::join!(
                self.send_once(service, request),
                self.send_once(service, request)
            );
            return one.or(other);
        }
        self.send_once(service, request).await
    }

    async fn send_once(&self, service: &str, request: &ApiRequest) -> Option<ApiAnswer> {
        let route = route(request);
        pause(self.world.between(1, 60)).await;
        let to = self.listener(service)?;
        let (reply, answer) = oneshot::channel();
        let call = Call {
            request: self.built(request),
            reply,
        };
        to.send(call).ok()?;
        let patience = match self.world.strikes(Fault::ClientDrops, &route) {
            true => self.world.between(5, 400),
            false => PATIENCE_MILLIS,
        };
        let answer = tokio::time::timeout(Duration::from_millis(patience), answer)
            .await
            .ok()?
            .ok()?;
        self.world.step(format_args!(
            "{route} {}: {} {}",
            request.key,
            answer.status,
            answer.code()
        ));
        if answer.status >= 500 && self.world.is_quiet() {
            self.world.fail(format_args!(
                "{route} fails without a fault: {}",
                answer.text
            ));
        }
        Some(answer)
    }

    fn built(&self, request: &ApiRequest) -> reqwest::Request {
        let mut built = request
            .on(&self.client, "http://localhost")
            .build()
            .unwrap();
        built
            .headers_mut()
            .insert("host", "localhost".parse().unwrap());
        built
    }

    fn listener(&self, service: &str) -> Option<mpsc::UnboundedSender<Call>> {
        let listeners = self.listeners.lock();
        let those = listeners
            .iter()
            .filter(|(name, _)| name.starts_with(service));
        let those: Vec<_> = those.collect();
        (!those.is_empty()).then(|| self.world.pick(&those).1.clone())
    }

    /// Sends a request with its key until it is answered, at most so often.
    pub async fn insist(&self, request: &ApiRequest, tries: u32) -> Option<ApiAnswer> {
        for _ in 0..tries {
            match self.send(request).await {
                Some(answer) if !answer.leaves_key_open() && !answer.is_retryable() => {
                    return Some(answer);
                }
                _ => pause(self.world.between(100, 2_000)).await,
            }
        }
        None
    }
}

/// Method and path, without ids.
fn route(request: &ApiRequest) -> String {
    let words = request
        .path
        .split(['/', '?'])
        .filter(|word| !word.is_empty());
    let words = words.map(|word| {
        if word.contains(|it: char| it.is_ascii_digit()) {
            "_"
        } else {
            word
        }
    });
    format!("{} {}", request.method, words.collect::<Vec<_>>().join("/"))
}

/// Answers the calls of one process, each in a task of its own, which ends if the client goes away.
pub async fn serve(router: Router, mut calls: mpsc::UnboundedReceiver<Call>) {
    while let Some(received) = calls.recv().await {
        let router = router.clone();
        tokio::spawn(async move {
            let Call { request, mut reply } = received;
            let answer = tokio::select! {
                biased;
                () = reply.closed() => return,
                answer = call(router, request) => answer,
            };
            // A client that is gone needs none.
            if let Ok(answer) = ApiAnswer::read(answer).await {
                let _ = reply.send(answer);
            }
        });
    }
}

/// Lets a router answer in this process.
pub async fn call(router: Router, request: reqwest::Request) -> reqwest::Response {
    let request = axum::http::Request::<reqwest::Body>::try_from(request).unwrap();
    let answer = router.oneshot(request.map(Body::new)).await.unwrap();
    let (head, body) = answer.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await;
    axum::http::Response::from_parts(head, body.unwrap_or_default()).into()
}
