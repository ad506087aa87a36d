//! A buyer: what it does, and its outcome as far as the answers told it.

use std::time::Instant;

use contract::TicketId;
use reqwest::Client;
use serde_json::{Value, json};
use test_support::api::{ApiRequest, Purchase};

use crate::{
    deployment::{Deployment, POLL_INTERVAL},
    requests::{FinalAnswer, client},
};

pub const PRICE: i64 = 1000;
const POINTS: i64 = 1200;
const POINTS_USED: i64 = 300;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuyerKind {
    Pays,
    PaysInPoints,
    /// Sends every request to two processes at the same moment, with the same key.
    SendsTwice,
    /// Confirms at two processes at the same moment, as two attempts.
    PaysTwice,
    /// Pays into a virtual account.
    Deposits,
    /// Requests a virtual account and never pays into it.
    NeverDeposits,
    /// Pays and cancels the ticket.
    Cancels,
    Releases,
    /// Reserves and never begins the purchase.
    NeverProcesses,
    /// Completes the purchase and never pays.
    NeverPays,
}

/// The outcome as far as the buyer was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuyerOutcome {
    Owns(TicketId),
    Cancelled(TicketId),
    Released(TicketId),
    /// Not paid in time, or refunded.
    Expired(TicketId),
    /// The event has no tickets left.
    SoldOut(i64),
    /// The purchase was compensated because a service was down for too long.
    Compensated(TicketId),
    /// The answer to a reservation was lost with the process that granted it; the reservation holds until it expires.
    ReservationUnknown,
}

/// Why a buyer ended early.
enum EarlyEnd {
    With(BuyerOutcome),
    /// Redis lost the reservation before the purchase began.
    StartAgain,
}

/// A purchase that can be paid.
struct PendingPayment {
    id: TicketId,
    ticket: String,
    payment: String,
    amount: i64,
    /// Payment key of this attempt.
    key: String,
}

pub struct ClusterBuyer<'a> {
    pub deployment: &'a Deployment,
    pub client: Client,
    pub name: String,
    pub kind: BuyerKind,
    pub event: i64,
    pub begun: Instant,
}

impl ClusterBuyer<'_> {
    pub async fn act(&self) -> BuyerOutcome {
        let body = ApiRequest::register_user(&self.name, "ACTIVE", POINTS).body;
        let answer = self.post("user,dead-letter", "/user", "user", body).await;
        let user = self.expect(&answer, 201)["id"].as_i64().unwrap();
        for attempt in 1.. {
            match self.buy(user, attempt).await {
                Ok(outcome) | Err(EarlyEnd::With(outcome)) => return outcome,
                Err(EarlyEnd::StartAgain) => {}
            }
        }
        unreachable!("a buyer tries until the time is over")
    }

    async fn buy(&self, user: i64, attempt: u32) -> Result<BuyerOutcome, EarlyEnd> {
        let ticket = self.reserve(user, attempt).await?;
        let id: TicketId = ticket.parse().unwrap();
        match self.kind {
            BuyerKind::Releases => {
                self.release(&ticket).await;
                return Ok(BuyerOutcome::Released(id));
            }
            BuyerKind::NeverProcesses => return Ok(BuyerOutcome::Expired(id)),
            _ => {}
        }
        self.process(user, &ticket).await?;
        let (payment, amount) = self.wait_for_payment(&ticket, id).await?;
        let pending = PendingPayment {
            id,
            ticket,
            payment,
            amount,
            key: format!("{}-{attempt}", self.name),
        };
        match self.kind {
            BuyerKind::NeverPays => return Ok(BuyerOutcome::Expired(id)),
            BuyerKind::Deposits | BuyerKind::NeverDeposits => self.deposit(&pending).await?,
            BuyerKind::PaysTwice => self.confirm_twice(&pending).await?,
            _ => self.confirm(&pending, "").await?,
        }
        self.wait_for_ticket(&pending).await?;
        if self.kind == BuyerKind::Cancels {
            let path = format!("/ticket/{}/cancel", pending.ticket);
            let answer = self.post("ticketing-api", &path, "cancel", json!({})).await;
            self.expect(&answer, 202);
            return Ok(BuyerOutcome::Cancelled(id));
        }
        Ok(BuyerOutcome::Owns(id))
    }

    async fn confirm(&self, pending: &PendingPayment, card: &str) -> Result<(), EarlyEnd> {
        let answer = self.request_confirmation(pending, card, None).await;
        self.may_be_charged(pending, &answer)
    }

    /// Only one attempt is at the gateway at a time: the other one is refused as concurrent or late.
    async fn confirm_twice(&self, pending: &PendingPayment) -> Result<(), EarlyEnd> {
        let (one, other) = tokio::join!(
            self.request_confirmation(pending, "-a", Some(0)),
            self.request_confirmation(pending, "-b", Some(1))
        );
        let is_paid =
            |answer: &FinalAnswer| answer.status == 200 && answer.body["succeeded"] == true;
        assert!(
            !(is_paid(&one) && is_paid(&other)),
            "{} has paid twice: {one:?}, {other:?}",
            self.name
        );
        let is_refused = |answer: &FinalAnswer| answer.status == 409;
        match (is_refused(&one), is_refused(&other)) {
            (true, false) => self.may_be_charged(pending, &other),
            // Both are refused if an answer was lost.
            _ => self.may_be_charged(pending, &one),
        }
    }

    async fn request_confirmation(
        &self,
        pending: &PendingPayment,
        card: &str,
        number: Option<u64>,
    ) -> FinalAnswer {
        let payment_key = format!("{}{card}", pending.key);
        let confirm = ApiRequest::confirm(&pending.payment, &payment_key, pending.amount);
        let mut paid = confirm.body;
        paid["refundAccount"] =
            json!({ "bank": "20", "accountNumber": "123", "holderName": "Kim" });
        let key = format!("{}{card}", pending.payment);
        let path = "/payment/confirmed";
        self.post_at("payment-api", number, path, &key, &paid).await
    }

    /// Succeeds if the money may have been taken.
    fn may_be_charged(
        &self,
        pending: &PendingPayment,
        answer: &FinalAnswer,
    ) -> Result<(), EarlyEnd> {
        match (answer.status, answer.code()) {
            // The outcome is not known yet, or the answer was lost and the attempt continues by itself.
            (202, _) => Ok(()),
            (409, "ALREADY_CONFIRMED" | "CONFIRMATION_IN_PROGRESS")
                if answer.had_lost_answer || self.kind == BuyerKind::PaysTwice =>
            {
                Ok(())
            }
            (409, "DEADLINE_PASSED" | "PAYMENT_CLOSED") => {
                Err(EarlyEnd::With(BuyerOutcome::Expired(pending.id)))
            }
            _ => {
                assert_eq!(self.expect(answer, 200)["succeeded"], true, "{answer:?}");
                Ok(())
            }
        }
    }

    /// Requests a virtual account and pays into it as soon as the bank knows it.
    async fn deposit(&self, pending: &PendingPayment) -> Result<(), EarlyEnd> {
        let gateway = &self.deployment.gateway.client;
        gateway
            .request_account(&pending.payment, &pending.key, pending.amount)
            .await;
        self.confirm(pending, "").await?;
        if self.kind == BuyerKind::NeverDeposits {
            return Err(EarlyEnd::With(BuyerOutcome::Expired(pending.id)));
        }
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        while !gateway.can_perform(&pending.key, "deposit").await {
            poll.tick().await;
            let path = format!("/payment/{}", pending.payment);
            let is_over = |it: &Value| Some(is_without_money(it));
            if self.poll_until("payment-api", &path, is_over).await {
                return Err(EarlyEnd::With(BuyerOutcome::Expired(pending.id)));
            }
        }
        Ok(())
    }

    /// Waits for the ticket or the refund.
    async fn wait_for_ticket(&self, pending: &PendingPayment) -> Result<(), EarlyEnd> {
        let ticket = format!("/ticket/{}", pending.ticket);
        let payment = format!("/payment/{}", pending.payment);
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        loop {
            poll.tick().await;
            self.check_time(&payment);
            if let Some(ticket) = self.get("ticketing-api", &ticket).await
                && ticket["status"] == "RESERVED"
            {
                return Ok(());
            }
            if let Some(payment) = self.get("payment-api", &payment).await
                && is_without_money(&payment)
            {
                return Err(EarlyEnd::With(BuyerOutcome::Expired(pending.id)));
            }
        }
    }

    async fn reserve(&self, user: i64, attempt: u32) -> Result<String, EarlyEnd> {
        let body = ApiRequest::reserve(self.event, user).body;
        let key = format!("reserve-{attempt}");
        let path = "/ticketing/reserve";
        let answer = self.post("ticketing-api", path, &key, body).await;
        match (answer.status, answer.code()) {
            (409, "SOLD_OUT") => Err(EarlyEnd::With(BuyerOutcome::SoldOut(self.event))),
            // An earlier attempt of this buyer was granted and its answer was lost.
            (409, "ALREADY_RESERVED") if answer.had_lost_answer || attempt > 1 => {
                Err(EarlyEnd::With(BuyerOutcome::ReservationUnknown))
            }
            _ => {
                let ticket = &self.expect(&answer, 200)["ticketId"];
                Ok(ticket.as_str().unwrap().to_owned())
            }
        }
    }

    async fn process(&self, user: i64, ticket: &str) -> Result<(), EarlyEnd> {
        let point = match self.kind {
            BuyerKind::PaysInPoints => PRICE,
            _ => POINTS_USED,
        };
        let purchase = Purchase {
            ticket,
            event: self.event,
            user,
            total_amount: PRICE,
            points: point,
        };
        let purchase = ApiRequest::process(purchase).body;
        let path = "/ticketing/process";
        let answer = self.post("ticketing-api", path, ticket, purchase).await;
        match (answer.status, answer.code()) {
            (404, "RESERVATION_NOT_FOUND") | (409, "DEADLINE_PASSED") => Err(EarlyEnd::StartAgain),
            _ => {
                self.expect(&answer, 202);
                Ok(())
            }
        }
    }

    async fn release(&self, ticket: &str) {
        let path = format!("/ticketing/reserve/{ticket}");
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        loop {
            poll.tick().await;
            self.check_time(&path);
            let Some(url) = self.deployment.any("ticketing-api") else {
                continue;
            };
            let asked = self.client.delete(format!("{url}{path}")).send().await;
            match asked.map(|answer| answer.status().as_u16()) {
                // 404: an unanswered attempt has released it, or Redis lost it.
                Ok(204 | 404) => return,
                Ok(status) if status < 500 => panic!("{path} was answered {status}"),
                _ => {}
            }
        }
    }

    /// Waits for the end of the purchase; returns the payment and its amount.
    async fn wait_for_payment(
        &self,
        ticket: &str,
        id: TicketId,
    ) -> Result<(String, i64), EarlyEnd> {
        let path = format!("/ticketing/process/{ticket}");
        self.poll_until(
            "ticketing-api",
            &path,
            |progress| match progress["sagaState"].as_str()? {
                // It expired before it could be paid.
                "COMPLETED" if progress["failure"].is_string() => {
                    Some(Err(EarlyEnd::With(BuyerOutcome::Expired(id))))
                }
                "COMPLETED" => Some(Ok((
                    progress["paymentId"].as_str()?.to_owned(),
                    progress["finalAmount"].as_i64()?,
                ))),
                "COMPENSATED" => Some(Err(EarlyEnd::With(BuyerOutcome::Compensated(id)))),
                _ => None,
            },
        )
        .await
    }

    fn expect<'t>(&self, answer: &'t FinalAnswer, status: u16) -> &'t Value {
        let Self { name, kind, .. } = self;
        assert_eq!(
            answer.status, status,
            "{name} ({kind:?}) was answered {answer:?}"
        );
        &answer.body
    }
}

/// Nothing was charged, or it was refunded.
fn is_without_money(payment: &Value) -> bool {
    match payment["status"].as_str() {
        Some("FAILED" | "DELETED" | "CANCELLED") => true,
        _ => payment["refund"] == "DONE",
    }
}

/// Registers an event and waits until it is on sale.
pub async fn put_on_sale(deployment: &Deployment, name: &str, quantity: i64) -> i64 {
    let organiser = ClusterBuyer {
        deployment,
        client: client(),
        name: name.to_owned(),
        kind: BuyerKind::Pays,
        event: 0,
        begun: Instant::now(),
    };
    let show = ApiRequest::register_event("Show", quantity, PRICE).body;
    let answer = organiser.post("event", "/event", "show", show).await;
    let event = organiser.expect(&answer, 201)["id"].as_i64().unwrap();
    let stock = stock(deployment, event).await;
    assert_eq!(stock["available"], quantity, "{stock}");
    event
}

/// The stock of an event, once ticketing knows it.
pub async fn stock(deployment: &Deployment, event: i64) -> Value {
    let anyone = ClusterBuyer {
        deployment,
        client: client(),
        name: "anyone".to_owned(),
        kind: BuyerKind::Pays,
        event,
        begun: Instant::now(),
    };
    let path = format!("/ticketing/event/{event}");
    anyone
        .poll_until("ticketing-api", &path, |stock| {
            stock["available"].is_i64().then(|| stock.clone())
        })
        .await
}
