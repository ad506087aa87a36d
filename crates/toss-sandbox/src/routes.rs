//! The gateway's API: authentication, idempotency, faults and answers. `rules` decides.

pub(super) mod answer;
mod caller;
mod transactions;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use rusqlite::Transaction;

use super::control;
use super::faults::connection;
use super::faults::injector::Subject;
use super::faults::script::{Fault, FaultTarget, status_of};
use super::faults::test_code::{HANG_MAX, TestCode};
use super::payment::{Change, Payment};
use super::rules;
use super::shared::Shared;
use super::state::{Reply, StoredAnswer, payments};
use answer::Answered;
use caller::{Caller, PostRequest};
use toss::protocol::{CancelBody, ConfirmBody};
use toss::{ErrorCode, Meaning};

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
        .fallback(|| async { StoredAnswer::from(ErrorCode::NOT_FOUND) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn confirm(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    bytes: Bytes,
) -> Answered<Response> {
    finish(caller.has_test_code(), async move {
        let path = "/v1/payments/confirm".to_owned();
        let request = caller.read::<ConfirmBody>(&shared, path, &bytes)?;
        let (order_id, key) = (&request.body.order_id, &request.body.payment_key);
        let subject = Subject::new(Some(order_id), Some(key));
        let fault = shared.faults.next(FaultTarget::Confirm, subject);
        let decide = |transaction: &Transaction<'_>, now| {
            let known = rules::Known {
                by_key: payments::find_by_key(transaction, key)?,
                order_taken: payments::is_order_taken(transaction, order_id, key)?,
                lenient: shared.lenient,
            };
            Ok(rules::confirm(&request.body, known, now))
        };
        execute(&shared, &caller, &request, fault, decide).await
    })
    .await
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    caller: Caller,
    bytes: Bytes,
) -> Answered<Response> {
    finish(caller.has_test_code(), async move {
        let path = format!("/v1/payments/{payment_key}/cancel");
        let request = caller.read::<CancelBody>(&shared, path, &bytes)?;
        let find = |transaction: &Transaction<'_>| payments::find_by_key(transaction, &payment_key);
        let known = shared.within(|transaction, _| find(transaction))?;
        let order_id = known.as_ref().map(|payment| payment.order_id.as_str());
        let subject = Subject::new(order_id, Some(&payment_key));
        let fault = shared.faults.next(FaultTarget::Cancel, subject);
        let decide = |transaction: &Transaction<'_>, now| {
            Ok(rules::cancel(&request.body, find(transaction)?, now))
        };
        execute(&shared, &caller, &request, fault, decide).await
    })
    .await
}

/// A request that moves money completes even if its caller disconnects, as at a slow gateway. A request with a test code
/// ends with its caller, so that a hanging request does not outlive its test.
async fn finish(
    has_test_code: bool,
    work: impl Future<Output = Answered<Response>> + Send + 'static,
) -> Answered<Response> {
    if has_test_code {
        return work.await;
    }
    let finished = tokio::spawn(work).await;
    finished.unwrap_or_else(|_| Err(ErrorCode::FAILED_INTERNAL_SYSTEM_PROCESSING.into()))
}

async fn find_by_key(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    caller: Caller,
) -> Answered<Response> {
    let named = Subject::new(None, Some(&payment_key));
    find(&shared, &caller, named, |transaction| {
        payments::find_by_key(transaction, &payment_key)
    })
    .await
}

async fn find_by_order(
    State(shared): State<Arc<Shared>>,
    Path(order_id): Path<String>,
    caller: Caller,
) -> Answered<Response> {
    let named = Subject::new(Some(&order_id), None);
    find(&shared, &caller, named, |transaction| {
        payments::find_by_order(transaction, &order_id)
    })
    .await
}

/// Answers a lookup. Faults before and after the work differ here only in when the file is read.
async fn find(
    shared: &Shared,
    caller: &Caller,
    named: Subject<'_>,
    load: impl Fn(&Transaction<'_>) -> rusqlite::Result<Option<Payment>>,
) -> Answered<Response> {
    caller.authenticate(shared)?;
    let found = shared.within(|transaction, _| load(transaction))?;
    let subject = found.as_ref().map_or(named, |payment| {
        Subject::new(Some(&payment.order_id), Some(&payment.key))
    });
    let fault = shared.faults.next(FaultTarget::Lookup, subject);
    reply(shared, caller, fault, |transaction| {
        Ok(match load(transaction)? {
            Some(payment) => answer::json(200, &payment.body()),
            None => ErrorCode::NOT_FOUND_PAYMENT.into(),
        })
    })
    .await
}

/// Answers a read, with its fault.
async fn reply(
    shared: &Shared,
    caller: &Caller,
    fault: Option<Fault>,
    read: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<StoredAnswer>,
) -> Answered<Response> {
    if let Some(answered) = connection::before(fault.as_ref(), &caller.cutter).await {
        return Ok(answered);
    }
    if let Some(Fault::Refuse { code, status }) = &fault {
        return Err(refused(code, *status));
    }
    let read = shared.within(|transaction, _| read(transaction))?;
    Ok(connection::after(fault.as_ref(), read, &caller.cutter).await)
}

/// Executes a POST, with its fault; `decide` decides about the payment.
async fn execute<Body>(
    shared: &Shared,
    caller: &Caller,
    request: &PostRequest<Body>,
    fault: Option<Fault>,
    decide: impl FnOnce(&Transaction<'_>, Timestamp) -> Decision,
) -> Answered<Response> {
    if let Some(answered) = connection::before(fault.as_ref(), &caller.cutter).await {
        return Ok(answered);
    }
    let _in_flight = shared.state.begin(&request.request)?;
    let now = shared.now();
    let executed = shared.state.once(&request.request, now, |transaction| {
        if let Some(TestCode::Refuse(code)) = request.test_code {
            return Ok(Reply::Stored(code.into()));
        }
        shared.expire_overdue(transaction, now)?;
        match (decide(transaction, now)?, &fault) {
            (Err(code), _) => Ok(Reply::Stored(code.into())),
            (Ok(_), Some(Fault::Refuse { code, status })) => Ok(refusal(code, *status)),
            (Ok(change), _) => {
                shared.apply(transaction, &change, now)?;
                Ok(Reply::Stored(answer::json(200, &change.payment.body())))
            }
        }
    })??;
    fail::fail_point!("sandbox.after_charge", |_| std::process::abort());
    match request.test_code {
        Some(TestCode::ChargeThen500) => Err(ErrorCode::FAILED_INTERNAL_SYSTEM_PROCESSING.into()),
        Some(TestCode::Hang) => {
            tokio::time::sleep(HANG_MAX).await;
            Ok(executed.into_response())
        }
        Some(TestCode::Refuse(_)) | None => {
            Ok(connection::after(fault.as_ref(), executed, &caller.cutter).await)
        }
    }
}

/// The idempotency key stores a refusal, but not an answer to a request that was not judged.
fn refusal(code: &str, status: Option<u16>) -> Reply {
    let answer = refused(code, status);
    let is_judged = match ErrorCode::parse(code) {
        Some(code) => code.meaning() == Meaning::Refused,
        None => answer.status < 500,
    };
    if is_judged {
        Reply::Stored(answer)
    } else {
        Reply::NotStored(answer)
    }
}

fn refused(code: &str, status: Option<u16>) -> StoredAnswer {
    let message = format!("the script answers {code}");
    answer::named(status_of(code, status), code, message)
}
