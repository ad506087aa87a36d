//! The steps of a purchase as a buyer takes them, over any transport.

use std::{future::Future, time::Duration};

use crate::api::{ApiAnswer, ApiRequest, Purchase};

/// How a buyer's requests reach the API: which server, and what happens if it does not answer.
pub trait Transport {
    /// Sends a request; `None` if the buyer gives up.
    fn send(&self, request: ApiRequest) -> impl Future<Output = Option<ApiAnswer>>;
}

/// A buyer with a user of its own. Each step is `None` if the buyer gives up.
pub struct Buyer<T> {
    pub transport: T,
    /// Name of the user, and prefix of the idempotency keys.
    pub name: String,
    pub poll_interval: Duration,
    /// How often the buyer polls before it gives up.
    pub polls_max: usize,
}

/// A payment that can be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPayment {
    pub ticket: String,
    pub payment: String,
    pub amount: i64,
}

impl<T: Transport> Buyer<T> {
    pub fn key(&self, step: &str) -> String {
        format!("{}-{step}", self.name)
    }

    /// Sends a request with the idempotency key of this step.
    pub async fn send(&self, step: &str, request: ApiRequest) -> Option<ApiAnswer> {
        self.transport.send(request.with_key(self.key(step))).await
    }

    /// Registers a user and returns its id.
    pub async fn register(&self, status: &str, points: i64) -> Option<i64> {
        let request = ApiRequest::register_user(&self.name, status, points);
        self.send("user", request).await?.number_of("id")
    }

    pub async fn reserve(&self, event: i64, user: i64) -> Option<ApiAnswer> {
        self.send("reserve", ApiRequest::reserve(event, user)).await
    }

    /// Begins a purchase; `None` also if it is refused.
    pub async fn process(&self, purchase: Purchase<'_>) -> Option<()> {
        let answer = self.send("process", ApiRequest::process(purchase)).await?;
        (answer.status == 202).then_some(())
    }

    /// Waits for the end of a purchase; `None` also if it is compensated.
    pub async fn wait_for_payment(&self, ticket: &str) -> Option<PendingPayment> {
        let path = format!("/ticketing/process/{ticket}");
        let is_over =
            |it: &ApiAnswer| matches!(it.text_of("sagaState"), Some("COMPLETED" | "COMPENSATED"));
        let progress = self.wait_for(&path, is_over).await?;
        Some(PendingPayment {
            ticket: ticket.to_owned(),
            payment: progress.text_of("paymentId")?.to_owned(),
            amount: progress.number_of("finalAmount")?,
        })
    }

    pub async fn release(&self, ticket: &str) -> Option<ApiAnswer> {
        self.transport.send(ApiRequest::release(ticket)).await
    }

    pub async fn cancel(&self, ticket: &str, step: &str) -> Option<ApiAnswer> {
        self.send(step, ApiRequest::cancel_ticket(ticket)).await
    }

    /// Polls a path until the answer is as wanted.
    pub async fn wait_for(
        &self,
        path: &str,
        is_wanted: impl Fn(&ApiAnswer) -> bool,
    ) -> Option<ApiAnswer> {
        let mut poll = tokio::time::interval(self.poll_interval);
        for _ in 0..self.polls_max {
            poll.tick().await;
            let answer = self.transport.send(ApiRequest::get(path)).await?;
            if is_wanted(&answer) {
                return Some(answer);
            }
        }
        None
    }
}
