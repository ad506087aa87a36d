//! `Idempotency-Key` of POST and PUT: a repeated request with the same key gets the saved answer, and takes effect once.
//!
//! Only answers of successful requests are saved. A use case adds the answer to the Commit of its work
//! ([`Once::attach`]), so that a crash leaves both or neither; the middleware saves other answers after the work.
//! A refusal changes nothing and is decided again, and so is an answer whose outcome is pending ([`Passing`]). If the
//! effect may be undone later, the use case checks whether the saved answer is still valid
//! ([`Once::attach_revisable`]). Keys are scoped by route and caller ([`scope`]); unknown paths ignore them.

mod record;
mod scope;

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
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderName, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use contract::Timestamp;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use messaging::{Clock, Commit, CommitError, Record, Store, sha256};
use serde::{Serialize, de::DeserializeOwned};

use self::scope::RequestScope;
use crate::{Problem, extract::BODY_BYTES_MAX};

pub use record::AnswerRecord;
pub use scope::record_key;

pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks a replayed answer.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The state of the middleware.
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

/// A request's idempotency key as its handler sees it; empty if the request has none.
#[derive(Debug, Clone, Default)]
pub struct Once(Option<Arc<KeyedRequest>>);

#[derive(Debug)]
struct KeyedRequest {
    scope: RequestScope,
    at: Timestamp,
    /// The saved answer, if its effect may have been undone since.
    first: Option<AnswerRecord>,
    attached: AtomicBool,
}

/// In a response's extensions: its outcome is pending, so it is not saved.
#[derive(Debug, Clone, Copy)]
pub struct Passing;

impl<S: Send + Sync> FromRequestParts<S> for Once {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Once>().cloned().unwrap_or_default())
    }
}

impl Once {
    /// A short digest of the key and the request; `None` without a key.
    #[must_use]
    pub fn digest(&self) -> Option<[u8; 6]> {
        let keyed = self.0.as_ref()?;
        let (key, fingerprint) = (&keyed.scope.older_key, &keyed.scope.fingerprint);
        Some(sha256(&[key.as_bytes(), &[0], fingerprint.as_bytes()]).first())
    }

    /// The saved answer, if its effect may have been undone since. If it is still valid, the handler answers with
    /// [`replay`](Self::replay); else it decides anew, and the new answer replaces the saved one.
    #[must_use]
    pub fn first<T: DeserializeOwned>(&self) -> Option<T> {
        let first = self.0.as_ref()?.first.as_ref()?;
        serde_json::from_str(&first.body).ok()
    }

    /// The saved answer as a response.
    #[must_use]
    pub fn replay(&self) -> Option<Response> {
        self.0.as_ref()?.first.clone().map(replayed)
    }

    /// Makes the response and adds the answer to the Commit of the work.
    pub fn attach<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
    ) -> Response {
        self.attach_as(commit, status, answer, 0)
    }

    /// Like [`attach`](Self::attach), for an effect that may be undone later: see [`first`](Self::first).
    pub fn attach_revisable<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
    ) -> Response {
        self.attach_as(commit, status, answer, 1)
    }

    fn attach_as<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
        revisable: u8,
    ) -> Response {
        let body = serde_json::to_string(answer).expect("answers have string keys only");
        if let Some(keyed) = &self.0 {
            keyed.attached.store(true, Ordering::Release);
            commit.put(&AnswerRecord {
                revisable,
                ..keyed.answer(status, JSON, body.clone())
            });
        }
        (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
    }
}

const JSON: &str = "application/json";

impl KeyedRequest {
    fn answer(&self, status: StatusCode, content_type: &str, body: String) -> AnswerRecord {
        let first = self.first.as_ref();
        AnswerRecord {
            key: first
                .map_or(&self.scope.record_key, |first| &first.key)
                .clone(),
            fingerprint: self.scope.fingerprint.clone(),
            status: status.as_u16(),
            content_type: content_type.to_owned(),
            body,
            created_at: self.at,
            revisable: 0,
            version: first.map_or(0, |first| first.version),
        }
    }

    /// The answer that is stored now.
    async fn stored(&self, store: &Store) -> Result<Option<AnswerRecord>, Problem> {
        let (new, older) = (&self.scope.record_key, &self.scope.older_key);
        let mut keys = vec![new.as_str().into()];
        keys.extend((new != older).then(|| older.as_str().into()));
        let mut rows = store.load_rows(AnswerRecord::TABLE, &keys).await?;
        // This program's key takes precedence over that of earlier programs.
        let is_own = |row: &messaging::Row| {
            row.get("key").and_then(serde_json::Value::as_str) == Some(new.as_str())
        };
        rows.sort_by_key(|row| !is_own(row));
        let first = rows.first().map(messaging::Row::read).transpose();
        Ok(first.map_err(messaging::StoreError::from)?)
    }

    /// # Errors
    /// 422 if the key was used with another request.
    fn check(&self, first: &AnswerRecord) -> Result<(), Problem> {
        if self.scope.matches(&first.fingerprint) {
            return Ok(());
        }
        let detail = "this key was used with another body";
        Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "IDEMPOTENCY_KEY_REUSED",
            detail,
        ))
    }
}

/// Removes the key from the keys in flight when it is dropped.
struct InFlight<'a> {
    keys: &'a Mutex<HashSet<String>>,
    key: String,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.keys
            .lock()
            .expect("no holder of this lock panics")
            .remove(&self.key);
    }
}

/// Whether a request has a key and a method and route that take one.
#[must_use]
pub fn is_keyed(request: &Request) -> bool {
    let takes_keys = [Method::POST, Method::PUT].contains(request.method());
    let is_routed = request.extensions().get::<MatchedPath>().is_some();
    takes_keys && is_routed && request.headers().contains_key(HEADER)
}

/// The middleware around all routes.
///
/// # Errors
/// 422 `IDEMPOTENCY_KEY_REUSED` for the key with another body; 409 `IDEMPOTENCY_KEY_IN_FLIGHT` while the first
/// request runs; 400 for a malformed key.
pub async fn once(
    State(state): State<Idempotency>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if !is_keyed(&request) {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let bytes = read_body(body).await?;
    let mut keyed = KeyedRequest {
        scope: RequestScope::read(&parts, &bytes)?,
        at: state.clock.now(),
        first: None,
        attached: AtomicBool::new(false),
    };
    let _in_flight = state.enter(&keyed.scope.record_key)?;
    if let Some(first) = keyed.stored(&state.store).await? {
        keyed.check(&first)?;
        if first.revisable == 0 {
            return Ok(replayed(first));
        }
        keyed.first = Some(first);
    }
    let keyed = Arc::new(keyed);
    let mut request = Request::from_parts(parts, Body::from(bytes));
    request
        .extensions_mut()
        .insert(Once(Some(Arc::clone(&keyed))));
    let response = next.run(request).await;
    finish(&state.store, &keyed, response).await
}

impl Idempotency {
    /// # Errors
    /// 409 while another request with the key runs.
    fn enter(&self, key: &str) -> Result<InFlight<'_>, Problem> {
        let mut keys = self
            .in_flight
            .lock()
            .expect("no holder of this lock panics");
        if !keys.insert(key.to_owned()) {
            let detail = "the first request with this key is still running";
            return Err(Problem {
                retry_after_secs: Some(1),
                ..Problem::conflict("IDEMPOTENCY_KEY_IN_FLIGHT", detail)
            });
        }
        let key = key.to_owned();
        Ok(InFlight {
            keys: &self.in_flight,
            key,
        })
    }
}

/// Saves an answer that no Commit has saved yet.
async fn finish(
    store: &Store,
    keyed: &KeyedRequest,
    response: Response,
) -> Result<Response, Problem> {
    let is_done = response.status().is_success();
    let is_saved = keyed.attached.load(Ordering::Acquire)
        || response.headers().contains_key(REPLAYED_HEADER)
        || response.extensions().get::<Passing>().is_some();
    if is_done && !is_saved {
        return save(store, keyed, response).await;
    }
    if response.status() == StatusCode::CONFLICT {
        return conflicted(store, keyed, response).await;
    }
    Ok(response)
}

/// Another process may have saved an answer to the same key first; that answer is replayed.
async fn conflicted(
    store: &Store,
    keyed: &KeyedRequest,
    response: Response,
) -> Result<Response, Problem> {
    let known = keyed.first.as_ref().map_or(0, |first| first.version);
    match keyed.stored(store).await? {
        Some(first) if first.version > known => {
            keyed.check(&first)?;
            Ok(replayed(first))
        }
        _ => Ok(response),
    }
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

fn replayed(first: AnswerRecord) -> Response {
    let status = StatusCode::from_u16(first.status).unwrap_or(StatusCode::OK);
    let headers = [
        (header::CONTENT_TYPE, first.content_type),
        (REPLAYED_HEADER, "true".to_owned()),
    ];
    (status, headers, first.body).into_response()
}

/// Saves an answer that was not part of a Commit. The effect is durable, so a failure here is only logged.
async fn save(
    store: &Store,
    keyed: &KeyedRequest,
    response: Response,
) -> Result<Response, Problem> {
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
    commit.put(&keyed.answer(parts.status, content_type.unwrap_or(JSON), text));
    fail::fail_point!("web.before_save", |_| std::process::abort());
    let stored = store.commit(commit).await;
    fail::fail_point!("web.after_save", |_| std::process::abort());
    let response = Response::from_parts(parts, Body::from(bytes));
    match stored {
        Ok(()) => Ok(response),
        Err(CommitError::Conflict { .. }) => conflicted(store, keyed, response).await,
        Err(error) => {
            tracing::warn!(%error, "cannot save the answer to an idempotency key");
            Ok(response)
        }
    }
}

#[cfg(test)]
mod tests;
