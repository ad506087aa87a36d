//! The control API for the buyer, the bank and the tester. It has no authentication: bind the sandbox to an address that
//! only testers reach.

mod request;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::faults::script::FaultScript;
use super::payment::{Change, Method, Payment, Status};
use super::routes::answer::{file_error, json, named, respond};
use super::rules::{self, Requested};
use super::shared::Shared;
use super::state::outbox::{self, WebhookView};
use super::state::{StoredAnswer, movements, payments};
use super::webhooks::schedule::DeliveryState;
use request::{NewPayment, WebhookAddress, bad, read};
use toss::ErrorCode;
use toss::protocol::{CancelBody, RefundAccount};

/// Enough for a script of a thousand rules.
const SCRIPT_BYTES_MAX: usize = 256 * 1024;

pub(super) fn router() -> Router<Arc<Shared>> {
    let faults = get(faults).put(set_faults).delete(clear_faults);
    Router::new()
        .route("/sandbox/payments", post(create))
        .route(
            "/sandbox/payments/{payment_key}/authenticate",
            post(authenticate),
        )
        .route("/sandbox/payments/{payment_key}/abort", post(abort))
        .route("/sandbox/payments/{payment_key}/deposit", post(deposit))
        .route("/sandbox/payments/{payment_key}/withdraw", post(withdraw))
        .route(
            "/sandbox/payments/{payment_key}/cancel-by-merchant",
            post(cancel_by_merchant),
        )
        .route("/sandbox/books", get(totals))
        .route(
            "/sandbox/faults",
            faults.layer(DefaultBodyLimit::max(SCRIPT_BYTES_MAX)),
        )
        .route("/sandbox/webhooks", get(webhooks).put(send_webhooks_to))
}

async fn create(State(shared): State<Arc<Shared>>, bytes: Bytes) -> Response {
    let new = match read::<NewPayment>(&bytes).and_then(NewPayment::check) {
        Ok(new) => new,
        Err(refusal) => return respond(refusal),
    };
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
    created.map_or_else(|error| file_error(&error), respond)
}

fn requested(new: &NewPayment, key: String, now: Timestamp) -> Change {
    let has_account = new.method == Method::VirtualAccount;
    let secret = Uuid::new_v4().simple().to_string();
    let digits = |text: &str| {
        text.bytes()
            .map(|byte| char::from(b'0' + byte % 10))
            .collect()
    };
    let account_number: String = digits(&secret[secret.len() - 14..]);
    let payment = rules::request(
        Requested {
            key,
            order_id: new.order_id.clone(),
            amount: new.amount,
            method: new.method,
            due_secs: new.due_secs,
            account_number: has_account.then_some(account_number),
            secret: has_account.then_some(secret),
        },
        now,
    );
    if !new.authenticated {
        return Change::without_money(payment);
    }
    rules::authenticate(payment, now).expect("it was requested just now")
}

async fn authenticate(shared: State<Arc<Shared>>, payment_key: Path<String>) -> Response {
    act(&shared, &payment_key, rules::authenticate)
}

async fn abort(shared: State<Arc<Shared>>, payment_key: Path<String>) -> Response {
    act(&shared, &payment_key, |payment, _| rules::abort(payment))
}

async fn deposit(shared: State<Arc<Shared>>, payment_key: Path<String>) -> Response {
    act(&shared, &payment_key, rules::deposit)
}

async fn withdraw(shared: State<Arc<Shared>>, payment_key: Path<String>) -> Response {
    act(&shared, &payment_key, |payment, _| rules::withdraw(payment))
}

async fn cancel_by_merchant(shared: State<Arc<Shared>>, payment_key: Path<String>) -> Response {
    act(&shared, &payment_key, |payment, now| {
        let body = CancelBody {
            cancel_reason: "cancelled in the gateway's console".to_owned(),
            cancel_amount: None,
            refund_receive_account: Some(RefundAccount {
                bank: "20".to_owned(),
                account_number: "0".to_owned(),
                holder_name: "sandbox".to_owned(),
            }),
        };
        let status = payment.status;
        rules::cancel(&body, Some(payment), now).map_err(|_| status)
    })
}

fn act(
    shared: &Shared,
    payment_key: &str,
    rule: impl FnOnce(Payment, Timestamp) -> Result<Change, Status>,
) -> Response {
    let done = shared.within(|transaction, now| {
        let Some(payment) = payments::find_by_key(transaction, payment_key)? else {
            let problem = format!("paymentKey: there is no payment {payment_key}");
            return Ok(named(404, ErrorCode::NotFoundPayment.name(), problem));
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
    done.map_or_else(|error| file_error(&error), respond)
}

async fn totals(State(shared): State<Arc<Shared>>) -> Response {
    let totals = shared.within(|transaction, _| movements::totals(transaction));
    match totals {
        Ok(totals) => respond(json(200, &totals)),
        Err(error) => file_error(&error),
    }
}

async fn faults(State(shared): State<Arc<Shared>>) -> Response {
    respond(json(200, &shared.faults.script()))
}

async fn set_faults(State(shared): State<Arc<Shared>>, bytes: Bytes) -> Response {
    match FaultScript::parse(&bytes) {
        Ok(script) => {
            shared.faults.load(script);
            respond(json(200, &shared.faults.script()))
        }
        Err(error) => respond(bad(&error.field, &error.problem)),
    }
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> Response {
    shared.faults.load(FaultScript::default());
    StatusCode::NO_CONTENT.into_response()
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

async fn webhooks(State(shared): State<Arc<Shared>>) -> Response {
    respond(list_webhooks(&shared))
}

async fn send_webhooks_to(State(shared): State<Arc<Shared>>, bytes: Bytes) -> Response {
    let address = match read::<WebhookAddress>(&bytes) {
        Ok(address) => address,
        Err(refusal) => return respond(refusal),
    };
    match shared.sender.send_to(address.url) {
        Ok(()) => respond(list_webhooks(&shared)),
        Err(error) => respond(bad("url", &error.to_string())),
    }
}

fn list_webhooks(shared: &Shared) -> StoredAnswer {
    let listed = shared.within(|transaction, _| {
        Ok(Webhooks {
            url: shared.sender.url(),
            pending: outbox::list(transaction, DeliveryState::Pending)?,
            delivered: outbox::list(transaction, DeliveryState::Delivered)?,
            given_up: outbox::list(transaction, DeliveryState::GivenUp)?,
        })
    });
    match listed {
        Ok(listed) => json(200, &listed),
        Err(error) => {
            tracing::error!(%error, "cannot use the file of the sandbox");
            super::routes::answer::error(ErrorCode::FailedInternalSystemProcessing)
        }
    }
}
