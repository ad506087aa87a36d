//! How a buyer sends requests: to any process, and with the same key to another one if that does not answer.

use std::time::{Duration, Instant};

use reqwest::{Client, header};
use serde_json::Value;

use crate::{
    buyer::{BuyerKind, ClusterBuyer},
    deployment::{HOLD_TTL_SECS, POLL_INTERVAL},
    idle,
};

/// Timeout after which the request is sent to another process.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A final answer, and whether an earlier attempt got no or only a retryable answer.
#[derive(Debug)]
pub struct FinalAnswer {
    pub status: u16,
    pub body: Value,
    pub had_lost_answer: bool,
    /// When the answered attempt was sent, and when it was answered.
    sent: Instant,
    answered: Instant,
}

pub fn client() -> Client {
    let client = Client::builder().no_proxy().timeout(ANSWER_WAIT);
    client.build().unwrap()
}

impl FinalAnswer {
    fn is_same(&self, other: &Self) -> bool {
        (self.status, &self.body) == (other.status, &other.body)
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl ClusterBuyer<'_> {
    /// Polls until `see` returns something.
    pub async fn poll_until<T>(
        &self,
        services: &str,
        path: &str,
        see: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        let mut last = Value::Null;
        loop {
            poll.tick().await;
            if !self.deployment.may_wait(self.begun) {
                let remaining = idle::describe_remaining_work(self.deployment).await;
                panic!(
                    "{} waits at {path}; last answer {last}; pending: {remaining}",
                    self.name
                );
            }
            if let Some(body) = self.get(services, path).await {
                if let Some(seen) = see(&body) {
                    return seen;
                }
                last = body;
            }
        }
    }

    /// One GET at any process.
    pub async fn get(&self, services: &str, path: &str) -> Option<Value> {
        let url = self.deployment.any(services)?;
        let asked = self.client.get(format!("{url}{path}")).send().await;
        let answer = asked.ok().filter(|it| it.status() == 200)?;
        answer.json().await.ok()
    }

    pub async fn post(&self, services: &str, path: &str, step: &str, body: Value) -> FinalAnswer {
        if self.kind != BuyerKind::SendsTwice {
            return self.post_at(services, None, path, step, &body).await;
        }
        let (one, other) = tokio::join!(
            self.post_at(services, Some(0), path, step, &body),
            self.post_at(services, Some(1), path, step, &body)
        );
        let had_lost_answer = one.had_lost_answer || other.had_lost_answer;
        let answer = if one.is_same(&other) {
            one
        } else {
            let (refused, granted) = if one.status == 200 {
                (other, one)
            } else {
                (one, other)
            };
            self.check_refusal_beside_grant(&refused, &granted, path, step, &body)
                .await;
            granted
        };
        FinalAnswer {
            had_lost_answer,
            ..answer
        }
    }

    /// A refusal is not saved under its key, so of two requests with one key the first may find the event sold out, and the
    /// second a ticket that was released in between. Once one is granted, the key gets that answer at every process for as
    /// long as the reservation exists.
    async fn check_refusal_beside_grant(
        &self,
        refused: &FinalAnswer,
        granted: &FinalAnswer,
        path: &str,
        step: &str,
        body: &Value,
    ) {
        let answers = format!(
            "{} sent two requests to {path}: {refused:?}, {granted:?}",
            self.name
        );
        assert!(
            (refused.status, refused.code(), granted.status) == (409, "SOLD_OUT", 200),
            "{answers}"
        );
        let again = self.post_at("ticketing-api", None, path, step, body).await;
        let has_ended = self.deployment.was_redis_lost_since(granted.sent)
            || granted.sent.elapsed() >= Duration::from_secs(HOLD_TTL_SECS);
        assert!(has_ended || refused.sent < granted.answered, "{answers}");
        assert!(has_ended || again.is_same(granted), "{answers}, {again:?}");
    }

    /// Repeats a request until there is a final answer: at the selected process first, or at any.
    pub async fn post_at(
        &self,
        services: &str,
        number: Option<u64>,
        path: &str,
        step: &str,
        body: &Value,
    ) -> FinalAnswer {
        let key = format!("{}-{step}", self.name);
        let mut had_lost_answer = false;
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        loop {
            poll.tick().await;
            self.check_time(path);
            let url = match number {
                // If that process does not answer, any other one gets the request.
                Some(number) if !had_lost_answer => self.deployment.one(services, number),
                _ => self.deployment.any(services),
            };
            let Some(url) = url else { continue };
            let request = self.client.post(format!("{url}{path}")).json(body);
            let sent = Instant::now();
            let Ok(answer) = request.header("Idempotency-Key", &key).send().await else {
                had_lost_answer = true;
                continue;
            };
            let is_retryable = answer.headers().contains_key(header::RETRY_AFTER)
                || answer.status().is_server_error();
            let status = answer.status().as_u16();
            let Ok(body) = answer.json().await else {
                had_lost_answer = true;
                continue;
            };
            if !is_retryable {
                return FinalAnswer {
                    status,
                    body,
                    had_lost_answer,
                    sent,
                    answered: Instant::now(),
                };
            }
            had_lost_answer = true;
        }
    }

    pub fn check_time(&self, path: &str) {
        let is_patient = self.deployment.may_wait(self.begun);
        assert!(is_patient, "{} waits at {path}", self.name);
    }
}
