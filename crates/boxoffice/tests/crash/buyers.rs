//! Buyers of every kind. Each registers a user of its own and acts until it is done or the server has exited.

use messaging::Random;
use reqwest::Method;
use serde_json::json;
use test_support::{
    api::{ApiAnswer, ApiRequest, Purchase},
    buyer::{Buyer, PendingPayment, Transport},
    calls::CallLog,
};

use crate::server::{POLL_INTERVAL, Server};

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

/// Sends a buyer's requests to the server and logs them. A GET is not logged.
pub struct ServerTransport<'a> {
    server: &'a Server,
    calls: &'a CallLog,
    /// Sends each POST twice at once.
    is_twice: bool,
}

impl Transport for ServerTransport<'_> {
    async fn send(&self, request: ApiRequest) -> Option<ApiAnswer> {
        if request.method == Method::GET {
            return self.server.send(&request).await;
        }
        if request.method != Method::POST || !self.is_twice {
            return self.calls.log(&request, self.server.send(&request)).await;
        }
        let (one, other) = futures::join!(
            self.calls.log(&request, self.server.send(&request)),
            self.calls.log(&request, self.server.send(&request))
        );
        let (one, other) = (one?, other?);
        Some(if one.is_retryable() { other } else { one })
    }
}

/// One buyer of one round.
pub struct CrashBuyer<'a> {
    buyer: Buyer<ServerTransport<'a>>,
    kind: BuyerKind,
    event: i64,
}

impl<'a> CrashBuyer<'a> {
    pub fn new(
        server: &'a Server,
        calls: &'a CallLog,
        name: String,
        kind: BuyerKind,
        event: i64,
    ) -> Self {
        let transport = ServerTransport {
            server,
            calls,
            is_twice: kind == BuyerKind::PaysTwiceAtOnce,
        };
        let buyer = Buyer {
            transport,
            name,
            poll_interval: POLL_INTERVAL,
            polls_max: POLLS_MAX,
        };
        Self { buyer, kind, event }
    }

    /// `None` if the server exited, or refused something that a later step needs.
    pub async fn act(&self) -> Option<()> {
        if self.buyer.transport.server.is_gone() {
            return None;
        }
        if self.kind == BuyerKind::RegistersAnEvent {
            let request = ApiRequest::register_event(&self.buyer.name, 3, PRICE);
            return self.buyer.send("event", request).await.map(drop);
        }
        let user = self.register().await?;
        let ticket = self.reserve(user).await?;
        match self.kind {
            BuyerKind::NeverProcesses => return Some(()),
            BuyerKind::ReleasesAtOnce => return self.buyer.release(&ticket).await.map(drop),
            _ => {}
        }
        self.process(user, &ticket).await?;
        if self.kind == BuyerKind::ReleasesWhileProcessing {
            return self.buyer.release(&ticket).await.map(drop);
        }
        let pending = self.buyer.wait_for_payment(&ticket).await?;
        self.pay(&pending).await
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
        let id = self.buyer.register(status, points).await?;
        if self.kind == BuyerKind::IsGrantedPointsLater {
            let grant = json!({ "amount": POINTS });
            let request = ApiRequest::post(format!("/user/{id}/points"), grant);
            self.buyer.send("grant", request).await?;
        }
        Some(id)
    }

    async fn reserve(&self, user: i64) -> Option<String> {
        let answer = self.buyer.reserve(self.event, user).await?;
        let ticket = answer.text_of("ticketId")?.to_owned();
        if self.kind == BuyerKind::SendsInvalidRequests {
            let again = ApiRequest::reserve(self.event, user);
            self.buyer.send("again", again).await?;
        }
        Some(ticket)
    }

    async fn process(&self, user: i64, ticket: &str) -> Option<()> {
        let points = match self.kind {
            BuyerKind::PaysInPoints => PRICE,
            _ => POINTS_USED,
        };
        let purchase = Purchase {
            ticket,
            event: self.event,
            user,
            total_amount: PRICE,
            points,
        };
        self.buyer.process(purchase).await
    }

    async fn pay(&self, pending: &PendingPayment) -> Option<()> {
        match self.kind {
            BuyerKind::NeverPays => {}
            BuyerKind::PaysWithSecondCard => {
                self.confirm(pending, "declined", Some(DECLINED)).await?;
                self.confirm(pending, "confirm", None).await?;
            }
            BuyerKind::IsDeclined => _ = self.confirm(pending, "declined", Some(DECLINED)).await?,
            BuyerKind::PaysWithLostAnswer => {
                self.confirm(pending, "confirm", Some(CHARGE_WITHOUT_ANSWER))
                    .await?;
            }
            BuyerKind::PaysWithLostAnswerAndReleases => {
                self.confirm(pending, "confirm", Some(CHARGE_WITHOUT_ANSWER))
                    .await?;
                self.buyer.release(&pending.ticket).await?;
            }
            BuyerKind::NotifiedByWebhook => {
                self.confirm(pending, "confirm", Some(CHARGE_WITHOUT_ANSWER))
                    .await?;
                self.receive_webhooks(pending).await?;
            }
            BuyerKind::CancelsTheTicket => {
                self.confirm(pending, "confirm", None).await?;
                self.cancel(&pending.ticket).await?;
            }
            BuyerKind::SendsInvalidRequests => {
                let wrong = PendingPayment {
                    amount: pending.amount + 1,
                    ..pending.clone()
                };
                self.confirm(&wrong, "wrong", None).await?;
                self.confirm(pending, "confirm", None).await?;
            }
            _ => _ = self.confirm(pending, "confirm", None).await?,
        }
        Some(())
    }

    async fn confirm(
        &self,
        pending: &PendingPayment,
        step: &str,
        test_code: Option<&str>,
    ) -> Option<ApiAnswer> {
        let payment_key = self.buyer.key(step);
        let mut request = ApiRequest::confirm(&pending.payment, &payment_key, pending.amount);
        if let Some(code) = test_code {
            request = request.with_test_code(code);
        }
        self.buyer.send(step, request).await
    }

    /// Delivers contradicting webhooks about the payment.
    async fn receive_webhooks(&self, pending: &PendingPayment) -> Option<()> {
        for status in ["ABORTED", "DONE", "ABORTED", "DONE"] {
            let data = json!({ "orderId": pending.payment, "status": status,
                "paymentKey": self.buyer.key("confirm") });
            let request = ApiRequest::webhook(&self.buyer.key(status), data);
            self.buyer.send(status, request).await?;
        }
        Some(())
    }

    /// Cancels the ticket once it is issued.
    async fn cancel(&self, ticket: &str) -> Option<()> {
        let path = format!("/ticket/{ticket}");
        self.buyer.wait_for(&path, |it| it.status == 200).await?;
        self.buyer.cancel(ticket, "cancel").await.map(drop)
    }
}
