//! The control API for the buyer, the bank and the tester. It has no authentication: bind the sandbox to an address that
//! only testers reach.

mod request;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::faults::script::FaultScript;
use super::payment::{Change, Method, Payment};
use super::routes::answer::{Answered, json, named};
use super::rules;
use super::shared::Shared;
use super::state::outbox::{self, WebhookView};
use super::state::{StoredAnswer, movements, payments};
use super::webhooks::schedule::DeliveryState;
use request::{NewPayment, WebhookAddress, bad, read};
use toss::protocol::{CancelBody, RefundAccount};
use toss::{ChargeStatus, ErrorCode};

/// Enough for a script of a thousand rules.
const SCRIPT_BYTES_MAX: usize = 256 * 1024;

pub(super) fn router() -> Router<Arc<Shared>> {
    let faults = get(faults).put(set_faults).delete(clear_faults);
    let actions = Router::new()
        .route("/authenticate", act(rules::authenticate))
        .route("/abort", act(|payment, _| rules::abort(payment)))
        .route("/deposit", act(rules::deposit))
        .route("/withdraw", act(|payment, _| rules::withdraw(payment)))
        .route("/cancel-by-merchant", act(cancel_by_merchant));
    Router::new()
        .route("/sandbox/payments", post(create))
        .nest("/sandbox/payments/{payment_key}", actions)
        .route("/sandbox/books", get(totals))
        .route(
            "/sandbox/faults",
            faults.layer(DefaultBodyLimit::max(SCRIPT_BYTES_MAX)),
        )
        .route("/sandbox/webhooks", get(webhooks).put(send_webhooks_to))
}

async fn create(State(shared): State<Arc<Shared>>, bytes: Bytes) -> Answered {
    let new = read::<NewPayment>(&bytes)?.check()?;
    let created = shared.within(|transaction, now| {
        let count = payments::count_of_order(transaction, &new.order_id)?;
        let key = new
            .payment_key
            .clone()
            .unwrap_or_else(|| format!("sandbox_{}_{}", new.order_id, count + 1));
        if payments::find_by_key(transaction, &key)?.is_some() {
            let problem = format!("paymentKey: {key} was requested before");
            return Ok(named(409, "DUPLICATED_PAYMENT_KEY", problem));
        }
        let change = requested(&new, key, now);
        shared.apply(transaction, &change, now)?;
        Ok(json(200, &change.payment.body()))
    });
    Ok(created?)
}

fn requested(new: &NewPayment, key: String, now: Timestamp) -> Change {
    let mut payment = rules::request(key, new.order_id.clone(), new.amount, new.method, now);
    payment.due_secs = new.due_secs;
    if new.method == Method::VirtualAccount {
        let secret = Uuid::new_v4().simple().to_string();
        let digits = secret[secret.len() - 14..].bytes();
        let digits = digits.map(|byte| char::from(b'0' + byte % 10));
        payment.account_number = Some(digits.collect());
        payment.secret = Some(secret);
    }
    if new.authenticated {
        rules::authenticate(payment, now).expect("it was requested just now")
    } else {
        rules::unmoved(payment)
    }
}

fn cancel_by_merchant(payment: Payment, now: Timestamp) -> Result<Change, ChargeStatus> {
    let body = CancelBody {
        cancel_reason: "cancelled in the gateway's console".to_owned(),
        cancel_amount: None,
        refund_receive_account: Some(RefundAccount {
            bank: "20".to_owned(),
            account_number: "0".to_owned(),
            holder_name: "sandbox".to_owned(),
        }),
    };
    let status = payment.status.clone();
    rules::cancel(&body, Some(payment), now).map_err(|_| status)
}

/// A route that applies a rule to a payment.
fn act(
    rule: impl Fn(Payment, Timestamp) -> Result<Change, ChargeStatus> + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<Shared>> {
    post(
        move |State(shared): State<Arc<Shared>>, Path(payment_key): Path<String>| async move {
            apply(&shared, &payment_key, rule)
        },
    )
}

fn apply(
    shared: &Shared,
    payment_key: &str,
    rule: impl FnOnce(Payment, Timestamp) -> Result<Change, ChargeStatus>,
) -> Answered {
    let done = shared.within(|transaction, now| {
        let Some(payment) = payments::find_by_key(transaction, payment_key)? else {
            let problem = format!("paymentKey: there is no payment {payment_key}");
            return Ok(named(404, ErrorCode::NOT_FOUND_PAYMENT.name(), problem));
        };
        match rule(payment, now) {
            Ok(change) => {
                shared.apply(transaction, &change, now)?;
                Ok(json(200, &change.payment.body()))
            }
            Err(status) => {
                let status = status.as_str();
                let problem = format!("status: a payment that is {status} cannot do that");
                Ok(named(409, "WRONG_STATUS", problem))
            }
        }
    });
    Ok(done?)
}

async fn totals(State(shared): State<Arc<Shared>>) -> Answered {
    let totals = shared.within(|transaction, _| movements::totals(transaction))?;
    Ok(json(200, &totals))
}

async fn faults(State(shared): State<Arc<Shared>>) -> StoredAnswer {
    json(200, &shared.faults.script())
}

async fn set_faults(State(shared): State<Arc<Shared>>, bytes: Bytes) -> Answered {
    let script = FaultScript::parse(&bytes).map_err(|error| bad(&error.field, &error.problem))?;
    shared.faults.load(script);
    Ok(json(200, &shared.faults.script()))
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.faults.load(FaultScript::default());
    StatusCode::NO_CONTENT
}

/// All webhooks by their state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Webhooks {
    url: Option<String>,
    pending: Vec<WebhookView>,
    delivered: Vec<WebhookView>,
    given_up: Vec<WebhookView>,
}

async fn webhooks(State(shared): State<Arc<Shared>>) -> Answered {
    let listed = shared.within(|transaction, _| {
        Ok(Webhooks {
            url: shared.sender.url(),
            pending: outbox::list(transaction, DeliveryState::Pending)?,
            delivered: outbox::list(transaction, DeliveryState::Delivered)?,
            given_up: outbox::list(transaction, DeliveryState::GivenUp)?,
        })
    });
    Ok(json(200, &listed?))
}

async fn send_webhooks_to(State(shared): State<Arc<Shared>>, bytes: Bytes) -> Answered {
    let address: WebhookAddress = read(&bytes)?;
    let changed = shared.sender.send_to(address.url);
    changed.map_err(|error| bad("url", &error.to_string()))?;
    webhooks(State(shared)).await
}
