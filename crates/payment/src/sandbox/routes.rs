//! The sandbox's addresses: who asks, what is asked, and how it is answered. The decisions are in `rules`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use rusqlite::Transaction;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::faults::{HANG_MAX, TestCode};
use super::state::{self, Answer, Request};
use super::{Shared, rules};
use crate::gateway::ErrorCode;
use crate::gateway::protocol::{
    CancelBody, ConfirmBody, ErrorBody, IDEMPOTENCY_HEADER, PaymentBody, TEST_CODE_HEADER,
    is_idempotency_key,
};

/// The largest body that is read: the protocol's bodies are below 1 KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/payments/confirm", post(confirm))
        .route("/v1/payments/{payment_key}/cancel", post(cancel))
        .route("/v1/payments/{payment_key}", get(find_by_key))
        .route("/v1/payments/orders/{order_id}", get(find_by_order))
        .route("/healthz", get(|| async { StatusCode::OK }))
        .fallback(|| async { refuse(ErrorCode::NotFound) })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

async fn confirm(State(shared): State<Arc<Shared>>, headers: HeaderMap, bytes: Bytes) -> Response {
    let path = "/v1/payments/confirm".to_owned();
    let decide = |transaction: &Transaction<'_>, body: &ConfirmBody, now| {
        let known = rules::Known {
            by_key: state::find_by_key(transaction, &body.payment_key)?,
            order_taken: state::find_by_order(transaction, &body.order_id)?.is_some(),
        };
        Ok(rules::confirm(body, known, now))
    };
    settle(&shared, path, &headers, &bytes, decide).await
}

async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    let path = format!("/v1/payments/{payment_key}/cancel");
    let decide = |transaction: &Transaction<'_>, body: &CancelBody, now| {
        let known = state::find_by_key(transaction, &payment_key)?;
        Ok(rules::cancel(body, known, now))
    };
    settle(&shared, path, &headers, &bytes, decide).await
}

async fn find_by_key(
    State(shared): State<Arc<Shared>>,
    Path(payment_key): Path<String>,
    headers: HeaderMap,
) -> Response {
    find(&shared, &headers, || shared.state.find_by_key(&payment_key))
}

async fn find_by_order(
    State(shared): State<Arc<Shared>>,
    Path(order_id): Path<String>,
    headers: HeaderMap,
) -> Response {
    find(&shared, &headers, || shared.state.find_by_order(&order_id))
}

fn find(
    shared: &Shared,
    headers: &HeaderMap,
    load: impl FnOnce() -> rusqlite::Result<Option<PaymentBody>>,
) -> Response {
    if let Err(code) = authenticate(shared, headers) {
        return refuse(code);
    }
    match load() {
        Ok(Some(payment)) => answer(json(200, &payment)),
        Ok(None) => refuse(ErrorCode::NotFoundPayment),
        Err(error) => broken(&error),
    }
}

/// One POST, from the header to the answer; `decide` says what becomes of the payment.
async fn settle<Body: Serialize + DeserializeOwned>(
    shared: &Shared,
    path: String,
    headers: &HeaderMap,
    bytes: &[u8],
    decide: impl FnOnce(
        &Transaction<'_>,
        &Body,
        Timestamp,
    ) -> rusqlite::Result<Result<PaymentBody, ErrorCode>>,
) -> Response {
    let (request, body, test_code) = match read::<Body>(shared, path, headers, bytes) {
        Ok(read) => read,
        Err(code) => return refuse(code),
    };
    let _under_way = match shared.state.begin(&request) {
        Ok(under_way) => under_way,
        Err(code) => return refuse(code),
    };
    let now = Timestamp::now();
    let settled = shared.state.once(&request, now, |transaction| {
        if let Some(TestCode::Refuse(code)) = test_code {
            return Ok(error_answer(code));
        }
        match decide(transaction, &body, now)? {
            Ok(payment) => {
                state::put(transaction, &payment)?;
                Ok(json(200, &payment))
            }
            Err(code) => Ok(error_answer(code)),
        }
    });
    let settled = match settled {
        Ok(Ok(settled)) => settled,
        Ok(Err(code)) => return refuse(code),
        Err(error) => return broken(&error),
    };
    fail::fail_point!("sandbox.after_charge", |_| std::process::abort());
    match test_code {
        Some(TestCode::ChargeThen500) => refuse(ErrorCode::FailedInternalSystemProcessing),
        Some(TestCode::Hang) => {
            tokio::time::sleep(HANG_MAX).await;
            answer(settled)
        }
        Some(TestCode::Refuse(_)) | None => answer(settled),
    }
}

fn read<Body: Serialize + DeserializeOwned>(
    shared: &Shared,
    path: String,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<(Request, Body, Option<TestCode>), ErrorCode> {
    authenticate(shared, headers)?;
    let idempotency_key = text(
        headers,
        IDEMPOTENCY_HEADER,
        ErrorCode::InvalidIdempotencyKey,
    )?;
    if idempotency_key.is_some_and(|key| !is_idempotency_key(key)) {
        return Err(ErrorCode::InvalidIdempotencyKey);
    }
    let test_code = text(headers, TEST_CODE_HEADER, ErrorCode::InvalidTestCode)?
        .map(TestCode::parse)
        .transpose()?;
    let body: Body = serde_json::from_slice(bytes).map_err(|_| ErrorCode::InvalidRequest)?;
    let request = Request {
        path,
        idempotency_key: idempotency_key.map(str::to_owned),
        body: serde_json::to_string(&body).map_err(|_| ErrorCode::InvalidRequest)?,
    };
    Ok((request, body, test_code))
}

fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<(), ErrorCode> {
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if given == Some(shared.authorization.as_bytes()) {
        Ok(())
    } else {
        Err(ErrorCode::UnauthorizedKey)
    }
}

fn text<'a>(
    headers: &'a HeaderMap,
    name: &str,
    otherwise: ErrorCode,
) -> Result<Option<&'a str>, ErrorCode> {
    headers
        .get(name)
        .map(|value| value.to_str().map_err(|_| otherwise))
        .transpose()
}

fn refuse(code: ErrorCode) -> Response {
    answer(error_answer(code))
}

fn broken(error: &rusqlite::Error) -> Response {
    tracing::error!(%error, "the sandbox's file failed");
    refuse(ErrorCode::FailedInternalSystemProcessing)
}

fn error_answer(code: ErrorCode) -> Answer {
    let body = ErrorBody {
        code: code.name().to_owned(),
        message: format!("the sandbox answers {}", code.name()),
    };
    json(code.http_status(), &body)
}

fn json(status: u16, body: &impl Serialize) -> Answer {
    let body = serde_json::to_string(body).expect("these bodies are plain structs");
    Answer { status, body }
}

fn answer(Answer { status, body }: Answer) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (
        status,
        [(CONTENT_TYPE, "application/json;charset=UTF-8")],
        body,
    )
        .into_response()
}
