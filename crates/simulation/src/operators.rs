//! Operators and strangers: they put events on sale and change them, block users, replay and discard dead letters,
//! reconcile; and send webhooks and records that nobody asked for.

use std::{ops::Deref, sync::Arc};

use messaging::Message;
use serde_json::{Value, json};
use test_support::api::{ApiAnswer, ApiRequest};

use crate::{
    broker::Broker,
    buyers::{PRICE, Surroundings},
    database::Database,
    faults::Fault,
    world::pause,
};

const STATUSES: &[&str] = &["DONE", "ABORTED", "CANCELED", "EXPIRED", "IN_PROGRESS"];

#[derive(Clone)]
pub struct Operator {
    pub at: Surroundings,
    pub broker: Arc<Broker>,
    pub databases: Vec<Arc<Database>>,
}

impl Deref for Operator {
    type Target = Surroundings;

    fn deref(&self) -> &Surroundings {
        &self.at
    }
}

impl Operator {
    /// Puts `count` events with a few tickets each on sale.
    pub async fn open_sales(self, count: u64) {
        for number in 0..count {
            let quantity = self.world.between(1, 6) as i64;
            let request = ApiRequest::register_event("Show", quantity, PRICE)
                .with_key(format!("event-{number}"));
            if let Some(id) = self
                .network
                .insist(&request, 100)
                .await
                .and_then(|it| it.number_of("id"))
            {
                self.knowledge.events.lock().push(id);
            }
        }
    }

    /// Does something now and then, as long as there are faults.
    pub async fn work(self) {
        while self.world.is_stormy() {
            pause(self.world.between(500, 6_000)).await;
            let _ = match self.world.below(4) {
                0 => self.change_event().await.map(drop),
                1 => self.change_user().await.map(drop),
                2 => self.reconcile().await.map(drop),
                _ => self.tend_dead_letters("work").await,
            };
        }
    }

    async fn change_event(&self) -> Option<ApiAnswer> {
        let path = format!("/event/{}", self.any(&self.knowledge.events)?);
        let shown = self.network.send(&ApiRequest::get(&path)).await?;
        let version = shown.number_of("version")?;
        let quantity = self.world.between(0, 8);
        let body = json!({ "name": "Show", "ticketQuantity": quantity, "version": version });
        self.network.send(&ApiRequest::put(path, body)).await
    }

    async fn change_user(&self) -> Option<ApiAnswer> {
        let path = format!("/user/{}", self.any(&self.knowledge.users)?);
        let shown = self.network.send(&ApiRequest::get(&path)).await?;
        let status = *self.world.pick(&["ACTIVE", "ACTIVE", "INACTIVE"]);
        let body = json!({ "name": shown.text_of("name")?, "status": status, "version": shown.number_of("version")? });
        self.network.send(&ApiRequest::put(path, body)).await
    }

    async fn reconcile(&self) -> Option<ApiAnswer> {
        let request = ApiRequest::post("/payment/reconciliation", json!({}));
        self.network.send(&request).await
    }

    /// Replays or discards parked dead letters, at a process of the service that has them.
    pub async fn tend_dead_letters(&self, round: &str) -> Option<()> {
        for database in &self.databases {
            let text =
                "SELECT id, instr(letter, 'foreign') > 0 FROM dead_letter WHERE state = 'PARKED'";
            for (id, is_foreign) in rows(database, text) {
                let path = format!("/dead-letter/{id}");
                // Only what a stranger wrote may be dropped.
                let request = match is_foreign && self.world.below(2) == 0 {
                    true => ApiRequest::delete(path),
                    false => ApiRequest::post(format!("{path}/replay"), Value::Null),
                };
                self.world.step(format_args!(
                    "operator ({round}): {} {}",
                    request.method, request.path
                ));
                self.network.send_to(database.name, &request).await?;
            }
        }
        Some(())
    }

    /// Calls the gateway about what it refuses, and resumes what is parked.
    pub async fn resume_parked(&self) -> Option<()> {
        let text = "SELECT '/payment/' || payment_id || '/refund', TRUE FROM payment WHERE refund = 'PARKED'
            UNION ALL SELECT '/payment/stray/' || pg_payment_id || '/refund', TRUE FROM payment_stray WHERE refund = 'PARKED'
            UNION ALL SELECT '/saga/' || saga_id || '/resume', TRUE FROM saga WHERE parked IS NOT NULL";
        let parked = self.databases.iter().flat_map(|it| rows(it, text));
        for (path, _) in parked.collect::<Vec<_>>() {
            self.gateway.call_support();
            // A deposit goes back to an account, which its buyer may not have named.
            let account = json!({ "bank": "20", "accountNumber": "1", "holderName": "Kim" });
            let named = ApiRequest::put(format!("{path}-account"), account);
            self.network.send(&named).await?;
            self.network
                .send(&ApiRequest::post(path, Value::Null))
                .await?;
        }
        Some(())
    }

    /// Compares what is on sale with what the events and tickets leave, once nothing is pending.
    pub async fn compare_stocks(self) {
        let text = "SELECT event_id || ' ' || (quantity - sold), TRUE FROM allocation";
        let left = self.databases.iter().flat_map(|it| rows(it, text));
        for (left, _) in left.collect::<Vec<_>>() {
            let (event, left) = left.split_once(' ').unwrap();
            let stock = ApiRequest::get(format!("/ticketing/event/{event}"));
            let stock = self.network.insist(&stock, 100).await;
            let available = stock.and_then(|it| it.number_of("available"));
            if available.map(|it| it.to_string()) != Some(left.to_owned()) {
                self.world.fail(format_args!(
                    "event {event} has {left} tickets left, and {available:?} are on sale"
                ));
            }
        }
    }

    /// Sends webhooks about known payments, true or false.
    pub async fn send_webhooks(self) {
        for number in 0_u64.. {
            pause(self.world.between(200, 2_000)).await;
            if !self.world.is_stormy() {
                return;
            }
            let payments = self.knowledge.payments.lock().clone();
            if payments.is_empty() || !self.world.strikes(Fault::Webhook, "webhook") {
                continue;
            }
            let (payment, card) = self.world.pick(&payments).clone();
            let claimed = json!({ "paymentKey": card, "orderId": payment, "status": self.world.pick(STATUSES) });
            // Some come twice.
            let name = format!("webhook-{}", number / self.world.between(1, 2));
            let _ = self
                .network
                .send(&ApiRequest::webhook(&name, claimed))
                .await;
        }
    }

    /// Writes records to topics: copies under another id, parts of others, and what is no message.
    pub async fn write_records(self) {
        for number in 0_u64.. {
            pause(500).await;
            if !self.world.is_stormy() {
                return;
            }
            let Some(known) = self.broker.any_record() else {
                continue;
            };
            if !self.world.strikes(Fault::Foreign, &known.topic) {
                continue;
            }
            let mut message = Message::clone(&known);
            let mut id = format!("foreign-{number}");
            match self.world.below(6) {
                // As a relay that sends again under another id.
                0 => message.id.clone_from(&id),
                1 => message.payload = format!("{{\"foreign\":{number}}}"),
                2 => message.payload = "foreign, and no JSON".to_owned(),
                3 => {
                    message.payload = format!("\"foreign\0{number}\"");
                    id.push('\0');
                    message.key.push('\0');
                }
                4 => {
                    let size = self.world.between(10, 700_000) as usize;
                    message.payload = format!("{{\"foreign\":\"{}\"}}", "x".repeat(size));
                    id += &"long".repeat(1_000);
                }
                _ => {
                    message.payload = message
                        .payload
                        .chars()
                        .take(message.payload.chars().count() / 2)
                        .collect()
                }
            }
            if message.payload != known.payload {
                message.id = id;
                message.reissue = None;
            }
            self.broker.append(Arc::new(message));
        }
    }
}

/// A text and a flag of each row.
fn rows(database: &Database, text: &str) -> Vec<(String, bool)> {
    let file = database.file.lock();
    let mut statement = file.prepare_cached(text).unwrap();
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}
