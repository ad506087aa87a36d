//! The gateway's addresses: who asks, what is asked, and how it is answered. The decisions are in `rules`.

pub(super) mod answer;
mod caller;
mod transactions;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use contract::Timestamp;
use rusqlite::Transaction;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control;
use super::faults::director::Subject;
use super::faults::script::{Fault, On, status_of};
use super::faults::test_code::{HANG_MAX, TestCode};
use super::faults::wire;
use super::payment::{Change, Payment};
use super::rules;
use super::shared::Shared;
use super::state::{Answer, Settled, payments};
use crate::gateway::protocol::{CancelBody, ConfirmBody};
use crate::gateway::{ErrorCode, Meaning};
use answer::{broken, refuse};
use caller::{Asked, Caller};

/// The largest body that is read: the protocol's bodies are below 1 KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;

type Decision = rusqlite::Result<Result<Change, ErrorCode>>;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/payments/confirm", post(confirm))
        .route("/v1/payments/{payment_key}/cancel", post(cancel))
        .route("/v1/payments/{payment_key}", get(find_by_key))
        .route("/v1/payments/orders/{order_id}", get(find_by_order))
        .route("/v1/transactions", get(transactions::list))
        .route("/healthz", get(|| async { StatusCode::OK }))
        .merge(control::router())
        .fallback(|| async { refuse(ErrorCode::NotFound) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn confirm(State(shared): State<Arc<Shared>>, caller: Caller, bytes: Bytes) -> Response {
    finish(caller.tests(), make_confirm(shared, caller, bytes)).await
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    caller: Caller,
    bytes: Bytes,
) -> Response {
    finish(
        caller.tests(),
        make_cancel(shared, payment_key, caller, bytes),
    )
    .await
}

/// What moves money goes on when its caller has hung up: a gateway that is slow charges all the same. What a test code
/// asks for ends with its caller, so that a hanging request does not outlive its test.
async fn finish(tests: bool, work: impl Future<Output = Response> + Send + 'static) -> Response {
    if tests {
        return work.await;
    }
    let finished = tokio::spawn(work).await;
    finished.unwrap_or_else(|_| refuse(ErrorCode::FailedInternalSystemProcessing))
}

async fn make_confirm(shared: Arc<Shared>, caller: Caller, bytes: Bytes) -> Response {
    let asked = match caller.read::<ConfirmBody>(&shared, "/v1/payments/confirm".into(), &bytes) {
        Ok(asked) => asked,
        Err(code) => return refuse(code),
    };
    let fault = shared.director.ask(
        On::Confirm,
        Subject {
            order_id: Some(&asked.body.order_id),
            payment_key: Some(&asked.body.payment_key),
        },
    );
    let decide = |transaction: &Transaction<'_>, body: &ConfirmBody, now| {
        let known = rules::Known {
            by_key: payments::find_by_key(transaction, &body.payment_key)?,
            order_taken: payments::is_order_taken(transaction, &body.order_id, &body.payment_key)?,
            lenient: shared.lenient,
        };
        Ok(rules::confirm(body, known, now))
    };
    settle(&shared, &caller, &asked, fault, decide).await
}

async fn make_cancel(
    shared: Arc<Shared>,
    payment_key: String,
    caller: Caller,
    bytes: Bytes,
) -> Response {
    let path = format!("/v1/payments/{payment_key}/cancel");
    let asked = match caller.read::<CancelBody>(&shared, path, &bytes) {
        Ok(asked) => asked,
        Err(code) => return refuse(code),
    };
    let known = match shared.find(&payment_key) {
        Ok(known) => known,
        Err(error) => return broken(&error),
    };
    let subject = Subject {
        order_id: known.as_ref().map(|payment| payment.order_id.as_str()),
        payment_key: Some(&payment_key),
    };
    let fault = shared.director.ask(On::Cancel, subject);
    let decide = |transaction: &Transaction<'_>, body: &CancelBody, now| {
        let known = payments::find_by_key(transaction, &payment_key)?;
        Ok(rules::cancel(body, known, now))
    };
    settle(&shared, &caller, &asked, fault, decide).await
}

async fn find_by_key(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    caller: Caller,
) -> Response {
    let named = Subject {
        order_id: None,
        payment_key: Some(&payment_key),
    };
    find(&shared, &caller, named, |transaction| {
        payments::find_by_key(transaction, &payment_key)
    })
    .await
}

async fn find_by_order(
    State(shared): State<Arc<Shared>>,
    Path(order_id): Path<String>,
    caller: Caller,
) -> Response {
    let named = Subject {
        order_id: Some(&order_id),
        payment_key: None,
    };
    find(&shared, &caller, named, |transaction| {
        payments::find_by_order(transaction, &order_id)
    })
    .await
}

/// A lookup. A fault that does nothing and a fault that does it are alike here, but for when the file is read.
async fn find(
    shared: &Shared,
    caller: &Caller,
    named: Subject<'_>,
    load: impl Fn(&Transaction<'_>) -> rusqlite::Result<Option<Payment>>,
) -> Response {
    if let Err(code) = caller.authenticate(shared) {
        return refuse(code);
    }
    let found = match shared.within(|transaction, _| load(transaction)) {
        Ok(found) => found,
        Err(error) => return broken(&error),
    };
    let subject = found.as_ref().map_or(named, |payment| Subject {
        order_id: Some(&payment.order_id),
        payment_key: Some(&payment.key),
    });
    let fault = shared.director.ask(On::Lookup, subject);
    reply(shared, caller, fault, |transaction| {
        Ok(match load(transaction)? {
            Some(payment) => answer::json(200, &payment.body()),
            None => answer::error(ErrorCode::NotFoundPayment),
        })
    })
    .await
}

/// Answers what only reads, through its fault.
async fn reply(
    shared: &Shared,
    caller: &Caller,
    fault: Option<Fault>,
    read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Answer>,
) -> Response {
    if let Some(answered) = wire::before(fault.as_ref(), &caller.line).await {
        return answered;
    }
    if let Some(Fault::Refuse { code, status }) = &fault {
        return answer::tell(refused(code, *status));
    }
    match shared.within(|transaction, _| read(transaction)) {
        Ok(read) => wire::after(fault.as_ref(), read, &caller.line).await,
        Err(error) => broken(&error),
    }
}

/// One POST, through its fault; `decide` says what becomes of the payment.
async fn settle<Body: Serialize + DeserializeOwned>(
    shared: &Shared,
    caller: &Caller,
    asked: &Asked<Body>,
    fault: Option<Fault>,
    decide: impl FnOnce(&Transaction<'_>, &Body, Timestamp) -> Decision,
) -> Response {
    if let Some(answered) = wire::before(fault.as_ref(), &caller.line).await {
        return answered;
    }
    let _under_way = match shared.state.begin(&asked.request) {
        Ok(under_way) => under_way,
        Err(code) => return refuse(code),
    };
    let now = shared.now();
    let settled = shared.state.once(&asked.request, now, |transaction| {
        if let Some(TestCode::Refuse(code)) = asked.test_code {
            return Ok(Settled::Kept(answer::error(code)));
        }
        shared.close_windows(transaction, now)?;
        match (decide(transaction, &asked.body, now)?, &fault) {
            (Err(code), _) => Ok(Settled::Kept(answer::error(code))),
            (Ok(_), Some(Fault::Refuse { code, status })) => Ok(refusal(code, *status)),
            (Ok(change), _) => {
                shared.apply(transaction, &change, now)?;
                Ok(Settled::Kept(answer::json(200, &change.payment.body())))
            }
        }
    });
    let settled = match settled {
        Ok(Ok(settled)) => settled,
        Ok(Err(code)) => return refuse(code),
        Err(error) => return broken(&error),
    };
    fail::fail_point!("sandbox.after_charge", |_| std::process::abort());
    match asked.test_code {
        Some(TestCode::ChargeThen500) => refuse(ErrorCode::FailedInternalSystemProcessing),
        Some(TestCode::Hang) => {
            tokio::time::sleep(HANG_MAX).await;
            answer::tell(settled)
        }
        Some(TestCode::Refuse(_)) | None => {
            wire::after(fault.as_ref(), settled, &caller.line).await
        }
    }
}

/// A refusal is the answer of its key; that the gateway could not judge the request is not.
fn refusal(code: &str, status: Option<u16>) -> Settled {
    let answer = refused(code, status);
    let is_judged = match ErrorCode::parse(code) {
        Some(code) => code.meaning() == Meaning::Refused,
        None => answer.status < 500,
    };
    if is_judged {
        Settled::Kept(answer)
    } else {
        Settled::Passing(answer)
    }
}

fn refused(code: &str, status: Option<u16>) -> Answer {
    let message = format!("the script answers {code}");
    answer::named(status_of(code, status), code, message)
}
