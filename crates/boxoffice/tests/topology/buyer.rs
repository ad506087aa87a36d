//! A buyer: what it does, and what it comes to, as far as it was told.

use std::time::Instant;

use contract::TicketId;
use reqwest::Client;
use serde_json::{Value, json};

use crate::{
    asking::{Told, client},
    deployment::{Deployment, LOOK},
};

pub const PRICE: i64 = 1000;
const POINTS: i64 = 1200;
const POINTS_USED: i64 = 300;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pays,
    PaysInPoints,
    /// Asks two processes at the same moment, with the same key, whatever it asks.
    AsksTwice,
    /// Confirms at two processes at the same moment, as two attempts.
    PaysTwice,
    /// Into a virtual account.
    Deposits,
    /// Has an account, and never sends the money.
    NeverDeposits,
    /// Has paid, and gives the ticket back.
    Cancels,
    Releases,
    /// Has a reservation, and never begins its purchase.
    Leaves,
    /// Could pay, and never does.
    NeverPays,
}

/// What became of it, as far as the buyer was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Owns(TicketId),
    GaveBack(TicketId),
    Released(TicketId),
    /// It was not paid in time, or its money came back.
    Lapsed(TicketId),
    /// Of this show.
    SoldOut(i64),
    /// The purchase came to nothing by itself: a service was away for too long.
    Compensated(TicketId),
    /// The answer to a reservation was lost with the process that decided it; it stands until it lapses.
    HeldUnknown,
}

/// What ended a buyer early.
enum Stop {
    With(Outcome),
    /// The reservation was lost with Redis before the purchase began.
    Afresh,
}

/// A purchase that can be paid.
struct Bill {
    id: TicketId,
    ticket: String,
    payment: String,
    amount: i64,
    /// The buyer's name for this attempt.
    key: String,
}

pub struct Buyer<'a> {
    pub deployment: &'a Deployment,
    pub client: Client,
    pub name: String,
    pub kind: Kind,
    pub event: i64,
    pub begun: Instant,
}

impl Buyer<'_> {
    pub async fn act(&self) -> Outcome {
        let wish = json!({ "name": self.name, "status": "ACTIVE", "points": POINTS });
        let told = self.post("user,dead-letter", "/user", "user", wish).await;
        let user = self.expect(&told, 201)["id"].as_i64().unwrap();
        for attempt in 1.. {
            match self.buy(user, attempt).await {
                Ok(outcome) | Err(Stop::With(outcome)) => return outcome,
                Err(Stop::Afresh) => {}
            }
        }
        unreachable!("a buyer tries until the time is over")
    }

    async fn buy(&self, user: i64, attempt: u32) -> Result<Outcome, Stop> {
        let ticket = self.reserve(user, attempt).await?;
        let id: TicketId = ticket.parse().unwrap();
        match self.kind {
            Kind::Releases => {
                self.release(&ticket).await;
                return Ok(Outcome::Released(id));
            }
            Kind::Leaves => return Ok(Outcome::Lapsed(id)),
            _ => {}
        }
        self.process(user, &ticket).await?;
        let (payment, amount) = self.follow(&ticket, id).await?;
        let bill = Bill {
            id,
            ticket,
            payment,
            amount,
            key: format!("{}-{attempt}", self.name),
        };
        match self.kind {
            Kind::NeverPays => return Ok(Outcome::Lapsed(id)),
            Kind::Deposits | Kind::NeverDeposits => self.deposit(&bill).await?,
            Kind::PaysTwice => self.confirm_twice(&bill).await?,
            _ => self.confirm(&bill, "").await?,
        }
        self.receive(&bill).await?;
        if self.kind == Kind::Cancels {
            let path = format!("/ticket/{}/cancel", bill.ticket);
            let told = self.post("ticketing-api", &path, "cancel", json!({})).await;
            self.expect(&told, 202);
            return Ok(Outcome::GaveBack(id));
        }
        Ok(Outcome::Owns(id))
    }

    async fn confirm(&self, bill: &Bill, card: &str) -> Result<(), Stop> {
        let told = self.ask_to_confirm(bill, card, None).await;
        self.is_taken(bill, &told)
    }

    /// One attempt is at the gateway at a time: the other is told so, or that it comes too late.
    async fn confirm_twice(&self, bill: &Bill) -> Result<(), Stop> {
        let (one, other) = tokio::join!(
            self.ask_to_confirm(bill, "-a", Some(0)),
            self.ask_to_confirm(bill, "-b", Some(1))
        );
        let is_paid = |told: &Told| told.status == 200 && told.body["succeeded"] == true;
        assert!(
            !(is_paid(&one) && is_paid(&other)),
            "{} has paid twice: {one:?}, {other:?}",
            self.name
        );
        let is_refused = |told: &Told| told.status == 409;
        match (is_refused(&one), is_refused(&other)) {
            (true, false) => self.is_taken(bill, &other),
            // Both, where an answer was lost.
            _ => self.is_taken(bill, &one),
        }
    }

    async fn ask_to_confirm(&self, bill: &Bill, card: &str, place: Option<u64>) -> Told {
        let paid = json!({ "paymentId": bill.payment, "amount": bill.amount,
            "pgPaymentId": format!("{}{card}", bill.key),
            "refundAccount": { "bank": "20", "accountNumber": "123", "holderName": "Kim" } });
        let key = format!("{}{card}", bill.payment);
        let path = "/payment/confirmed";
        self.post_at("payment-api", place, path, &key, &paid).await
    }

    /// Whether money may be on its way.
    fn is_taken(&self, bill: &Bill, told: &Told) -> Result<(), Stop> {
        match (told.status, told.code()) {
            // The gateway's answer was not known yet; or ours was lost, and the attempt goes on by itself.
            (202, _) => Ok(()),
            (409, "ALREADY_CONFIRMED" | "CONFIRMATION_IN_PROGRESS")
                if told.is_late || self.kind == Kind::PaysTwice =>
            {
                Ok(())
            }
            (409, "DEADLINE_PASSED" | "PAYMENT_CLOSED") => {
                Err(Stop::With(Outcome::Lapsed(bill.id)))
            }
            _ => {
                assert_eq!(self.expect(told, 200)["succeeded"], true, "{told:?}");
                Ok(())
            }
        }
    }

    /// Has an account, and pays into it as soon as the bank knows it.
    async fn deposit(&self, bill: &Bill) -> Result<(), Stop> {
        let gateway = &self.deployment.gateway;
        gateway
            .request_account(&bill.payment, &bill.key, bill.amount)
            .await;
        self.confirm(bill, "").await?;
        if self.kind == Kind::NeverDeposits {
            return Err(Stop::With(Outcome::Lapsed(bill.id)));
        }
        let mut look = tokio::time::interval(LOOK);
        while !gateway.deposit(&bill.key).await {
            look.tick().await;
            let path = format!("/payment/{}", bill.payment);
            let is_over = |it: &Value| Some(is_without_money(it));
            if self.look("payment-api", &path, is_over).await {
                return Err(Stop::With(Outcome::Lapsed(bill.id)));
            }
        }
        Ok(())
    }

    /// Waits for the ticket, or the money.
    async fn receive(&self, bill: &Bill) -> Result<(), Stop> {
        let ticket = format!("/ticket/{}", bill.ticket);
        let payment = format!("/payment/{}", bill.payment);
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            self.check_time(&payment);
            if let Some(ticket) = self.get("ticketing-api", &ticket).await
                && ticket["status"] == "RESERVED"
            {
                return Ok(());
            }
            if let Some(payment) = self.get("payment-api", &payment).await
                && is_without_money(&payment)
            {
                return Err(Stop::With(Outcome::Lapsed(bill.id)));
            }
        }
    }

    async fn reserve(&self, user: i64, attempt: u32) -> Result<String, Stop> {
        let wish = json!({ "eventId": self.event, "userId": user });
        let key = format!("reserve-{attempt}");
        let path = "/ticketing/reserve";
        let told = self.post("ticketing-api", path, &key, wish).await;
        match (told.status, told.code()) {
            (409, "SOLD_OUT") => Err(Stop::With(Outcome::SoldOut(self.event))),
            // An earlier attempt of its own was granted; one of whose grant nobody knows.
            (409, "ALREADY_RESERVED") if told.is_late || attempt > 1 => {
                Err(Stop::With(Outcome::HeldUnknown))
            }
            _ => {
                let ticket = &self.expect(&told, 200)["ticketId"];
                Ok(ticket.as_str().unwrap().to_owned())
            }
        }
    }

    async fn process(&self, user: i64, ticket: &str) -> Result<(), Stop> {
        let point = match self.kind {
            Kind::PaysInPoints => PRICE,
            _ => POINTS_USED,
        };
        let purchase = json!({ "ticketId": ticket, "eventId": self.event, "userId": user,
            "totalAmount": PRICE, "point": point });
        let path = "/ticketing/process";
        let told = self.post("ticketing-api", path, ticket, purchase).await;
        match (told.status, told.code()) {
            (404, "RESERVATION_NOT_FOUND") | (409, "DEADLINE_PASSED") => Err(Stop::Afresh),
            _ => {
                self.expect(&told, 202);
                Ok(())
            }
        }
    }

    async fn release(&self, ticket: &str) {
        let path = format!("/ticketing/reserve/{ticket}");
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            self.check_time(&path);
            let Some(url) = self.deployment.any("ticketing-api") else {
                continue;
            };
            let asked = self.client.delete(format!("{url}{path}")).send().await;
            match asked.map(|answer| answer.status().as_u16()) {
                // What is not there is released: an attempt without an answer did it, or Redis lost it.
                Ok(204 | 404) => return,
                Ok(status) if status < 500 => panic!("{path} was told {status}"),
                _ => {}
            }
        }
    }

    /// Waits for the purchase's end; what is to be paid then.
    async fn follow(&self, ticket: &str, id: TicketId) -> Result<(String, i64), Stop> {
        let path = format!("/ticketing/process/{ticket}");
        self.look(
            "ticketing-api",
            &path,
            |progress| match progress["sagaState"].as_str()? {
                // It lapsed before it could be paid.
                "COMPLETED" if progress["failure"].is_string() => {
                    Some(Err(Stop::With(Outcome::Lapsed(id))))
                }
                "COMPLETED" => Some(Ok((
                    progress["paymentId"].as_str()?.to_owned(),
                    progress["finalAmount"].as_i64()?,
                ))),
                "COMPENSATED" => Some(Err(Stop::With(Outcome::Compensated(id)))),
                _ => None,
            },
        )
        .await
    }

    fn expect<'t>(&self, told: &'t Told, status: u16) -> &'t Value {
        let Self { name, kind, .. } = self;
        assert_eq!(told.status, status, "{name} ({kind:?}) was told {told:?}");
        &told.body
    }
}

/// Nothing was taken, or it came back.
fn is_without_money(payment: &Value) -> bool {
    match payment["status"].as_str() {
        Some("FAILED" | "DELETED" | "CANCELLED") => true,
        _ => payment["refund"] == "DONE",
    }
}

/// Puts a show on sale, and waits until it is.
pub async fn put_on_sale(deployment: &Deployment, name: &str, quantity: i64) -> i64 {
    let organiser = Buyer {
        deployment,
        client: client(),
        name: name.to_owned(),
        kind: Kind::Pays,
        event: 0,
        begun: Instant::now(),
    };
    let show = json!({ "name": "Show", "ticketQuantity": quantity, "price": PRICE });
    let told = organiser.post("event", "/event", "show", show).await;
    let event = organiser.expect(&told, 201)["id"].as_i64().unwrap();
    let stock = stock(deployment, event).await;
    assert_eq!(stock["available"], quantity, "{stock}");
    event
}

/// The stock of a show, once ticketing knows it.
pub async fn stock(deployment: &Deployment, event: i64) -> Value {
    let anyone = Buyer {
        deployment,
        client: client(),
        name: "anyone".to_owned(),
        kind: Kind::Pays,
        event,
        begun: Instant::now(),
    };
    let path = format!("/ticketing/event/{event}");
    anyone
        .look("ticketing-api", &path, |stock| {
            stock["available"].is_i64().then(|| stock.clone())
        })
        .await
}
