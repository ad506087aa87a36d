//! The HTTP API as a buyer's client sees it. It owns the buyers' connections.

use std::{fmt::Display, time::Duration};

use anyhow::{Context, bail};
use contract::{
    EventId, Money, PaymentId, Points, TicketId, UserId,
    domain::{PaymentStatus, TicketStatus},
};
use reqwest::{Method, RequestBuilder};
use saga::SagaState;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::personas::{Behaviour, Card, Persona};
use crate::client::{self, ServerAnswer, ServerClient};

/// A request that takes longer fails the demo.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Makes the gateway's sandbox answer with this error.
const TEST_CODE_HEADER: &str = "TossPayments-Test-Code";
const DECLINE: &str = "REJECT_CARD_PAYMENT";
/// More than any buyer of the demo has.
const LEDGER_ROWS: u32 = 500;

/// The buyers' client.
pub struct Api(ServerClient);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub saga_state: SagaState,
    pub payment_id: Option<PaymentId>,
    pub final_amount: Option<Money>,
    pub failure: Option<String>,
}

/// What a buyer has to pay.
#[derive(Debug, Clone, Copy)]
pub struct Bill {
    pub ticket_id: TicketId,
    pub payment_id: PaymentId,
    pub amount: Money,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Stock {
    pub quantity: i64,
    pub waiting: i64,
    pub completed: i64,
    pub available: i64,
    pub sold: i64,
}

#[derive(Debug, Deserialize)]
pub struct LedgerEntry {
    pub kind: user::ledger::EntryKind,
    /// Negative if points were taken.
    pub amount: i64,
}

impl Api {
    pub fn new(client: ServerClient) -> Self {
        Self(client)
    }

    pub fn url(&self) -> &str {
        self.0.url()
    }

    pub async fn register_event(
        &self,
        name: &str,
        quantity: u32,
        price: Money,
    ) -> anyhow::Result<EventId> {
        #[derive(Deserialize)]
        struct Registered {
            id: EventId,
        }
        let body = json!({ "name": name, "ticketQuantity": quantity, "price": price });
        let call = self.post("/event").json(&body);
        let Registered { id } = done(call, "registering the event").await?;
        Ok(id)
    }

    pub async fn register_user(&self, persona: &Persona) -> anyhow::Result<UserId> {
        #[derive(Deserialize)]
        struct Registered {
            id: UserId,
            version: i64,
        }
        let name = &persona.name;
        let is_active = persona.behaviour != Behaviour::Inactive;
        let status = if is_active { "ACTIVE" } else { "INACTIVE" };
        let body = json!({ "name": name, "status": status, "points": persona.balance });
        let call = self.post("/user").json(&body);
        let Registered { id, version } = done(call, format_args!("registering {name}")).await?;
        if persona.behaviour == Behaviour::Flagged {
            let body =
                json!({ "name": name, "status": status, "flagged": true, "version": version });
            let call = self
                .request(Method::PUT, &format!("/user/{id}"))
                .json(&body);
            done::<serde_json::Value>(call, format_args!("flagging {name}")).await?;
        }
        Ok(id)
    }

    pub async fn reserve(&self, event_id: EventId, user_id: UserId) -> ServerAnswer<TicketId> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Reserved {
            ticket_id: TicketId,
        }
        let body = json!({ "eventId": event_id, "userId": user_id });
        let call = self.post("/ticketing/reserve").json(&body);
        let answer = ask(call, format_args!("reserving for user {user_id}")).await?;
        Ok(answer.map(|reserved: Reserved| reserved.ticket_id))
    }

    /// Starts the purchase.
    pub async fn process(
        &self,
        ticket_id: TicketId,
        (event_id, user_id): (EventId, UserId),
        (total_amount, point): (Money, Points),
    ) -> ServerAnswer<()> {
        let body = json!({
            "ticketId": ticket_id, "eventId": event_id, "userId": user_id,
            "totalAmount": total_amount, "point": point,
        });
        let call = self.post("/ticketing/process").json(&body);
        let answer = ask(call, format_args!("starting the purchase of {ticket_id}")).await?;
        Ok(answer.map(|_: serde_json::Value| ()))
    }

    /// The purchase's current state.
    pub async fn progress(&self, ticket_id: TicketId) -> ServerAnswer<Progress> {
        let call = self.get(&format!("/ticketing/process/{ticket_id}"));
        ask(call, format_args!("following the purchase of {ticket_id}")).await
    }

    /// Pays; `None` if the gateway's answer is not known yet.
    pub async fn pay(&self, bill: Bill, attempt: usize, card: Card) -> ServerAnswer<Option<bool>> {
        #[derive(Deserialize)]
        struct Paid {
            succeeded: Option<bool>,
        }
        let Bill {
            ticket_id,
            payment_id,
            amount,
        } = bill;
        let body = json!({
            "paymentId": payment_id, "pgPaymentId": format!("demo-{ticket_id}-{attempt}"),
            "amount": amount,
        });
        let call = self.post("/payment/confirmed").json(&body);
        let call = match card {
            Card::Good => call,
            Card::Declined => call.header(TEST_CODE_HEADER, DECLINE),
        };
        let answer = ask(call, format_args!("paying for {ticket_id}")).await?;
        Ok(answer.map(|paid: Paid| paid.succeeded))
    }

    pub async fn payment_status(&self, payment_id: PaymentId) -> anyhow::Result<PaymentStatus> {
        #[derive(Deserialize)]
        struct Shown {
            status: PaymentStatus,
        }
        let call = self.get(&format!("/payment/{payment_id}"));
        let Shown { status } = done(call, format_args!("reading payment {payment_id}")).await?;
        Ok(status)
    }

    /// `None` if it is not issued.
    pub async fn ticket(&self, ticket_id: TicketId) -> anyhow::Result<Option<TicketStatus>> {
        #[derive(Deserialize)]
        struct Shown {
            status: TicketStatus,
        }
        let call = self.get(&format!("/ticket/{ticket_id}"));
        let answer = ask(call, format_args!("reading ticket {ticket_id}")).await?;
        Ok(answer.ok().map(|shown: Shown| shown.status))
    }

    /// `None` if the ticketing service does not know the event yet.
    pub async fn stock(&self, event_id: EventId) -> anyhow::Result<Option<Stock>> {
        let call = self.get(&format!("/ticketing/event/{event_id}"));
        Ok(
            ask(call, format_args!("reading the stock of event {event_id}"))
                .await?
                .ok(),
        )
    }

    pub async fn ledger(&self, user_id: UserId) -> anyhow::Result<Vec<LedgerEntry>> {
        #[derive(Deserialize)]
        struct Listed {
            items: Vec<LedgerEntry>,
        }
        let call = self.get(&format!("/user/{user_id}/points?limit={LEDGER_ROWS}"));
        let doing = format_args!("reading the points of user {user_id}");
        let Listed { items } = done(call, doing).await?;
        Ok(items)
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.0.request(method, path).timeout(REQUEST_TIMEOUT)
    }
}

/// Sends a request that the server may refuse with 4xx other than 400.
async fn ask<T: DeserializeOwned>(call: RequestBuilder, doing: impl Display) -> ServerAnswer<T> {
    match client::send(call)
        .await
        .with_context(|| doing.to_string())?
    {
        Err(refusal) if refusal.status == 400 || refusal.status >= 500 => {
            bail!("{doing}: {refusal}")
        }
        answer => Ok(answer),
    }
}

/// Sends a request; a refusal is an error.
async fn done<T: DeserializeOwned>(call: RequestBuilder, doing: impl Display) -> anyhow::Result<T> {
    match ask(call, &doing).await? {
        Ok(answer) => Ok(answer),
        Err(refusal) => bail!("{doing}: {refusal}"),
    }
}
