//! The crowd: buyers of every kind, each with a user of their own, who do what they do until it is done or the
//! server is gone.

use messaging::Random;
use serde_json::{Value, json};

use crate::{
    ledger::{Ask, Ledger, Told},
    server::{LOOK, Server},
};

pub const PRICE: i64 = 1000;
/// Points that a user is registered with, and those that most pay with.
const POINTS: i64 = 1200;
const POINTS_USED: i64 = 300;
/// How often a buyer looks how far a purchase has come.
const LOOKS_MAX: usize = 400;
const DECLINED: &str = "REJECT_CARD_COMPANY";
/// The money is taken, and the gateway does not say so.
const TAKEN_IN_SILENCE: &str = "SANDBOX_CHARGE_THEN_500";

/// What a buyer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pays,
    PaysInPoints,
    /// Every request is sent twice at once.
    PaysTwiceAtOnce,
    /// The card is declined, another is not.
    PaysAtLast,
    IsDeclined,
    /// The gateway takes the money and fails to say so.
    PaysInSilence,
    /// The same, and gives the ticket back meanwhile.
    PaysInSilenceAndReleases,
    /// The gateway takes the money, fails to say so, and tells by webhooks, twice each and in the wrong order.
    IsToldOf,
    /// Has paid, and gives the ticket back.
    CancelsTheTicket,
    ReleasesAtOnce,
    ReleasesWhileProcessing,
    NeverProcesses,
    NeverPays,
    /// Registered without points, which are granted later.
    IsGranted,
    /// May not buy.
    IsInactive,
    /// Has not the points.
    IsPoor,
    /// Asks for what is refused.
    Errs,
    /// Puts a show on sale.
    Organises,
}

/// Everybody who may come, as often as they come.
pub const EVERYBODY: &[(Kind, u64)] = &[
    (Kind::Pays, 24),
    (Kind::PaysInPoints, 6),
    (Kind::PaysTwiceAtOnce, 12),
    (Kind::PaysAtLast, 8),
    (Kind::IsDeclined, 6),
    (Kind::PaysInSilence, 8),
    (Kind::PaysInSilenceAndReleases, 2),
    (Kind::IsToldOf, 6),
    (Kind::CancelsTheTicket, 8),
    (Kind::ReleasesAtOnce, 6),
    (Kind::ReleasesWhileProcessing, 6),
    (Kind::NeverProcesses, 6),
    (Kind::NeverPays, 6),
    (Kind::IsGranted, 8),
    (Kind::IsInactive, 6),
    (Kind::IsPoor, 6),
    (Kind::Errs, 8),
    (Kind::Organises, 2),
];

/// One kind after the other, by their weights.
pub fn draw(kinds: &[(Kind, u64)], random: &Random) -> Kind {
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

/// One buyer's way.
pub struct Buyer<'a> {
    pub server: &'a Server,
    pub ledger: &'a Ledger,
    /// In front of each of their keys.
    pub name: String,
    pub kind: Kind,
    pub event: i64,
}

struct Started {
    ticket: String,
    payment: String,
    amount: i64,
}

impl Buyer<'_> {
    /// `None` where the server went away, or refused what a later step would need.
    pub async fn act(&self) -> Option<()> {
        if self.server.is_gone() {
            return None;
        }
        if self.kind == Kind::Organises {
            return self.organise().await;
        }
        let user = self.register().await?;
        let ticket = self.reserve(user).await?;
        match self.kind {
            Kind::NeverProcesses => return Some(()),
            Kind::ReleasesAtOnce => return self.release(&ticket).await,
            _ => {}
        }
        self.process(user, &ticket).await?;
        if self.kind == Kind::ReleasesWhileProcessing {
            return self.release(&ticket).await;
        }
        let started = self.follow(ticket).await?;
        self.pay(&started).await
    }

    async fn organise(&self) -> Option<()> {
        let show = json!({ "name": self.name, "ticketQuantity": 3, "price": PRICE });
        self.post("/event", "event", show).await.map(|_| ())
    }

    async fn register(&self) -> Option<i64> {
        let status = match self.kind {
            Kind::IsInactive => "INACTIVE",
            _ => "ACTIVE",
        };
        let points = match self.kind {
            Kind::IsPoor => POINTS_USED - 1,
            Kind::IsGranted => 0,
            _ => POINTS,
        };
        let user = json!({ "name": self.name, "status": status, "points": points });
        let told = self.post("/user", "user", user).await?;
        let id = told.json()["id"].as_i64()?;
        if self.kind == Kind::IsGranted {
            let grant = json!({ "amount": POINTS });
            self.post(&format!("/user/{id}/points"), "grant", grant)
                .await?;
        }
        Some(id)
    }

    async fn reserve(&self, user: i64) -> Option<String> {
        let (path, wish) = (
            "/ticketing/reserve",
            json!({ "eventId": self.event, "userId": user }),
        );
        let told = self.post(path, "reserve", wish.clone()).await?;
        let ticket = told.json()["ticketId"].as_str()?.to_owned();
        if self.kind == Kind::Errs {
            self.post(path, "again", wish).await?;
        }
        Some(ticket)
    }

    async fn release(&self, ticket: &str) -> Option<()> {
        let ask = Ask::delete(format!("/ticketing/reserve/{ticket}"));
        self.ledger.ask(self.server, ask).await.map(|_| ())
    }

    async fn process(&self, user: i64, ticket: &str) -> Option<()> {
        let point = match self.kind {
            Kind::PaysInPoints => PRICE,
            _ => POINTS_USED,
        };
        let purchase = json!({ "ticketId": ticket, "eventId": self.event, "userId": user,
            "totalAmount": PRICE, "point": point });
        let told = self.post("/ticketing/process", "process", purchase).await?;
        (told.status == 202).then_some(())
    }

    /// Waits for the purchase's end; where it came to nothing, or takes longer than anybody waits, the buyer goes.
    async fn follow(&self, ticket: String) -> Option<Started> {
        let url = format!("{}/ticketing/process/{ticket}", self.server.url);
        let mut look = tokio::time::interval(LOOK);
        for _ in 0..LOOKS_MAX {
            look.tick().await;
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
            Kind::NeverPays => {}
            Kind::PaysAtLast => {
                self.confirm(started, "declined", Some(DECLINED)).await?;
                self.confirm(started, "confirm", None).await?;
            }
            Kind::IsDeclined => _ = self.confirm(started, "declined", Some(DECLINED)).await?,
            Kind::PaysInSilence => {
                self.confirm(started, "confirm", Some(TAKEN_IN_SILENCE))
                    .await?;
            }
            Kind::PaysInSilenceAndReleases => {
                self.confirm(started, "confirm", Some(TAKEN_IN_SILENCE))
                    .await?;
                self.release(&started.ticket).await?;
            }
            Kind::IsToldOf => {
                self.confirm(started, "confirm", Some(TAKEN_IN_SILENCE))
                    .await?;
                self.hear_of(started).await?;
            }
            Kind::CancelsTheTicket => {
                self.confirm(started, "confirm", None).await?;
                self.cancel(&started.ticket).await?;
            }
            Kind::Errs => {
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
    ) -> Option<Told> {
        let payment = json!({ "paymentId": started.payment, "amount": started.amount,
            "pgPaymentId": format!("{}-{step}", self.name) });
        let ask = Ask::post("/payment/confirmed", self.key(step), payment);
        self.twice_or_once(Ask { test_code, ..ask }).await
    }

    /// The gateway tells of the payment, in whatever order.
    async fn hear_of(&self, started: &Started) -> Option<()> {
        for status in ["ABORTED", "DONE", "ABORTED", "DONE"] {
            let data = json!({ "orderId": started.payment, "status": status,
                "paymentKey": self.key("confirm") });
            let ask = Ask::webhook(self.key(status), data);
            self.ledger.ask(self.server, ask).await?;
        }
        Some(())
    }

    /// Gives the ticket back, once there is one.
    async fn cancel(&self, ticket: &str) -> Option<()> {
        let url = format!("{}/ticket/{ticket}", self.server.url);
        let mut look = tokio::time::interval(LOOK);
        for _ in 0..LOOKS_MAX {
            look.tick().await;
            let answer = self.server.client.get(&url).send().await.ok()?;
            if answer.status() == 200 {
                let path = format!("/ticket/{ticket}/cancel");
                return self.post(&path, "cancel", json!({})).await.map(|_| ());
            }
        }
        None
    }

    async fn post(&self, path: &str, step: &str, body: Value) -> Option<Told> {
        self.twice_or_once(Ask::post(path, self.key(step), body))
            .await
    }

    async fn twice_or_once(&self, ask: Ask) -> Option<Told> {
        if self.kind != Kind::PaysTwiceAtOnce {
            return self.ledger.ask(self.server, ask).await;
        }
        let (one, other) = futures::join!(
            self.ledger.ask(self.server, ask.clone()),
            self.ledger.ask(self.server, ask)
        );
        let (one, other) = (one?, other?);
        Some(if one.is_passing { other } else { one })
    }

    fn key(&self, step: &str) -> String {
        format!("{}-{step}", self.name)
    }
}
