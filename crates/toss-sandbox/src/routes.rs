//! The gateway's API: authentication, idempotency, faults and answers. `rules` decides.

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
use jiff::Timestamp;
use rusqlite::Transaction;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control;
use super::faults::connection;
use super::faults::injector::Subject;
use super::faults::script::{Fault, FaultTarget, status_of};
use super::faults::test_code::{HANG_MAX, TestCode};
use super::payment::{Change, Payment};
use super::rules;
use super::shared::Shared;
use super::state::{Reply, StoredAnswer, payments};
use answer::{file_error, refuse};
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
        .fallback(|| async { refuse(ErrorCode::NotFound) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn confirm(State(shared): State<Arc<Shared>>, caller: Caller, bytes: Bytes) -> Response {
    finish(caller.has_test_code(), make_confirm(shared, caller, bytes)).await
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    caller: Caller,
    bytes: Bytes,
) -> Response {
    finish(
        caller.has_test_code(),
        make_cancel(shared, payment_key, caller, bytes),
    )
    .await
}

/// A request that moves money completes even if its caller disconnects, as at a slow gateway. A request with a test code
/// ends with its caller, so that a hanging request does not outlive its test.
async fn finish(
    has_test_code: bool,
    work: impl Future<Output = Response> + Send + 'static,
) -> Response {
    if has_test_code {
        return work.await;
    }
    let finished = tokio::spawn(work).await;
    finished.unwrap_or_else(|_| refuse(ErrorCode::FailedInternalSystemProcessing))
}

async fn make_confirm(shared: Arc<Shared>, caller: Caller, bytes: Bytes) -> Response {
    let request = match caller.read::<ConfirmBody>(&shared, "/v1/payments/confirm".into(), &bytes) {
        Ok(request) => request,
        Err(code) => return refuse(code),
    };
    let fault = shared.faults.next(
        FaultTarget::Confirm,
        Subject {
            order_id: Some(&request.body.order_id),
            payment_key: Some(&request.body.payment_key),
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
    execute(&shared, &caller, &request, fault, decide).await
}

async fn make_cancel(
    shared: Arc<Shared>,
    payment_key: String,
    caller: Caller,
    bytes: Bytes,
) -> Response {
    let path = format!("/v1/payments/{payment_key}/cancel");
    let request = match caller.read::<CancelBody>(&shared, path, &bytes) {
        Ok(request) => request,
        Err(code) => return refuse(code),
    };
    let known = match shared.find(&payment_key) {
        Ok(known) => known,
        Err(error) => return file_error(&error),
    };
    let subject = Subject {
        order_id: known.as_ref().map(|payment| payment.order_id.as_str()),
        payment_key: Some(&payment_key),
    };
    let fault = shared.faults.next(FaultTarget::Cancel, subject);
    let decide = |transaction: &Transaction<'_>, body: &CancelBody, now| {
        let known = payments::find_by_key(transaction, &payment_key)?;
        Ok(rules::cancel(body, known, now))
    };
    execute(&shared, &caller, &request, fault, decide).await
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

/// Answers a lookup. Faults before and after the work differ here only in when the file is read.
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
        Err(error) => return file_error(&error),
    };
    let subject = found.as_ref().map_or(named, |payment| Subject {
        order_id: Some(&payment.order_id),
        payment_key: Some(&payment.key),
    });
    let fault = shared.faults.next(FaultTarget::Lookup, subject);
    reply(shared, caller, fault, |transaction| {
        Ok(match load(transaction)? {
            Some(payment) => answer::json(200, &payment.body()),
            None => answer::error(ErrorCode::NotFoundPayment),
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
) -> Response {
    if let Some(answered) = connection::before(fault.as_ref(), &caller.cutter).await {
        return answered;
    }
    if let Some(Fault::Refuse { code, status }) = &fault {
        return answer::respond(refused(code, *status));
    }
    match shared.within(|transaction, _| read(transaction)) {
        Ok(read) => connection::after(fault.as_ref(), read, &caller.cutter).await,
        Err(error) => file_error(&error),
    }
}

/// Executes a POST, with its fault; `decide` decides about the payment.
async fn execute<Body: Serialize + DeserializeOwned>(
    shared: &Shared,
    caller: &Caller,
    request: &PostRequest<Body>,
    fault: Option<Fault>,
    decide: impl FnOnce(&Transaction<'_>, &Body, Timestamp) -> Decision,
) -> Response {
    if let Some(answered) = connection::before(fault.as_ref(), &caller.cutter).await {
        return answered;
    }
    let _in_flight = match shared.state.begin(&request.request) {
        Ok(in_flight) => in_flight,
        Err(code) => return refuse(code),
    };
    let now = shared.now();
    let executed = shared.state.once(&request.request, now, |transaction| {
        if let Some(TestCode::Refuse(code)) = request.test_code {
            return Ok(Reply::Stored(answer::error(code)));
        }
        shared.expire_overdue(transaction, now)?;
        match (decide(transaction, &request.body, now)?, &fault) {
            (Err(code), _) => Ok(Reply::Stored(answer::error(code))),
            (Ok(_), Some(Fault::Refuse { code, status })) => Ok(refusal(code, *status)),
            (Ok(change), _) => {
                shared.apply(transaction, &change, now)?;
                Ok(Reply::Stored(answer::json(200, &change.payment.body())))
            }
        }
    });
    let executed = match executed {
        Ok(Ok(executed)) => executed,
        Ok(Err(code)) => return refuse(code),
        Err(error) => return file_error(&error),
    };
    fail::fail_point!("sandbox.after_charge", |_| std::process::abort());
    match request.test_code {
        Some(TestCode::ChargeThen500) => refuse(ErrorCode::FailedInternalSystemProcessing),
        Some(TestCode::Hang) => {
            tokio::time::sleep(HANG_MAX).await;
            answer::respond(executed)
        }
        Some(TestCode::Refuse(_)) | None => {
            connection::after(fault.as_ref(), executed, &caller.cutter).await
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
