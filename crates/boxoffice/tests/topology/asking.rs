//! How a buyer asks: any process, and another with the same key where none answers.

use std::time::Duration;

use reqwest::{Client, header};
use serde_json::Value;

use crate::{
    buyer::{Buyer, Kind},
    deployment::LOOK,
    rest,
};

/// How long an answer is waited for before another process is asked.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// An answer that is no passing one, and whether there was an attempt before it that nobody answered.
#[derive(Debug)]
pub struct Told {
    pub status: u16,
    pub body: Value,
    pub is_late: bool,
}

pub fn client() -> Client {
    let client = Client::builder().no_proxy().timeout(ANSWER_WAIT);
    client.build().unwrap()
}

impl Told {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }
}

impl Buyer<'_> {
    /// Looks until there is something to see.
    pub async fn look<T>(
        &self,
        services: &str,
        path: &str,
        see: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let mut look = tokio::time::interval(LOOK);
        let mut last = Value::Null;
        loop {
            look.tick().await;
            if !self.deployment.is_worth_waiting(self.begun) {
                let left = rest::what_is_left(self.deployment).await;
                panic!(
                    "{} waits at {path}, saw {last}, and left are {left}",
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

    /// Looks once, at any process.
    pub async fn get(&self, services: &str, path: &str) -> Option<Value> {
        let url = self.deployment.any(services)?;
        let asked = self.client.get(format!("{url}{path}")).send().await;
        let answer = asked.ok().filter(|it| it.status() == 200)?;
        answer.json().await.ok()
    }

    pub async fn post(&self, services: &str, path: &str, step: &str, body: Value) -> Told {
        if self.kind != Kind::AsksTwice {
            return self.post_at(services, None, path, step, &body).await;
        }
        let (one, other) = tokio::join!(
            self.post_at(services, Some(0), path, step, &body),
            self.post_at(services, Some(1), path, step, &body)
        );
        let answers = [(one.status, &one.body), (other.status, &other.body)];
        assert_eq!(
            answers[0], answers[1],
            "{} asked twice at {path}",
            self.name
        );
        Told {
            is_late: one.is_late || other.is_late,
            ..one
        }
    }

    /// Asks until there is an answer: at one place as long as somebody is there, or anywhere.
    pub async fn post_at(
        &self,
        services: &str,
        place: Option<u64>,
        path: &str,
        step: &str,
        body: &Value,
    ) -> Told {
        let key = format!("{}-{step}", self.name);
        let mut is_late = false;
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            self.check_time(path);
            let url = match place {
                // Where that one is silent, the other is asked.
                Some(place) if !is_late => self.deployment.one(services, place),
                _ => self.deployment.any(services),
            };
            let Some(url) = url else { continue };
            let request = self.client.post(format!("{url}{path}")).json(body);
            let Ok(answer) = request.header("Idempotency-Key", &key).send().await else {
                is_late = true;
                continue;
            };
            let is_passing = answer.headers().contains_key(header::RETRY_AFTER)
                || answer.status().is_server_error();
            let status = answer.status().as_u16();
            let Ok(body) = answer.json().await else {
                is_late = true;
                continue;
            };
            if !is_passing {
                return Told {
                    status,
                    body,
                    is_late,
                };
            }
            is_late = true;
        }
    }

    pub fn check_time(&self, path: &str) {
        let is_patient = self.deployment.is_worth_waiting(self.begun);
        assert!(is_patient, "{} waits at {path}", self.name);
    }
}
