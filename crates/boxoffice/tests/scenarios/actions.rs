//! The actions of buyers, organisers and operators on a [`TestApp`], one call each.

use contract::{PaymentId, SagaId, TicketId};
use serde_json::{Value, json};
use test_support::api::{self, ApiAnswer, ApiRequest};

use crate::test_app::TestApp;

/// The price of every ticket of [`TestApp::event`].
pub const PRICE: i64 = 1000;

/// A purchase whose payment can be settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    pub ticket: String,
    pub saga: String,
    pub payment: String,
    pub amount: i64,
}

/// The stock of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    pub quantity: i64,
    pub waiting: i64,
    pub completed: i64,
    pub available: i64,
    pub sold: i64,
}

/// A stock with `sold` equal to `completed`.
pub fn stock(quantity: i64, waiting: i64, completed: i64, available: i64) -> Stock {
    Stock {
        quantity,
        waiting,
        completed,
        available,
        sold: completed,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

pub fn saga_of(ticket: &str) -> SagaId {
    ticket.parse::<TicketId>().unwrap().purchase_saga()
}

pub fn expiry_of(ticket: &str) -> SagaId {
    ticket.parse::<TicketId>().unwrap().expire_saga()
}

pub fn payment_of(ticket: &str) -> PaymentId {
    PaymentId::of_saga(saga_of(ticket))
}

impl TestApp {
    /// Registers an event and waits until it is on sale.
    pub async fn event(&self, quantity: i64) -> i64 {
        let registered = self.call(ApiRequest::register_event("Show", quantity, PRICE));
        let event = registered.await.ok(201)["id"].as_i64().unwrap();
        self.stock_becomes(event, stock(quantity, 0, 0, quantity))
            .await;
        event
    }

    pub async fn user(&self, points: i64) -> i64 {
        let body = json!({ "name": "Buyer", "points": points });
        self.post("/user", body).await.ok(201)["id"]
            .as_i64()
            .unwrap()
    }

    /// Changes a user's status and fraud flag.
    pub async fn update_user(&self, user: i64, status: &str, flagged: bool) {
        let path = format!("/user/{user}");
        let version = self.get(&path).await.ok(200)["version"].clone();
        let body = json!({
            "name": "Buyer", "status": status, "flagged": flagged, "version": version,
        });
        self.put(&path, body).await.ok(200);
    }

    pub async fn reserve(&self, event: i64, user: i64) -> ApiAnswer {
        self.call(ApiRequest::reserve(event, user)).await
    }

    pub async fn reserved(&self, event: i64, user: i64) -> String {
        text(&self.reserve(event, user).await.ok(200)["ticketId"])
    }

    pub async fn release(&self, ticket: &str) -> ApiAnswer {
        self.call(ApiRequest::release(ticket)).await
    }

    pub async fn process(&self, ticket: &str, event: i64, user: i64, point: i64) -> ApiAnswer {
        let purchase = api::Purchase {
            ticket,
            event,
            user,
            total_amount: PRICE,
            points: point,
        };
        self.call(ApiRequest::process(purchase)).await
    }

    /// Waits until the purchase of a ticket is in this state.
    pub async fn progress_becomes(&self, ticket: &str, state: &str) -> Value {
        let path = format!("/ticketing/process/{ticket}");
        self.eventually(&path, |it| it["sagaState"] == state).await
    }

    /// Processes a reservation until its payment can be confirmed.
    pub async fn processed(&self, ticket: &str, event: i64, user: i64, point: i64) -> Purchase {
        self.process(ticket, event, user, point).await.ok(202);
        self.payable_purchase(ticket).await
    }

    /// Waits until the payment of a purchase can be confirmed.
    pub async fn payable_purchase(&self, ticket: &str) -> Purchase {
        let progress = self.progress_becomes(ticket, "COMPLETED").await;
        Purchase {
            ticket: ticket.to_owned(),
            saga: text(&progress["sagaId"]),
            payment: text(&progress["paymentId"]),
            amount: progress["finalAmount"].as_i64().unwrap(),
        }
    }

    pub async fn purchase(&self, event: i64, user: i64, point: i64) -> Purchase {
        let ticket = self.reserved(event, user).await;
        self.processed(&ticket, event, user, point).await
    }

    pub async fn pay(&self, purchase: &Purchase, card: &str) -> ApiAnswer {
        self.call(confirmation(purchase, card)).await
    }

    /// Pays and waits until the ticket is issued.
    pub async fn paid(&self, purchase: &Purchase, card: &str) {
        let answer = self.pay(purchase, card).await.ok(200);
        assert_eq!(answer["succeeded"], true, "{answer}");
        self.ticket_becomes(purchase, "RESERVED").await;
    }

    /// As [`TestApp::pay`], under an idempotency key.
    pub async fn pay_by_key(&self, purchase: &Purchase, card: &str, key: &str) -> ApiAnswer {
        self.call(confirmation(purchase, card).with_key(key)).await
    }

    /// Advances the clock until the payment has succeeded and the ticket is issued; the card was charged once.
    pub async fn is_bought(&self, purchase: &Purchase, card: &str) {
        self.payment_becomes_in_time(purchase, "SUCCEEDED").await;
        self.ticket_becomes(purchase, "RESERVED").await;
        let charge = ("DONE".to_owned(), purchase.amount, purchase.amount);
        assert_eq!(self.gateway.charge(card), Some(charge));
    }

    /// Advances the clock until the payment is refunded; there is no valid ticket.
    pub async fn is_refunded(&self, purchase: &Purchase, card: &str) {
        let payment = self.payment_becomes_in_time(purchase, "CANCELLED").await;
        assert_eq!(payment["refund"], "DONE");
        self.wait_until_idle().await;
        let charge = ("CANCELED".to_owned(), purchase.amount, 0);
        assert_eq!(self.gateway.charge(card), Some(charge));
        let ticket = self.get(&format!("/ticket/{}", purchase.ticket)).await;
        assert_ne!(ticket.body["status"], "RESERVED", "{ticket:?}");
    }

    /// Requests a virtual account for a purchase.
    pub async fn open_virtual_account(&self, purchase: &Purchase, key: &str) {
        let gateway = &self.gateway.client;
        gateway
            .request_account(&purchase.payment, key, purchase.amount)
            .await;
    }

    /// Delivers a webhook about a payment, genuine or forged.
    pub async fn deliver_webhook(&self, transmission: &str, data: &Value) -> ApiAnswer {
        self.call(ApiRequest::webhook(transmission, data.clone()))
            .await
    }

    pub async fn ticket_becomes(&self, purchase: &Purchase, status: &str) {
        let path = format!("/ticket/{}", purchase.ticket);
        self.eventually(&path, |it| it["status"] == status).await;
    }

    /// Requests the cancellation of a ticket.
    pub async fn cancel(&self, purchase: &Purchase) -> ApiAnswer {
        self.call(ApiRequest::cancel_ticket(&purchase.ticket)).await
    }

    /// Advances the clock until the ticket's last cancellation is in this state.
    pub async fn cancellation_becomes(&self, purchase: &Purchase, state: &str) -> Value {
        let path = format!("/ticket/{}/cancel", purchase.ticket);
        self.advance_until(&path, |it| it["sagaState"] == state)
            .await
    }

    /// As [`TestApp::pay`], with a card that the gateway refuses.
    pub async fn pay_with_refused_card(&self, purchase: &Purchase, card: &str) -> ApiAnswer {
        let request = confirmation(purchase, card);
        self.call(request.with_test_code("REJECT_CARD_PAYMENT"))
            .await
    }

    pub async fn payment(&self, purchase: &Purchase) -> Value {
        self.get(&format!("/payment/{}", purchase.payment))
            .await
            .ok(200)
    }

    pub async fn payment_becomes(&self, purchase: &Purchase, status: &str) -> Value {
        let path = format!("/payment/{}", purchase.payment);
        self.eventually(&path, |it| it["status"] == status).await
    }

    /// As [`TestApp::payment_becomes`], and advances the clock.
    pub async fn payment_becomes_in_time(&self, purchase: &Purchase, status: &str) -> Value {
        let path = format!("/payment/{}", purchase.payment);
        self.advance_until(&path, |it| it["status"] == status).await
    }

    /// The statuses of a payment in order.
    pub async fn payment_history(&self, purchase: &Purchase) -> Vec<String> {
        let payment = self.payment(purchase).await;
        let history = payment["history"].as_array().unwrap();
        history.iter().map(|entry| text(&entry["status"])).collect()
    }

    pub async fn has_no_ticket(&self, ticket: &str) {
        let answer = self.get(&format!("/ticket/{ticket}")).await;
        answer.refused(404, "TICKET_NOT_FOUND");
    }

    pub async fn stock(&self, event: i64) -> Stock {
        read_stock(&self.get(&format!("/ticketing/event/{event}")).await.ok(200))
    }

    pub async fn stock_becomes(&self, event: i64, wanted: Stock) {
        let path = format!("/ticketing/event/{event}");
        let is_there = |it: &Value| it["quantity"].is_i64() && read_stock(it) == wanted;
        self.eventually(&path, is_there).await;
    }

    pub async fn points(&self, user: i64) -> i64 {
        let answer = self.get(&format!("/user/{user}")).await.ok(200);
        answer["points"].as_i64().unwrap()
    }

    pub async fn points_become(&self, user: i64, points: i64) {
        let path = format!("/user/{user}");
        self.eventually(&path, |it| it["points"] == points).await;
    }

    /// A user's point ledger: kind, amount and balance of each entry.
    pub async fn ledger(&self, user: i64) -> Vec<(String, i64, i64)> {
        let page = self.get(&format!("/user/{user}/points")).await.ok(200);
        let entries = page["items"].as_array().unwrap().iter();
        entries
            .map(|entry| {
                let number = |name: &str| entry[name].as_i64().unwrap();
                (
                    text(&entry["kind"]),
                    number("amount"),
                    number("balanceAfter"),
                )
            })
            .collect()
    }

    /// A saga's steps and their states.
    pub async fn steps(&self, saga: SagaId) -> Vec<(String, String)> {
        let saga = self.get(&format!("/saga/{saga}")).await.ok(200);
        let steps = saga["stepHistory"].as_array().unwrap().iter();
        steps
            .map(|step| (text(&step["name"]), text(&step["state"])))
            .collect()
    }

    pub async fn dead_letters(&self, state: &str) -> Vec<Value> {
        let page = self
            .get(&format!("/dead-letter?limit=500&state={state}"))
            .await;
        page.ok(200)["items"].as_array().unwrap().clone()
    }

    /// Waits until there is one dead letter in this state.
    pub async fn dead_letter(&self, state: &str) -> Value {
        let path = format!("/dead-letter?limit=500&state={state}");
        let count = |page: &Value| page["items"].as_array().map_or(0, Vec::len);
        let page = self.eventually(&path, |page| count(page) > 0).await;
        assert_eq!(count(&page), 1, "{page}");
        page["items"][0].clone()
    }
}

/// The request that confirms a payment.
pub fn confirmation(purchase: &Purchase, card: &str) -> ApiRequest {
    ApiRequest::confirm(&purchase.payment, card, purchase.amount)
}

/// Owned pairs, for comparison with [`TestApp::steps`].
pub fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter()
        .map(|(one, other)| ((*one).to_owned(), (*other).to_owned()))
        .collect()
}

/// Owned entries, for comparison with [`TestApp::ledger`].
pub fn entries(of: &[(&str, i64, i64)]) -> Vec<(String, i64, i64)> {
    of.iter()
        .map(|(kind, amount, after)| ((*kind).to_owned(), *amount, *after))
        .collect()
}

fn read_stock(body: &Value) -> Stock {
    let number = |name: &str| body[name].as_i64().unwrap();
    Stock {
        quantity: number("quantity"),
        waiting: number("waiting"),
        completed: number("completed"),
        available: number("available"),
        sold: number("sold"),
    }
}
