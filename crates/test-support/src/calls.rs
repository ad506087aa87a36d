//! The requests that a test has sent and their answers, which are compared with the books at its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::Method;

use crate::api::{ApiAnswer, ApiRequest};

#[derive(Default)]
pub struct CallLog {
    entries: Mutex<Vec<(ApiRequest, Option<ApiAnswer>)>>,
    answers: AtomicUsize,
}

impl CallLog {
    /// Logs a request and, once `sending` has it, its answer.
    pub async fn log(
        &self,
        request: &ApiRequest,
        sending: impl Future<Output = Option<ApiAnswer>>,
    ) -> Option<ApiAnswer> {
        let number = {
            let mut entries = self.entries.lock().unwrap();
            entries.push((request.clone(), None));
            entries.len() - 1
        };
        let answer = sending.await?;
        self.entries.lock().unwrap()[number].1 = Some(answer.clone());
        self.answers.fetch_add(1, Ordering::Relaxed);
        Some(answer)
    }

    /// Number of answers so far.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Requests to this path that were answered with this status, with their answers.
    pub fn answered(&self, path: &str, status: u16) -> Vec<(ApiRequest, ApiAnswer)> {
        let answered = self.all_answered().into_iter();
        answered
            .filter(|(request, answer)| request.path == path && answer.status == status)
            .collect()
    }

    /// Tickets with a release request, and whether the release was confirmed.
    pub fn releases(&self) -> BTreeMap<String, bool> {
        self.outcomes(204, |request| {
            let ticket = request.path.strip_prefix("/ticketing/reserve/")?;
            (request.method == Method::DELETE).then_some(ticket)
        })
    }

    /// Tickets with a cancellation request, and whether it was accepted.
    pub fn cancellations(&self) -> BTreeMap<String, bool> {
        self.outcomes(202, |request| {
            let ticket = request.path.strip_prefix("/ticket/")?;
            let ticket = ticket.strip_suffix("/cancel")?;
            (request.method == Method::POST).then_some(ticket)
        })
    }

    /// The tickets of requests, and whether some request was answered with this status.
    fn outcomes(
        &self,
        status: u16,
        ticket_of: impl Fn(&ApiRequest) -> Option<&str>,
    ) -> BTreeMap<String, bool> {
        let mut outcomes = BTreeMap::new();
        for (request, answer) in self.entries.lock().unwrap().iter() {
            if let Some(ticket) = ticket_of(request) {
                let is_done = answer.as_ref().is_some_and(|it| it.status == status);
                *outcomes.entry(ticket.to_owned()).or_default() |= is_done;
            }
        }
        outcomes
    }

    /// One request for each idempotency key without an answer.
    pub fn unanswered(&self) -> Vec<ApiRequest> {
        let answered = self.all_answered().into_iter();
        let mut seen: BTreeSet<(String, String)> =
            answered.map(|(request, _)| scope(&request)).collect();
        let entries = self.entries.lock().unwrap();
        let posts = entries.iter().map(|(request, _)| request);
        posts
            .filter(|request| request.method == Method::POST && seen.insert(scope(request)))
            .cloned()
            .collect()
    }

    /// The saved answer for each idempotency key. All answers for one key must be equal.
    pub fn final_answers(&self) -> Vec<(ApiRequest, ApiAnswer)> {
        let mut answers: BTreeMap<_, (ApiRequest, ApiAnswer)> = BTreeMap::new();
        for (request, answer) in self.all_answered() {
            if request.method != Method::POST
                || request.is_webhook()
                || !is_saved(&request, &answer)
            {
                continue;
            }
            let entry = answers.entry(scope(&request));
            let (_, first) = entry.or_insert_with(|| (request.clone(), answer.clone()));
            assert_eq!(
                (first.status, &first.text),
                (answer.status, &answer.text),
                "{request:?} was answered in two ways"
            );
        }
        answers.into_values().collect()
    }

    fn all_answered(&self) -> Vec<(ApiRequest, ApiAnswer)> {
        let entries = self.entries.lock().unwrap();
        let answered = entries.iter().filter_map(|(request, answer)| {
            let answer = answer.as_ref().filter(|answer| !answer.is_retryable())?;
            Some((request.clone(), answer.clone()))
        });
        answered.collect()
    }
}

/// A key is unique within its path.
fn scope(request: &ApiRequest) -> (String, String) {
    (request.path.clone(), request.key.clone())
}

/// A refused or pending request is decided again when it is repeated.
fn is_saved(request: &ApiRequest, answer: &ApiAnswer) -> bool {
    let is_pending = request.path == "/payment/confirmed" && answer.status == 202;
    answer.status < 300 && !is_pending
}
