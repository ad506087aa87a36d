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
        let (earlier, later) = match one.answered <= other.answered {
            true => (one, other),
            false => (other, one),
        };
        let answer = match later.is_same(&earlier) {
            true => later,
            false => {
                self.check_different_answers(earlier, later, path, step, &body)
                    .await
            }
        };
        FinalAnswer {
            had_lost_answer,
            ..answer
        }
    }

    /// Two requests with one key have different answers in two cases only, and the one that is returned is in force:
    ///
    /// - A refusal is not saved under its key, so one may find the event sold out, and the other a ticket that was released in between.
    /// - The reservation of the earlier grant has ended before the later one: Redis was lost, or its time was over.
    ///
    /// Once one is granted, the key gets that answer at every process for as long as the reservation exists.
    async fn check_different_answers(
        &self,
        earlier: FinalAnswer,
        later: FinalAnswer,
        path: &str,
        step: &str,
        body: &Value,
    ) -> FinalAnswer {
        let answers = format!(
            "{} sent two requests to {path}: {earlier:?}, {later:?}",
            self.name
        );
        assert_eq!(path, "/ticketing/reserve", "{answers}");
        let is_sold_out = |it: &FinalAnswer| (it.status, it.code()) == (409, "SOLD_OUT");
        let (other, granted) = match later.status {
            200 => (earlier, later),
            _ => (later, earlier),
        };
        assert_eq!(granted.status, 200, "{answers}");
        assert!(is_sold_out(&other) || other.status == 200, "{answers}");
        // The other request was decided while there was no grant, or no grant any more.
        assert!(
            match other.status {
                200 => self.has_reservation_ended(&other),
                _ => other.sent < granted.answered || self.has_reservation_ended(&granted),
            },
            "{answers}"
        );
        let again = self.post_at("ticketing-api", None, path, step, body).await;
        assert!(
            self.has_reservation_ended(&granted) || again.is_same(&granted),
            "{answers}, {again:?}"
        );
        granted
    }

    /// Whether a reservation may be gone by now.
    fn has_reservation_ended(&self, granted: &FinalAnswer) -> bool {
        self.deployment.was_redis_lost_since(granted.sent)
            || granted.sent.elapsed() >= Duration::from_secs(HOLD_TTL_SECS)
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
