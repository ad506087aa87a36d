//! Buyers of every kind. Each registers a user of its own and acts until it is done or the server has exited.

use messaging::Random;
use serde_json::{Value, json};

use crate::{
    calls::{ApiAnswer, ApiRequest, CallLog},
    server::{POLL_INTERVAL, Server},
};

pub const PRICE: i64 = 1000;
/// Points of a new user, and the points that most purchases use.
const POINTS: i64 = 1200;
const POINTS_USED: i64 = 300;
/// How often a buyer polls a purchase before it gives up.
const POLLS_MAX: usize = 400;
const DECLINED: &str = "REJECT_CARD_COMPANY";
/// The gateway takes the money and answers 500.
const CHARGE_WITHOUT_ANSWER: &str = "SANDBOX_CHARGE_THEN_500";

/// What a buyer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuyerKind {
    Pays,
    PaysInPoints,
    /// Every request is sent twice at once.
    PaysTwiceAtOnce,
    /// The first card is declined, the second is accepted.
    PaysWithSecondCard,
    IsDeclined,
    /// The gateway takes the money and answers 500.
    PaysWithLostAnswer,
    /// The same, and the buyer releases the reservation.
    PaysWithLostAnswerAndReleases,
    /// The same, and the gateway sends webhooks, each twice and in the wrong order.
    NotifiedByWebhook,
    /// Pays and then cancels the ticket.
    CancelsTheTicket,
    ReleasesAtOnce,
    ReleasesWhileProcessing,
    NeverProcesses,
    NeverPays,
    /// Is registered without points, which are granted later.
    IsGrantedPointsLater,
    /// The user may not buy.
    IsInactive,
    /// The user has fewer points than the purchase uses.
    LacksPoints,
    /// Sends requests that are refused.
    SendsInvalidRequests,
    /// Puts an event on sale.
    RegistersAnEvent,
}

/// All kinds with their weights.
pub const ALL_KINDS: &[(BuyerKind, u64)] = &[
    (BuyerKind::Pays, 24),
    (BuyerKind::PaysInPoints, 6),
    (BuyerKind::PaysTwiceAtOnce, 12),
    (BuyerKind::PaysWithSecondCard, 8),
    (BuyerKind::IsDeclined, 6),
    (BuyerKind::PaysWithLostAnswer, 8),
    (BuyerKind::PaysWithLostAnswerAndReleases, 2),
    (BuyerKind::NotifiedByWebhook, 6),
    (BuyerKind::CancelsTheTicket, 8),
    (BuyerKind::ReleasesAtOnce, 6),
    (BuyerKind::ReleasesWhileProcessing, 6),
    (BuyerKind::NeverProcesses, 6),
    (BuyerKind::NeverPays, 6),
    (BuyerKind::IsGrantedPointsLater, 8),
    (BuyerKind::IsInactive, 6),
    (BuyerKind::LacksPoints, 6),
    (BuyerKind::SendsInvalidRequests, 8),
    (BuyerKind::RegistersAnEvent, 2),
];

/// Draws a kind by its weight.
pub fn draw(kinds: &[(BuyerKind, u64)], random: &Random) -> BuyerKind {
    let all: u64 = kinds.iter().map(|(_, weight)| weight).sum();
    let mut drawn = random.below(all);
    for (kind, weight) in kinds {
        if drawn < *weight {
            return *kind;
        }
        drawn -= weight;
    }
    unreachable!("the weights sum to all")
}

/// One buyer of one round.
pub struct Buyer<'a> {
    pub server: &'a Server,
    pub calls: &'a CallLog,
    /// Prefix of the buyer's idempotency keys.
    pub name: String,
    pub kind: BuyerKind,
    pub event: i64,
}

struct Started {
    ticket: String,
    payment: String,
    amount: i64,
}

impl Buyer<'_> {
    /// `None` if the server exited, or refused something that a later step needs.
    pub async fn act(&self) -> Option<()> {
        if self.server.is_gone() {
            return None;
        }
        if self.kind == BuyerKind::RegistersAnEvent {
            return self.register_event().await;
        }
        let user = self.register().await?;
        let ticket = self.reserve(user).await?;
        match self.kind {
            BuyerKind::NeverProcesses => return Some(()),
            BuyerKind::ReleasesAtOnce => return self.release(&ticket).await,
            _ => {}
        }
        self.process(user, &ticket).await?;
        if self.kind == BuyerKind::ReleasesWhileProcessing {
            return self.release(&ticket).await;
        }
        let started = self.wait_for_payment(ticket).await?;
        self.pay(&started).await
    }

    async fn register_event(&self) -> Option<()> {
        let show = json!({ "name": self.name, "ticketQuantity": 3, "price": PRICE });
        self.post("/event", "event", show).await.map(|_| ())
    }

    async fn register(&self) -> Option<i64> {
        let status = match self.kind {
            BuyerKind::IsInactive => "INACTIVE",
            _ => "ACTIVE",
        };
        let points = match self.kind {
            BuyerKind::LacksPoints => POINTS_USED - 1,
            BuyerKind::IsGrantedPointsLater => 0,
            _ => POINTS,
        };
        let user = json!({ "name": self.name, "status": status, "points": points });
        let answer = self.post("/user", "user", user).await?;
        let id = answer.json()["id"].as_i64()?;
        if self.kind == BuyerKind::IsGrantedPointsLater {
            let grant = json!({ "amount": POINTS });
            self.post(&format!("/user/{id}/points"), "grant", grant)
                .await?;
        }
        Some(id)
    }

    async fn reserve(&self, user: i64) -> Option<String> {
        let (path, body) = (
            "/ticketing/reserve",
            json!({ "eventId": self.event, "userId": user }),
        );
        let answer = self.post(path, "reserve", body.clone()).await?;
        let ticket = answer.json()["ticketId"].as_str()?.to_owned();
        if self.kind == BuyerKind::SendsInvalidRequests {
            self.post(path, "again", body).await?;
        }
        Some(ticket)
    }

    async fn release(&self, ticket: &str) -> Option<()> {
        let request = ApiRequest::delete(format!("/ticketing/reserve/{ticket}"));
        self.calls.send(self.server, request).await.map(|_| ())
    }

    async fn process(&self, user: i64, ticket: &str) -> Option<()> {
        let point = match self.kind {
            BuyerKind::PaysInPoints => PRICE,
            _ => POINTS_USED,
        };
        let purchase = json!({ "ticketId": ticket, "eventId": self.event, "userId": user,
            "totalAmount": PRICE, "point": point });
        let answer = self.post("/ticketing/process", "process", purchase).await?;
        (answer.status == 202).then_some(())
    }

    /// Waits for the end of the purchase. `None` if the purchase is compensated or takes too long.
    async fn wait_for_payment(&self, ticket: String) -> Option<Started> {
        let url = format!("{}/ticketing/process/{ticket}", self.server.url);
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        for _ in 0..POLLS_MAX {
            poll.tick().await;
            let answer = self.server.client.get(&url).send().await.ok()?;
            let progress: Value = answer.json().await.ok()?;
            match progress["sagaState"].as_str() {
                Some("COMPLETED") => {
                    return Some(Started {
                        payment: progress["paymentId"].as_str()?.to_owned(),
                        amount: progress["finalAmount"].as_i64()?,
                        ticket,
                    });
                }
                Some("COMPENSATED") => return None,
                _ => {}
            }
        }
        None
    }

    async fn pay(&self, started: &Started) -> Option<()> {
        match self.kind {
            BuyerKind::NeverPays => {}
            BuyerKind::PaysWithSecondCard => {
                self.confirm(started, "declined", Some(DECLINED)).await?;
                self.confirm(started, "confirm", None).await?;
            }
            BuyerKind::IsDeclined => _ = self.confirm(started, "declined", Some(DECLINED)).await?,
            BuyerKind::PaysWithLostAnswer => {
                self.confirm(started, "confirm", Some(CHARGE_WITHOUT_ANSWER))
                    .await?;
            }
            BuyerKind::PaysWithLostAnswerAndReleases => {
                self.confirm(started, "confirm", Some(CHARGE_WITHOUT_ANSWER))
                    .await?;
                self.release(&started.ticket).await?;
            }
            BuyerKind::NotifiedByWebhook => {
                self.confirm(started, "confirm", Some(CHARGE_WITHOUT_ANSWER))
                    .await?;
                self.receive_webhooks(started).await?;
            }
            BuyerKind::CancelsTheTicket => {
                self.confirm(started, "confirm", None).await?;
                self.cancel(&started.ticket).await?;
            }
            BuyerKind::SendsInvalidRequests => {
                let wrong = Started {
                    ticket: started.ticket.clone(),
                    payment: started.payment.clone(),
                    amount: started.amount + 1,
                };
                self.confirm(&wrong, "wrong", None).await?;
                self.confirm(started, "confirm", None).await?;
            }
            _ => _ = self.confirm(started, "confirm", None).await?,
        }
        Some(())
    }

    async fn confirm(
        &self,
        started: &Started,
        step: &str,
        test_code: Option<&'static str>,
    ) -> Option<ApiAnswer> {
        let payment = json!({ "paymentId": started.payment, "amount": started.amount,
            "pgPaymentId": format!("{}-{step}", self.name) });
        let request = ApiRequest::post("/payment/confirmed", self.key(step), payment);
        self.send_as_kind(ApiRequest {
            test_code,
            ..request
        })
        .await
    }

    /// Delivers contradicting webhooks about the payment.
    async fn receive_webhooks(&self, started: &Started) -> Option<()> {
        for status in ["ABORTED", "DONE", "ABORTED", "DONE"] {
            let data = json!({ "orderId": started.payment, "status": status,
                "paymentKey": self.key("confirm") });
            let request = ApiRequest::webhook(self.key(status), data);
            self.calls.send(self.server, request).await?;
        }
        Some(())
    }

    /// Cancels the ticket once it is issued.
    async fn cancel(&self, ticket: &str) -> Option<()> {
        let url = format!("{}/ticket/{ticket}", self.server.url);
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        for _ in 0..POLLS_MAX {
            poll.tick().await;
            let answer = self.server.client.get(&url).send().await.ok()?;
            if answer.status() == 200 {
                let path = format!("/ticket/{ticket}/cancel");
                return self.post(&path, "cancel", json!({})).await.map(|_| ());
            }
        }
        None
    }

    async fn post(&self, path: &str, step: &str, body: Value) -> Option<ApiAnswer> {
        self.send_as_kind(ApiRequest::post(path, self.key(step), body))
            .await
    }

    async fn send_as_kind(&self, request: ApiRequest) -> Option<ApiAnswer> {
        if self.kind != BuyerKind::PaysTwiceAtOnce {
            return self.calls.send(self.server, request).await;
        }
        let (one, other) = futures::join!(
            self.calls.send(self.server, request.clone()),
            self.calls.send(self.server, request)
        );
        let (one, other) = (one?, other?);
        Some(if one.is_retryable { other } else { one })
    }

    fn key(&self, step: &str) -> String {
        format!("{}-{step}", self.name)
    }
}
