//! The buyers, each with a user of their own, who play their part to its end; the impatient leave where the service
//! goes away under them.

use std::future::Future;

use contract::Timestamp;
use messaging::Clock;
use serde_json::{Value, json};

use crate::{
    house::{House, LOOK},
    ledger::{Ask, Told},
    plan::{POINTS, Part, SHOWS, Tries, Unasked, Way},
    server::HOLD_GRACE_SECS,
};

/// How often a buyer looks how something goes on, before they think of something else: some six seconds.
const LOOKS_MAX: usize = 150;

pub struct Buyer<'a> {
    pub house: &'a House,
    pub part: &'a Part,
    /// The shows, as [`SHOWS`] has them.
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
    /// `None` where they left before the end of their part.
    pub async fn act(&self) -> Option<()> {
        let started = self.begin().await?;
        match self.part.way {
            Way::NeverPays => Some(()),
            Way::Pays => self.pay(&started).await,
            Way::PaysInPoints | Way::GivesUpWaiting => self.confirm(&started, 1).await.map(drop),
            Way::PaysTwiceAtOnce => {
                let (one, other) =
                    tokio::join!(self.confirm(&started, 1), self.confirm(&started, 2));
                one.and(other).map(drop)
            }
            Way::PaysWithAnotherCard => self.pay(&started).await,
            Way::PaysAtTheLastMoment => {
                let at = started.expires_at.plus_millis(-self.part.millis);
                Clock::System.wait_until(at).await;
                self.confirm(&started, 1).await.map(drop)
            }
            Way::Deposits(deposit) => self.deposit(&started, deposit).await,
            Way::CancelsTheTicket(tries) => self.pay_and_cancel(&started, tries).await,
            Way::IsCancelledByTheMerchant => {
                self.confirm(&started, 1).await?;
                self.settled(&started).await?;
                self.house
                    .gateway
                    .act(&self.part.key(1), "cancel-by-merchant")
                    .await;
                Some(())
            }
            Way::IsChargedUnasked(when) => self.be_charged(&started, when).await,
            Way::ReleasesWhilePaying => {
                let (paid, released) =
                    tokio::join!(self.confirm(&started, 1), self.release(&started));
                paid.and(released).map(drop)
            }
        }
    }

    /// Comes as far as to the payment.
    async fn begin(&self) -> Option<Started> {
        let (price, _) = SHOWS[self.part.show];
        let event = self.events[self.part.show];
        let point = match self.part.way {
            Way::PaysInPoints => price,
            _ => self.part.points,
        };
        let user = json!({ "name": self.part.name, "status": "ACTIVE",
            "points": POINTS + point });
        let user = self.post("/user", "user", user).await?.body["id"].as_i64()?;
        let wish = json!({ "eventId": event, "userId": user });
        let told = self.post("/ticketing/reserve", "reserve", wish).await?;
        let ticket = told.text("ticketId")?.to_owned();
        let expires_at = told.text("expiresAt")?.parse().unwrap();
        let purchase = json!({ "ticketId": ticket, "eventId": event, "userId": user,
            "totalAmount": price, "point": point });
        let told = self.post("/ticketing/process", "process", purchase).await?;
        if told.status != 202 {
            return None;
        }
        let path = format!("/ticketing/process/{ticket}");
        let done = self
            .look(&path, |told| told.text("sagaState") == Some("COMPLETED"))
            .await?;
        Some(Started {
            payment: done.text("paymentId")?.to_owned(),
            amount: done.body["finalAmount"].as_i64()?,
            ticket,
            expires_at,
        })
    }

    /// Pays; where the card is declined, with another one.
    async fn pay(&self, started: &Started) -> Option<()> {
        let told = self.confirm(started, 1).await?;
        if told.body["succeeded"] == true {
            return Some(());
        }
        if self.settled(started).await? == "FAILED" {
            self.confirm(started, 2).await?;
        }
        Some(())
    }

    async fn pay_and_cancel(&self, started: &Started, tries: Tries) -> Option<()> {
        self.confirm(started, 1).await?;
        if tries != Tries::AtOnce {
            let path = format!("/ticket/{}", started.ticket);
            self.look(&path, |told| told.text("status") == Some("RESERVED"))
                .await?;
        }
        match tries {
            Tries::Once | Tries::AtOnce => self.cancel(started, 1).await.map(drop),
            Tries::TwiceAtOnce => {
                let (one, other) = tokio::join!(self.cancel(started, 1), self.cancel(started, 2));
                one.and(other).map(drop)
            }
        }
    }

    async fn be_charged(&self, started: &Started, when: Unasked) -> Option<()> {
        if when == Unasked::WhenItIsClosed {
            let path = format!("/payment/{}", started.payment);
            let at = started.expires_at.plus_secs(HOLD_GRACE_SECS);
            Clock::System.wait_until(at).await;
            self.look(&path, |told| told.text("status") == Some("DELETED"))
                .await?;
        }
        let gateway = &self.house.gateway;
        gateway
            .charge(&started.payment, &self.part.key(1), started.amount)
            .await;
        Some(())
    }

    pub async fn release(&self, started: &Started) -> Option<Told> {
        let path = format!("/ticketing/reserve/{}", started.ticket);
        self.ask(Ask::delete(path)).await
    }

    pub async fn cancel(&self, started: &Started, number: u32) -> Option<Told> {
        let path = format!("/ticket/{}/cancel", started.ticket);
        self.post(&path, &format!("cancel{number}"), json!({}))
            .await
    }

    /// Waits until the outcome of the payment is known, and what it is.
    pub async fn settled(&self, started: &Started) -> Option<String> {
        let path = format!("/payment/{}", started.payment);
        let is_open = |told: &Told| matches!(told.text("status"), Some("CREATED" | "CONFIRMING"));
        let settled = self.look(&path, |told| !is_open(told)).await?;
        settled.text("status").map(str::to_owned)
    }

    pub async fn confirm(&self, started: &Started, number: usize) -> Option<Told> {
        let mut payment = json!({ "paymentId": started.payment, "amount": started.amount,
            "pgPaymentId": self.part.key(number) });
        if matches!(self.part.way, Way::Deposits(_)) && self.part.names_account {
            payment["refundAccount"] =
                json!({ "bank": "20", "accountNumber": "123", "holderName": "Kim" });
        }
        self.post("/payment/confirmed", &format!("confirm{number}"), payment)
            .await
    }

    async fn post(&self, path: &str, step: &str, body: Value) -> Option<Told> {
        let key = format!("{}-{step}", self.part.name);
        self.ask(Ask::post(path, key, body)).await
    }

    async fn ask(&self, ask: Ask) -> Option<Told> {
        if self.part.is_patient {
            return Some(self.house.ask(&ask).await);
        }
        self.house.try_once(&ask).await
    }

    /// Looks until it is as wanted, if that does not take too long.
    async fn look(&self, path: &str, is_wanted: impl Fn(&Told) -> bool) -> Option<Told> {
        self.until(|| async {
            let told = self.house.get(path).await;
            is_wanted(&told).then_some(told)
        })
        .await
    }

    /// Tries until there is something, if that does not take too long.
    pub async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Option<T> {
        let mut look = tokio::time::interval(LOOK);
        for _ in 0..LOOKS_MAX {
            look.tick().await;
            if let Some(found) = attempt().await {
                return Some(found);
            }
        }
        None
    }
}
