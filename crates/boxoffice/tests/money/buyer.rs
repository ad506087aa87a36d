//! A buyer acts as its [`BuyerSpec`] says. An impatient buyer gives up if the service dies during a request.

use contract::Timestamp;
use messaging::Clock;
use reqwest::Method;
use serde_json::json;
use test_support::{
    api::{ApiAnswer, ApiRequest, Purchase},
    buyer::{Buyer, PendingPayment, Transport},
};

use crate::{
    scenario::{Behaviour, BuyerSpec, CancelRequests, EVENTS, POINTS, UnrequestedCharge},
    service::{HOLD_GRACE_SECS, POLL_INTERVAL, RestartableService},
};

/// How often a buyer polls before it gives up: about six seconds.
pub const POLLS_MAX: usize = 150;

/// Sends a buyer's requests to the service, which may die before it answers.
pub struct ServiceTransport<'a> {
    service: &'a RestartableService,
    /// Repeats a request if the service dies.
    is_patient: bool,
}

impl Transport for ServiceTransport<'_> {
    async fn send(&self, request: ApiRequest) -> Option<ApiAnswer> {
        if self.is_patient || request.method == Method::GET {
            return Some(self.service.send(&request).await);
        }
        self.service.send_once(&request).await
    }
}

/// A buyer of a scenario.
pub struct ScenarioBuyer<'a> {
    pub service: &'a RestartableService,
    pub spec: &'a BuyerSpec,
    buyer: Buyer<ServiceTransport<'a>>,
    /// Event ids in the order of [`EVENTS`].
    events: &'a [i64],
}

/// A purchase that can be paid.
pub struct Started {
    pub pending: PendingPayment,
    pub expires_at: Timestamp,
}

impl<'a> ScenarioBuyer<'a> {
    pub fn new(service: &'a RestartableService, spec: &'a BuyerSpec, events: &'a [i64]) -> Self {
        let transport = ServiceTransport {
            service,
            is_patient: spec.is_patient,
        };
        let buyer = Buyer {
            transport,
            name: spec.name.clone(),
            poll_interval: POLL_INTERVAL,
            polls_max: POLLS_MAX,
        };
        Self {
            service,
            spec,
            buyer,
            events,
        }
    }

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
                let gateway = &self.service.gateway.client;
                gateway
                    .try_perform(&self.spec.key(1), "cancel-by-merchant")
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
        let points = match self.spec.behaviour {
            Behaviour::PaysInPoints => price,
            _ => self.spec.points,
        };
        let user = self.buyer.register("ACTIVE", POINTS + points).await?;
        let reserved = self.buyer.reserve(event, user).await?;
        let ticket = reserved.text_of("ticketId")?;
        let purchase = Purchase {
            ticket,
            event,
            user,
            total_amount: price,
            points,
        };
        self.buyer.process(purchase).await?;
        Some(Started {
            pending: self.buyer.wait_for_payment(ticket).await?,
            expires_at: reserved.text_of("expiresAt")?.parse().unwrap(),
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
            let path = format!("/ticket/{}", started.pending.ticket);
            self.buyer
                .wait_for(&path, |answer| answer.text_of("status") == Some("RESERVED"))
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
            let path = format!("/payment/{}", started.pending.payment);
            let at = started.expires_at.plus_secs(HOLD_GRACE_SECS);
            Clock::System.wait_until(at).await;
            self.buyer
                .wait_for(&path, |answer| answer.text_of("status") == Some("DELETED"))
                .await?;
        }
        let gateway = &self.service.gateway.client;
        // The answer does not matter.
        let _ = gateway
            .confirm(
                &started.pending.payment,
                &self.spec.key(1),
                started.pending.amount,
            )
            .await;
        Some(())
    }

    pub async fn release(&self, started: &Started) -> Option<ApiAnswer> {
        self.buyer.release(&started.pending.ticket).await
    }

    pub async fn cancel(&self, started: &Started, number: u32) -> Option<ApiAnswer> {
        let step = format!("cancel{number}");
        self.buyer.cancel(&started.pending.ticket, &step).await
    }

    /// Waits until the outcome of the payment is known and returns its status.
    pub async fn settled(&self, started: &Started) -> Option<String> {
        let path = format!("/payment/{}", started.pending.payment);
        let is_open =
            |answer: &ApiAnswer| matches!(answer.text_of("status"), Some("CREATED" | "CONFIRMING"));
        let settled = self
            .buyer
            .wait_for(&path, |answer| !is_open(answer))
            .await?;
        settled.text_of("status").map(str::to_owned)
    }

    pub async fn confirm(&self, started: &Started, number: usize) -> Option<ApiAnswer> {
        let pending = &started.pending;
        let payment_key = self.spec.key(number);
        let mut request = ApiRequest::confirm(&pending.payment, &payment_key, pending.amount);
        if matches!(self.spec.behaviour, Behaviour::Deposits(_)) && self.spec.names_account {
            request.body["refundAccount"] =
                json!({ "bank": "20", "accountNumber": "123", "holderName": "Kim" });
        }
        self.buyer.send(&format!("confirm{number}"), request).await
    }
}
