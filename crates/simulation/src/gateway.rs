//! The payment gateway: the sandbox, and a network to it that does what a real one may do. A request that was sent is
//! executed even if its caller is gone.

use std::{collections::BTreeSet, sync::Arc};

use axum::Router;
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use reqwest::Request;
use serde_json::Value;
use test_support::api::ApiRequest;
use toss::{Exchange, ExchangeError, HttpAnswer, SecretKey, protocol::TEST_CODE_HEADER};
use toss_sandbox::{Clock, Sandbox, SandboxSettings};

use crate::{
    faults::Fault,
    network::call,
    world::{World, pause},
};

pub const SECRET: &str = "test_sk_of_the_simulation";
pub const URL: &str = "http://gateway.test";
/// Codes that prove a refusal, and codes that prove nothing.
const CODES: &[&str] = &[
    "REJECT_CARD_PAYMENT",
    "INVALID_STOPPED_CARD",
    "PROVIDER_ERROR",
    "UNKNOWN_PAYMENT_ERROR",
    "FAILED_INTERNAL_SYSTEM_PROCESSING",
    "COMMON_ERROR",
];

#[derive(Clone)]
pub struct Gateway {
    pub sandbox: Sandbox,
    world: Arc<World>,
    client: reqwest::Client,
    router: Router,
    /// Charges that it refuses to cancel, by a code that says nothing, until somebody calls its support.
    stuck: Arc<Mutex<BTreeSet<String>>>,
    engines: tokio::runtime::Handle,
}

impl Gateway {
    #[must_use]
    pub fn new(world: &Arc<World>, engines: &tokio::runtime::Handle) -> Self {
        let settings = SandboxSettings {
            clock: Arc::new(WorldClock(Arc::clone(world))),
            ..SandboxSettings::new(SecretKey::new(SECRET))
        };
        let sandbox = Sandbox::open(settings).unwrap();
        Self {
            client: test_support::api::client(),
            router: sandbox.router(),
            stuck: Arc::default(),
            sandbox,
            world: Arc::clone(world),
            engines: engines.clone(),
        }
    }

    /// One exchange, on the gateway's host.
    async fn answer(
        self,
        mut request: Request,
        place: &'static str,
    ) -> Result<HttpAnswer, ExchangeError> {
        pause(self.world.between(5, 80)).await;
        if self.world.strikes(Fault::GatewayAway, place) {
            return Err(ExchangeError::NoConnection);
        }
        if self.world.strikes(Fault::GatewayRefuses, place) {
            let code = self.world.pick(CODES).parse().unwrap();
            request.headers_mut().insert(TEST_CODE_HEADER, code);
        }
        if place == "cancel" && self.is_stuck(request.url().path()) {
            let code = "UNKNOWN_PAYMENT_ERROR".parse().unwrap();
            request.headers_mut().insert(TEST_CODE_HEADER, code);
        }
        let breaks = self.world.strikes(Fault::GatewayBreaks, place);
        if breaks && self.world.below(3) == 0 {
            return Err(ExchangeError::Broken);
        }
        let answer = self.execute(request).await;
        self.world
            .step(format_args!("gateway {place}: {}", answer.status));
        if self.world.strikes(Fault::GatewaySlow, place) {
            pause(self.world.between(500, 6_000)).await;
        }
        if breaks {
            return Err(ExchangeError::Broken);
        }
        if self.world.strikes(Fault::GatewayErrs, place) {
            return Ok(HttpAnswer {
                status: 500,
                content_type: "text/html".to_owned(),
                body: b"<html>".to_vec(),
            });
        }
        Ok(answer)
    }

    fn is_stuck(&self, path: &str) -> bool {
        let mut stuck = self.stuck.lock();
        if self.world.strikes(Fault::RefundStuck, "cancel") {
            stuck.insert(path.to_owned());
        }
        stuck.contains(path)
    }

    /// Its support mends what is stuck.
    pub fn call_support(&self) {
        self.stuck.lock().clear();
    }

    /// What a buyer or the bank does at the gateway itself; returns whether it is allowed.
    pub async fn perform(&self, path: &str, body: Value) -> bool {
        let request = ApiRequest::post(format!("/sandbox/{path}"), body);
        let request = request.on(&self.client, URL).build().unwrap();
        let status = call(self.router.clone(), request).await.status();
        self.world.step(format_args!("gateway {path}: {status}"));
        status.is_success()
    }

    async fn execute(&self, mut request: Request) -> HttpAnswer {
        let authorization = SecretKey::new(SECRET).basic_authorization();
        let headers = request.headers_mut();
        headers.insert("authorization", authorization.parse().unwrap());
        let answer = call(self.router.clone(), request).await;
        let content_type = answer.headers().get("content-type");
        let content_type = content_type.map(|it| it.to_str().unwrap().to_owned());
        HttpAnswer {
            status: answer.status().as_u16(),
            content_type: content_type.unwrap_or_default(),
            body: answer.bytes().await.unwrap().to_vec(),
        }
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gateway")
    }
}

impl Exchange for Gateway {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<HttpAnswer, ExchangeError>> {
        let path = request.url().path();
        let place = match path {
            path if path.ends_with("/confirm") => "confirm",
            path if path.ends_with("/cancel") => "cancel",
            path if path.ends_with("/transactions") => "transactions",
            _ => "lookup",
        };
        let answered = self.engines.spawn(self.clone().answer(request, place));
        async move { answered.await.unwrap_or(Err(ExchangeError::Broken)) }.boxed()
    }
}

#[derive(Debug)]
struct WorldClock(Arc<World>);

impl Clock for WorldClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.now().as_millis()).unwrap()
    }

    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        async move {
            while self.now() < at {
                pause(50).await;
            }
        }
        .boxed()
    }
}
