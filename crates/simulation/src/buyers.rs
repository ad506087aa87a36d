//! Buyers, over the routes of the API: they repeat requests with and without a key, click twice, pay twice, cancel, release,
//! and go away at any point.
//!
//! State: what the answers told them, which must be true at the end.

use std::{ops::Deref, sync::Arc};

use messaging::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use test_support::api::{ApiAnswer, ApiRequest, Purchase};

use crate::{
    faults::Fault,
    gateway::Gateway,
    network::Network,
    world::{World, pause},
};

pub const PRICE: i64 = 1_000;
/// How often a buyer sends a request that is not answered.
const TRIES: u32 = 12;
const POLLS: usize = 40;

/// What somebody was told, and is to be held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The payment of this ticket succeeded.
    Paid { ticket: String, payment: String },
    /// The reservation is given back.
    Released { ticket: String },
}

/// What buyers know, for checks and for those who send webhooks.
#[derive(Default)]
pub struct Knowledge {
    pub events: Mutex<Vec<i64>>,
    pub users: Mutex<Vec<i64>>,
    /// Payments with the keys at the gateway that were used for them.
    pub payments: Mutex<Vec<(String, String)>>,
    pub told: Mutex<Vec<Told>>,
}

/// What people reach, and know.
#[derive(Clone)]
pub struct Surroundings {
    pub world: Arc<World>,
    pub network: Network,
    pub gateway: Gateway,
    pub knowledge: Arc<Knowledge>,
}

impl Surroundings {
    pub fn any(&self, ids: &Mutex<Vec<i64>>) -> Option<i64> {
        let ids = ids.lock();
        (!ids.is_empty()).then(|| *self.world.pick(&ids))
    }
}

pub struct Buyer {
    pub name: String,
    pub at: Surroundings,
}

impl Deref for Buyer {
    type Target = Surroundings;

    fn deref(&self) -> &Surroundings {
        &self.at
    }
}

/// A purchase that can be paid.
struct Payable {
    ticket: String,
    payment: String,
    amount: i64,
}

impl Buyer {
    pub async fn act(self) {
        pause(self.world.between(0, 40_000)).await;
        let points = 300 * self.world.between(0, 5) as i64;
        let register = ApiRequest::register_user(&self.name, "ACTIVE", points)
            .with_key(format!("{}-user", self.name));
        let registered = self.network.insist(&register, TRIES).await;
        let Some(user) = registered.and_then(|it| it.number_of("id")) else {
            return;
        };
        self.knowledge.users.lock().push(user);
        for round in 0..self.world.between(1, 3) {
            let _ = self.buy(user, round).await;
            pause(self.world.between(0, 3_000)).await;
        }
        self.world.step(format_args!("{} is done", self.name));
    }

    fn key(&self, round: u64, step: &str) -> String {
        format!("{}-{round}-{step}", self.name)
    }

    /// `None` if the buyer went away.
    async fn buy(&self, user: i64, round: u64) -> Option<()> {
        let event = self.any(&self.knowledge.events)?;
        let (ticket, expires_at) = self.reserve(event, user, round).await?;
        match self.world.below(8) {
            0 => return None,
            1 => return self.release(&ticket).await,
            _ => {}
        }
        let payable = self
            .process(event, user, round, &ticket, expires_at)
            .await?;
        match self.world.below(10) {
            0 => return None,
            1 => return self.release(&ticket).await,
            2 => self.pay_twice(round, &payable).await?,
            3 => {
                let wrong = Payable {
                    amount: payable.amount + 1,
                    ticket: ticket.clone(),
                    payment: payable.payment.clone(),
                };
                let _ = self.pay(round, &wrong, "wrong").await;
                self.pay(round, &payable, "card").await?;
            }
            5 => self.deposit(round, &payable).await?,
            // In two tabs of a browser.
            4 => {
                let paying = self.pay(round, &payable, "card");
                let (paid, released) = futures::join!(paying, self.release(&ticket));
                paid.or(released)?;
            }
            _ => self.pay(round, &payable, "card").await?,
        }
        if self.world.below(4) == 0 {
            let mut cancel = ApiRequest::cancel_ticket(&ticket).with_key(self.key(round, "cancel"));
            cancel.body = json!({ "userId": user });
            self.network.insist(&cancel, TRIES).await?;
        }
        Some(())
    }

    /// The ticket, and until when it is held for sure.
    async fn reserve(&self, event: i64, user: i64, round: u64) -> Option<(String, Timestamp)> {
        let request = ApiRequest::reserve(event, user);
        let answer = match self.world.below(4) {
            0 => self.network.send(&request).await?,
            _ => {
                self.network
                    .insist(&request.with_key(self.key(round, "reserve")), TRIES)
                    .await?
            }
        };
        let ticket = answer.text_of("ticketId")?.to_owned();
        // What a refusal names may not be stored yet.
        let holds_until = match answer.status {
            200 => answer.text_of("expiresAt")?.parse().ok()?,
            _ => Timestamp::from_millis(0),
        };
        Some((ticket, holds_until))
    }

    async fn release(&self, ticket: &str) -> Option<()> {
        let answer = self
            .network
            .insist(&ApiRequest::release(ticket), TRIES)
            .await?;
        if answer.status < 300 {
            self.knowledge.told.lock().push(Told::Released {
                ticket: ticket.to_owned(),
            });
        }
        Some(())
    }

    async fn process(
        &self,
        event: i64,
        user: i64,
        round: u64,
        ticket: &str,
        expires_at: Timestamp,
    ) -> Option<Payable> {
        let purchase = Purchase {
            ticket,
            event,
            user,
            total_amount: PRICE,
            points: *self.world.pick(&[0, 300, 600, PRICE]),
        };
        let request = ApiRequest::process(purchase).with_key(self.key(round, "process"));
        let begun = self.network.insist(&request, TRIES).await?;
        self.reservation_holds(&begun, expires_at);
        if begun.status >= 300 {
            return None;
        }
        let show = ApiRequest::get(format!("/ticketing/process/{ticket}"));
        for _ in 0..POLLS {
            pause(self.world.between(300, 1_500)).await;
            let Some(progress) = self.network.send(&show).await else {
                continue;
            };
            match progress.text_of("sagaState") {
                Some("COMPENSATED") => return None,
                Some("COMPLETED") => {
                    return Some(Payable {
                        ticket: ticket.to_owned(),
                        payment: progress.text_of("paymentId")?.to_owned(),
                        amount: progress.number_of("finalAmount")?,
                    });
                }
                _ => {}
            }
        }
        None
    }

    /// A reservation that its buyer was told of stands until its deadline, unless Redis lost it or clocks disagree.
    fn reservation_holds(&self, begun: &ApiAnswer, expires_at: Timestamp) {
        let coverage = self.world.coverage();
        let may_be_gone = [
            Fault::RedisEmpty,
            Fault::RedisOld,
            Fault::ClockForward,
            Fault::ClockBack,
        ];
        let is_early = self.world.now() < expires_at;
        let is_gone = begun.code() == "RESERVATION_NOT_FOUND";
        if is_gone && is_early && !may_be_gone.iter().any(|fault| coverage.has(*fault)) {
            self.world
                .fail(format_args!("{} lost its reservation", self.name));
        }
    }

    /// Sends one attempt until it is decided.
    async fn pay(&self, round: u64, payable: &Payable, card: &str) -> Option<()> {
        let is_alone = !matches!(card, "one" | "other");
        let card = self.key(round, card);
        self.knowledge
            .payments
            .lock()
            .push((payable.payment.clone(), card.clone()));
        // Nobody charges a card that another payment names, for nothing.
        let named = match payable.amount {
            0 => self.world.pick(&self.knowledge.payments.lock()).1.clone(),
            _ => card.clone(),
        };
        let mut request = ApiRequest::confirm(&payable.payment, &named, payable.amount);
        if self.world.below(4) == 0 {
            let account = json!({ "bank": "20", "accountNumber": "1", "holderName": "Kim" });
            request.body["refundAccount"] = account;
        }
        if self.world.below(4) > 0 {
            request = request.with_key(format!("{card}-confirm"));
        }
        let answer = self.network.insist(&request, TRIES).await?;
        if answer.status == 200 && is_alone {
            self.reads_what_was_answered(payable, &card).await;
        }
        if answer.status == 200 && answer.body["succeeded"] == true {
            let (ticket, payment) = (payable.ticket.clone(), payable.payment.clone());
            self.knowledge
                .told
                .lock()
                .push(Told::Paid { ticket, payment });
        }
        Some(())
    }

    /// Pays into a virtual account, soon, late or never; the bank may take it back.
    async fn deposit(&self, round: u64, payable: &Payable) -> Option<()> {
        let key = self.key(round, "account");
        let account = json!({ "orderId": payable.payment, "paymentKey": key, "amount": payable.amount, "method": "VIRTUAL_ACCOUNT" });
        self.gateway.perform("payments", account).await;
        self.pay(round, payable, "account").await?;
        for action in ["deposit", "withdraw"] {
            pause(self.world.between(0, 25_000)).await;
            if self.world.below(4) == 0 {
                break;
            }
            let path = format!("payments/{key}/{action}");
            self.gateway.perform(&path, json!(null)).await;
            let changed =
                json!({ "paymentKey": key, "orderId": payable.payment, "status": "DONE" });
            let webhook = ApiRequest::webhook(&format!("{key}-{action}"), changed);
            self.network.insist(&webhook, TRIES).await;
        }
        Some(())
    }

    /// Once an attempt is answered, its payment shows how it ended.
    async fn reads_what_was_answered(&self, payable: &Payable, card: &str) {
        let show = ApiRequest::get(format!("/payment/{}", payable.payment));
        let shown = self.network.send(&show).await;
        if shown.is_some_and(|it| it.text_of("status") == Some("CONFIRMING")) {
            self.world
                .fail(format_args!("{card} was answered, and is still confirming"));
        }
    }

    async fn pay_twice(&self, round: u64, payable: &Payable) -> Option<()> {
        let (one, other) = futures::join!(
            self.pay(round, payable, "one"),
            self.pay(round, payable, "other")
        );
        one.or(other)
    }
}
