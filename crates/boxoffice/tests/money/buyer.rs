//! A buyer acts as its [`BuyerSpec`] says. An impatient buyer gives up if the service dies during a request.

use std::future::Future;

use contract::Timestamp;
use messaging::Clock;
use serde_json::{Value, json};

use crate::{
    calls::{ApiAnswer, ApiRequest},
    scenario::{Behaviour, BuyerSpec, CancelRequests, EVENTS, POINTS, UnrequestedCharge},
    service::{HOLD_GRACE_SECS, POLL_INTERVAL, RestartableService},
};

/// How often a buyer polls before it gives up: about six seconds.
const POLLS_MAX: usize = 150;

pub struct Buyer<'a> {
    pub service: &'a RestartableService,
    pub spec: &'a BuyerSpec,
    /// Event ids in the order of [`EVENTS`].
    pub events: &'a [i64],
}

/// A purchase that can be paid.
pub struct Started {
    pub ticket: String,
    pub payment: String,
    pub amount: i64,
    pub expires_at: Timestamp,
}

impl Buyer<'_> {
    /// `None` if the buyer gave up before its end.
    pub async fn act(&self) -> Option<()> {
        let started = self.begin().await?;
        match self.spec.behaviour {
            Behaviour::NeverPays => Some(()),
            Behaviour::Pays => self.pay(&started).await,
            Behaviour::PaysInPoints | Behaviour::LeavesWithoutOutcome => {
                self.confirm(&started, 1).await.map(drop)
            }
            Behaviour::PaysTwiceAtOnce => {
                let (one, other) =
                    tokio::join!(self.confirm(&started, 1), self.confirm(&started, 2));
                one.and(other).map(drop)
            }
            Behaviour::PaysWithAnotherCard => self.pay(&started).await,
            Behaviour::PaysAtTheLastMoment => {
                let at = started.expires_at.plus_millis(-self.spec.millis);
                Clock::System.wait_until(at).await;
                self.confirm(&started, 1).await.map(drop)
            }
            Behaviour::Deposits(deposit) => self.deposit(&started, deposit).await,
            Behaviour::CancelsTheTicket(requests) => self.pay_and_cancel(&started, requests).await,
            Behaviour::IsCancelledByTheMerchant => {
                self.confirm(&started, 1).await?;
                self.settled(&started).await?;
                self.service
                    .gateway
                    .act(&self.spec.key(1), "cancel-by-merchant")
                    .await;
                Some(())
            }
            Behaviour::IsChargedUnrequested(when) => self.be_charged(&started, when).await,
            Behaviour::ReleasesWhilePaying => {
                let (paid, released) =
                    tokio::join!(self.confirm(&started, 1), self.release(&started));
                paid.and(released).map(drop)
            }
        }
    }

    /// Registers a user, reserves, and processes until the payment can be confirmed.
    async fn begin(&self) -> Option<Started> {
        let (price, _) = EVENTS[self.spec.event];
        let event = self.events[self.spec.event];
        let point = match self.spec.behaviour {
            Behaviour::PaysInPoints => price,
            _ => self.spec.points,
        };
        let user = json!({ "name": self.spec.name, "status": "ACTIVE",
            "points": POINTS + point });
        let user = self.post("/user", "user", user).await?.body["id"].as_i64()?;
        let body = json!({ "eventId": event, "userId": user });
        let answer = self.post("/ticketing/reserve", "reserve", body).await?;
        let ticket = answer.text("ticketId")?.to_owned();
        let expires_at = answer.text("expiresAt")?.parse().unwrap();
        let purchase = json!({ "ticketId": ticket, "eventId": event, "userId": user,
            "totalAmount": price, "point": point });
        let answer = self.post("/ticketing/process", "process", purchase).await?;
        if answer.status != 202 {
            return None;
        }
        let path = format!("/ticketing/process/{ticket}");
        let done = self
            .look(&path, |answer| {
                answer.text("sagaState") == Some("COMPLETED")
            })
            .await?;
        Some(Started {
            payment: done.text("paymentId")?.to_owned(),
            amount: done.body["finalAmount"].as_i64()?,
            ticket,
            expires_at,
        })
    }

    /// Pays; if the card is declined, pays with another one.
    async fn pay(&self, started: &Started) -> Option<()> {
        let answer = self.confirm(started, 1).await?;
        if answer.body["succeeded"] == true {
            return Some(());
        }
        if self.settled(started).await? == "FAILED" {
            self.confirm(started, 2).await?;
        }
        Some(())
    }

    async fn pay_and_cancel(&self, started: &Started, requests: CancelRequests) -> Option<()> {
        self.confirm(started, 1).await?;
        if requests != CancelRequests::AtOnce {
            let path = format!("/ticket/{}", started.ticket);
            self.look(&path, |answer| answer.text("status") == Some("RESERVED"))
                .await?;
        }
        match requests {
            CancelRequests::Once | CancelRequests::AtOnce => {
                self.cancel(started, 1).await.map(drop)
            }
            CancelRequests::TwiceAtOnce => {
                let (one, other) = tokio::join!(self.cancel(started, 1), self.cancel(started, 2));
                one.and(other).map(drop)
            }
        }
    }

    async fn be_charged(&self, started: &Started, when: UnrequestedCharge) -> Option<()> {
        if when == UnrequestedCharge::AfterPaymentIsClosed {
            let path = format!("/payment/{}", started.payment);
            let at = started.expires_at.plus_secs(HOLD_GRACE_SECS);
            Clock::System.wait_until(at).await;
            self.look(&path, |answer| answer.text("status") == Some("DELETED"))
                .await?;
        }
        let gateway = &self.service.gateway;
        gateway
            .charge(&started.payment, &self.spec.key(1), started.amount)
            .await;
        Some(())
    }

    pub async fn release(&self, started: &Started) -> Option<ApiAnswer> {
        let path = format!("/ticketing/reserve/{}", started.ticket);
        self.request(ApiRequest::delete(path)).await
    }

    pub async fn cancel(&self, started: &Started, number: u32) -> Option<ApiAnswer> {
        let path = format!("/ticket/{}/cancel", started.ticket);
        self.post(&path, &format!("cancel{number}"), json!({}))
            .await
    }

    /// Waits until the outcome of the payment is known and returns its status.
    pub async fn settled(&self, started: &Started) -> Option<String> {
        let path = format!("/payment/{}", started.payment);
        let is_open =
            |answer: &ApiAnswer| matches!(answer.text("status"), Some("CREATED" | "CONFIRMING"));
        let settled = self.look(&path, |answer| !is_open(answer)).await?;
        settled.text("status").map(str::to_owned)
    }

    pub async fn confirm(&self, started: &Started, number: usize) -> Option<ApiAnswer> {
        let mut payment = json!({ "paymentId": started.payment, "amount": started.amount,
            "pgPaymentId": self.spec.key(number) });
        if matches!(self.spec.behaviour, Behaviour::Deposits(_)) && self.spec.names_account {
            payment["refundAccount"] =
                json!({ "bank": "20", "accountNumber": "123", "holderName": "Kim" });
        }
        self.post("/payment/confirmed", &format!("confirm{number}"), payment)
            .await
    }

    async fn post(&self, path: &str, step: &str, body: Value) -> Option<ApiAnswer> {
        let key = format!("{}-{step}", self.spec.name);
        self.request(ApiRequest::post(path, key, body)).await
    }

    async fn request(&self, request: ApiRequest) -> Option<ApiAnswer> {
        if self.spec.is_patient {
            return Some(self.service.send(&request).await);
        }
        self.service.send_once(&request).await
    }

    /// Polls a path until the answer is as wanted; `None` if that takes too long.
    async fn look(&self, path: &str, is_wanted: impl Fn(&ApiAnswer) -> bool) -> Option<ApiAnswer> {
        self.until(|| async {
            let answer = self.service.get(path).await;
            is_wanted(&answer).then_some(answer)
        })
        .await
    }

    /// Repeats `attempt` until it returns something; `None` if that takes too long.
    pub async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Option<T> {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        for _ in 0..POLLS_MAX {
            poll.tick().await;
            if let Some(found) = attempt().await {
                return Some(found);
            }
        }
        None
    }
}
