//! `Idempotency-Key`: the same key and body is answered as it was the first time, and happens once.
//!
//! The answer is stored in the same Commit as the work wherever the handler can attach it ([`Once::attach`]), so a
//! crash leaves both or neither. A refusal changes nothing, and its answer is stored by itself. Keys are counted by
//! route: one key may be used for each step of a purchase.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use contract::Timestamp;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use messaging::{
    Clock, Commit, CommitError, Store,
    record::{Column, Key, Record, Table},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Problem, extract::BODY_BYTES_MAX};

pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on an answer that was given before.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY_CHARS_MAX: usize = 255;

/// The first answer to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    pub key: String,
    pub fingerprint: String,
    pub status: u16,
    pub content_type: String,
    pub body: String,
    pub created_at: Timestamp,
    pub version: i64,
}

impl Record for AnswerRecord {
    const TABLE: &'static Table = &Table {
        name: "idempotency",
        columns: &[
            Column::text("key"),
            Column::text("fingerprint"),
            Column::integer("status"),
            Column::text("content_type"),
            Column::text("body"),
            Column::text("created_at"),
            Column::integer("version"),
        ],
        key: "key",
        constraints: &[],
        indexes: &["(created_at)"],
    };
    fn key(&self) -> Key {
        self.key.as_str().into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

/// What the middleware needs.
#[derive(Clone)]
pub struct Idempotency {
    store: Store,
    clock: Clock,
    in_flight: Arc<Mutex<HashSet<String>>>,
}

impl Idempotency {
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            in_flight: Arc::default(),
        }
    }
}

/// What a handler knows of its request's key: nothing, where none was sent.
#[derive(Debug, Clone, Default)]
pub struct Once(Option<Arc<Keyed>>);

#[derive(Debug)]
struct Keyed {
    key: String,
    fingerprint: String,
    at: Timestamp,
    attached: AtomicBool,
}

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Once>().cloned().unwrap_or_default())
    }
}

impl Once {
    /// Tells this key with this body from every other; `None` where no key was sent.
    #[must_use]
    pub fn digest(&self) -> Option<[u8; 6]> {
        let keyed = self.0.as_ref()?;
        let digest = Sha256::new()
            .chain_update(&keyed.key)
            .chain_update([0])
            .chain_update(&keyed.fingerprint)
            .finalize();
        let mut short = [0; 6];
        short.copy_from_slice(&digest[..6]);
        Some(short)
    }

    /// Makes the answer, and adds it to the Commit that does the work.
    pub fn attach<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
    ) -> Response {
        let body = serde_json::to_string(answer).expect("answers have string keys only");
        if let Some(keyed) = &self.0 {
            keyed.attached.store(true, Ordering::Release);
            commit.put(&keyed.answer(status, "application/json", body.clone()));
        }
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

impl Keyed {
    fn answer(&self, status: StatusCode, content_type: &str, body: String) -> AnswerRecord {
        AnswerRecord {
            key: self.key.clone(),
            fingerprint: self.fingerprint.clone(),
            status: status.as_u16(),
            content_type: content_type.to_owned(),
            body,
            created_at: self.at,
            version: 0,
        }
    }
}

/// Removes the key from those in flight when the request is over, however it ends.
struct InFlight<'a> {
    keys: &'a Mutex<HashSet<String>>,
    key: &'a str,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.keys
            .lock()
            .expect("no holder of this lock panics")
            .remove(self.key);
    }
}

/// The middleware around every route.
///
/// # Errors
/// 422 `IDEMPOTENCY_KEY_REUSED` for the key with another body; 409 `IDEMPOTENCY_KEY_IN_FLIGHT` while the first
/// request is under way; 400 for a malformed key.
pub async fn once(
    State(state): State<Idempotency>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(header) = request
        .headers()
        .get(HEADER)
        .filter(|_| request.method() == Method::POST)
    else {
        return Ok(next.run(request).await);
    };
    let scope = format!("{} {}", request.uri().path(), read_key(header)?);
    let (parts, body) = request.into_parts();
    let bytes = read_body(body).await?;
    let keyed = Arc::new(Keyed {
        fingerprint: fingerprint(&bytes),
        key: scope,
        at: state.clock.now(),
        attached: AtomicBool::new(false),
    });
    if !state
        .in_flight
        .lock()
        .expect("no holder of this lock panics")
        .insert(keyed.key.clone())
    {
        let detail = "the first request with this key is still under way";
        return Err(Problem {
            retry_after_secs: Some(1),
            ..Problem::conflict("IDEMPOTENCY_KEY_IN_FLIGHT", detail)
        });
    }
    let _in_flight = InFlight {
        keys: &state.in_flight,
        key: &keyed.key,
    };
    if let Some(first) = state.store.load::<AnswerRecord>(keyed.key.as_str()).await? {
        return replay(first, &keyed.fingerprint);
    }
    let mut request = Request::from_parts(parts, Body::from(bytes));
    request
        .extensions_mut()
        .insert(Once(Some(Arc::clone(&keyed))));
    let response = next.run(request).await;
    if keyed.attached.load(Ordering::Acquire) && response.status().is_success() {
        return Ok(response);
    }
    save(&state.store, &keyed, response).await
}

fn read_key(header: &HeaderValue) -> Result<String, Problem> {
    let text = header.to_str().unwrap_or_default().trim().trim_matches('"');
    if text.is_empty() || text.len() > KEY_CHARS_MAX {
        let detail = format!("the key is not 1 to {KEY_CHARS_MAX} printable ASCII characters");
        return Err(Problem::invalid("Idempotency-Key", detail));
    }
    Ok(text.to_owned())
}

async fn read_body(body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes");
            Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "BODY_TOO_LARGE",
                detail,
            ))
        }
        Err(_) => Err(Problem::invalid(
            "body",
            "the body could not be read to its end",
        )),
    }
}

fn fingerprint(body: &[u8]) -> String {
    Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn replay(first: AnswerRecord, fingerprint: &str) -> Result<Response, Problem> {
    if first.fingerprint != fingerprint {
        let detail = "this key was used with another body";
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "IDEMPOTENCY_KEY_REUSED",
            detail,
        ));
    }
    let status = StatusCode::from_u16(first.status).unwrap_or(StatusCode::OK);
    let headers = [
        (header::CONTENT_TYPE, first.content_type),
        (REPLAYED_HEADER, "true".to_owned()),
    ];
    Ok((status, headers, first.body).into_response())
}

/// Stores an answer that was not part of a Commit. An answer of 5xx is none, and neither is one that asks to try
/// again: stored, it would be all that this key ever gets.
async fn save(store: &Store, keyed: &Keyed, response: Response) -> Result<Response, Problem> {
    let is_passing = response.headers().contains_key(header::RETRY_AFTER);
    if response.status().is_server_error() || is_passing {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut commit = Commit::new();
    commit.put(&keyed.answer(
        parts.status,
        content_type.unwrap_or("application/json"),
        text,
    ));
    fail::fail_point!("web.before_save", |_| std::process::abort());
    let stored = store.commit(commit).await;
    fail::fail_point!("web.after_save", |_| std::process::abort());
    match stored {
        Ok(()) => Ok(Response::from_parts(parts, Body::from(bytes))),
        // Stored already: with the work, by a request that was then refused; or by another process that was asked at
        // the same moment and was faster. A key has one answer.
        Err(CommitError::Conflict { .. }) => match store.load(keyed.key.as_str()).await? {
            Some(first) => replay(first, &keyed.fingerprint),
            None => Ok(Response::from_parts(parts, Body::from(bytes))),
        },
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::{Router, middleware, routing};
    use messaging::Metrics;
    use tokio::sync::Barrier;
    use tower::ServiceExt as _;

    use super::*;

    /// What a process does with a key: it does its work with the answer, or is refused.
    async fn work(
        State((store, both, process)): State<(Store, Arc<Barrier>, &'static str)>,
        once: Once,
    ) -> Result<Response, Problem> {
        both.wait().await;
        let mut commit = Commit::new();
        let answer = once.attach(&mut commit, StatusCode::CREATED, &process);
        store.commit(commit).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn two_processes_that_are_asked_with_one_key_at_the_same_moment_give_one_answer() {
        // Given two processes over one store, neither of which knows what the other is asked,
        let folder = tempfile::tempdir().unwrap();
        let tables = &[AnswerRecord::TABLE];
        let store = Store::open_embedded(folder.path(), tables, Metrics::unregistered()).unwrap();
        let both = Arc::new(Barrier::new(2));
        let process = |name: &'static str| {
            let idempotency = Idempotency::new(store.clone(), Clock::System);
            Router::new()
                .route("/work", routing::post(work))
                .layer(middleware::from_fn_with_state(idempotency, once))
                .with_state((store.clone(), Arc::clone(&both), name))
        };
        // when both are in the middle of the same request,
        let ask = |name| async move {
            let request = Request::post("/work").header(HEADER, "one");
            let request = request.body(Body::from("{}")).unwrap();
            let answer = process(name).oneshot(request).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
        };
        let (one, other) = futures::join!(ask("one"), ask("other"));
        // then both are told what was done, which is done once.
        assert_eq!(one.0, 201, "{one:?}");
        assert_eq!(BTreeSet::from([one, other]).len(), 1);
    }
}
