//! `Idempotency-Key` of POST and PUT: the same key and request is answered as it was the first time, and happens once.
//!
//! Kept is the answer to what was done. It is stored in the same Commit as the work wherever the handler can attach it
//! ([`Once::attach`]), so a crash leaves both or neither; else it is stored behind it. A refusal changes nothing, so
//! it is decided again, and so is what says that the outcome is still to come ([`Passing`]). If what was done can be
//! undone, the handler says whether the first answer still stands ([`Once::attach_revisable`]). Keys are counted by
//! route and caller ([`scope`]); a key of an address that no route has counts for nothing.

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
use messaging::{
    Clock, Commit, CommitError, Store,
    record::{Column, Key, Record, Table},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use self::scope::Asked;
use crate::{Problem, extract::BODY_BYTES_MAX};

pub use scope::record_key;

pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on an answer that was given before.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The first answer to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    pub key: String,
    pub fingerprint: String,
    pub status: u16,
    pub content_type: String,
    pub body: String,
    pub created_at: Timestamp,
    /// 1 if what it tells may be undone later; 0 if it stands for good.
    pub revisable: u8,
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
            Column::integer("revisable"),
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
    asked: Asked,
    at: Timestamp,
    /// The answer that was given first, if it may not stand any more.
    first: Option<AnswerRecord>,
    attached: AtomicBool,
}

/// In the extensions of a response: it tells of something under way, and is not kept.
#[derive(Debug, Clone, Copy)]
pub struct Passing;

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
            .chain_update(&keyed.asked.older_key)
            .chain_update([0])
            .chain_update(&keyed.asked.fingerprint)
            .finalize();
        let mut short = [0; 6];
        short.copy_from_slice(&digest[..6]);
        Some(short)
    }

    /// The first answer, if it was attached as one that may be undone. If what it tells still stands, the handler
    /// answers with [`replay`](Self::replay); else it decides anew, and the new answer takes its place.
    #[must_use]
    pub fn first<T: DeserializeOwned>(&self) -> Option<T> {
        let first = self.0.as_ref()?.first.as_ref()?;
        serde_json::from_str(&first.body).ok()
    }

    /// The first answer again.
    #[must_use]
    pub fn replay(&self) -> Option<Response> {
        self.0.as_ref()?.first.clone().map(replayed)
    }

    /// Makes the answer, and adds it to the Commit that does the work.
    pub fn attach<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
    ) -> Response {
        self.attach_as(commit, status, answer, 0)
    }

    /// As [`attach`](Self::attach), for work that may be undone later: see [`first`](Self::first).
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

impl Keyed {
    fn answer(&self, status: StatusCode, content_type: &str, body: String) -> AnswerRecord {
        let first = self.first.as_ref();
        AnswerRecord {
            key: first
                .map_or(&self.asked.record_key, |first| &first.key)
                .clone(),
            fingerprint: self.asked.fingerprint.clone(),
            status: status.as_u16(),
            content_type: content_type.to_owned(),
            body,
            created_at: self.at,
            revisable: 0,
            version: first.map_or(0, |first| first.version),
        }
    }

    /// The answer as it is stored now.
    async fn stored(&self, store: &Store) -> Result<Option<AnswerRecord>, Problem> {
        let (new, older) = (&self.asked.record_key, &self.asked.older_key);
        let mut keys = vec![new.as_str().into()];
        keys.extend((new != older).then(|| older.as_str().into()));
        let mut rows = store.load_rows(AnswerRecord::TABLE, &keys).await?;
        // Its own name comes before that of an earlier program.
        let is_own = |row: &messaging::Row| {
            row.get("key").and_then(serde_json::Value::as_str) == Some(new.as_str())
        };
        rows.sort_by_key(|row| !is_own(row));
        let first = rows.first().map(messaging::Row::read).transpose();
        Ok(first.map_err(messaging::StoreError::from)?)
    }

    /// # Errors
    /// 422 for another request.
    fn check(&self, first: &AnswerRecord) -> Result<(), Problem> {
        if self.asked.is_of(&first.fingerprint) {
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

/// Removes the key from those in flight when the request is over, however it ends.
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

/// Whether a request has a key that counts for something.
#[must_use]
pub fn is_keyed(request: &Request) -> bool {
    let takes_keys = [Method::POST, Method::PUT].contains(request.method());
    let is_routed = request.extensions().get::<MatchedPath>().is_some();
    takes_keys && is_routed && request.headers().contains_key(HEADER)
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
    if !is_keyed(&request) {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let bytes = read_body(body).await?;
    let mut keyed = Keyed {
        asked: Asked::read(&parts, &bytes)?,
        at: state.clock.now(),
        first: None,
        attached: AtomicBool::new(false),
    };
    let _in_flight = state.enter(&keyed.asked.record_key)?;
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
    /// 409 while another request has the key.
    fn enter(&self, key: &str) -> Result<InFlight<'_>, Problem> {
        let mut keys = self
            .in_flight
            .lock()
            .expect("no holder of this lock panics");
        if !keys.insert(key.to_owned()) {
            let detail = "the first request with this key is still under way";
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

/// Keeps what is to be kept and is not yet.
async fn finish(store: &Store, keyed: &Keyed, response: Response) -> Result<Response, Problem> {
    let is_done = response.status().is_success();
    let is_kept = keyed.attached.load(Ordering::Acquire)
        || response.headers().contains_key(REPLAYED_HEADER)
        || response.extensions().get::<Passing>().is_some();
    if is_done && !is_kept {
        return save(store, keyed, response).await;
    }
    if response.status() == StatusCode::CONFLICT {
        return conflicted(store, keyed, response).await;
    }
    Ok(response)
}

/// Another process may have been asked at the same moment, and was faster: a key has one answer.
async fn conflicted(store: &Store, keyed: &Keyed, response: Response) -> Result<Response, Problem> {
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

/// Stores an answer that was not part of a Commit. What it tells is done, whether or not it can be stored.
async fn save(store: &Store, keyed: &Keyed, response: Response) -> Result<Response, Problem> {
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
            tracing::warn!(%error, "the answer to a key is not kept");
            Ok(response)
        }
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

    async fn refuses() -> Problem {
        Problem::conflict("SOLD_OUT", "not now")
    }

    async fn is_under_way() -> Response {
        let mut response = StatusCode::ACCEPTED.into_response();
        response.extensions_mut().insert(Passing);
        response
    }

    #[tokio::test]
    async fn only_what_was_done_is_kept_and_nothing_of_addresses_that_no_route_has() {
        let folder = tempfile::tempdir().unwrap();
        let tables = &[AnswerRecord::TABLE];
        let store = Store::open_embedded(folder.path(), tables, Metrics::unregistered()).unwrap();
        let idempotency = Idempotency::new(store.clone(), Clock::System);
        let router = Router::new()
            .route("/refuses", routing::post(refuses))
            .route("/under-way", routing::post(is_under_way))
            .route("/done", routing::put(async || "done").get(async || "read"))
            .layer(middleware::from_fn_with_state(idempotency, once));
        let ask = |method: Method, path: &str, keys: &[&str]| {
            let mut request = Request::builder().method(method).uri(path);
            for key in keys {
                request = request.header(HEADER, *key);
            }
            let answer = router.clone().oneshot(request.body(Body::empty()).unwrap());
            async move { answer.await.unwrap() }
        };
        let long = format!("/nowhere/{}", "x".repeat(60_000));
        for (method, path, status) in [
            (Method::POST, "/refuses", 409),
            (Method::POST, "/under-way", 202),
            (Method::POST, "/done", 405),
            (Method::POST, &long, 404),
            (Method::GET, "/done", 200),
        ] {
            assert_eq!(ask(method, path, &["k"]).await.status(), status, "{path}");
        }
        let find = || messaging::Find::all(AnswerRecord::TABLE, 10);
        let kept: Vec<AnswerRecord> = store.find(find()).await.unwrap();
        assert_eq!(kept, []);

        assert_eq!(ask(Method::PUT, "/done", &["k", "l"]).await.status(), 400);
        for is_replayed in [false, true] {
            let done = ask(Method::PUT, "/done", &["k"]).await;
            assert_eq!(done.status(), 200);
            assert_eq!(done.headers().contains_key(REPLAYED_HEADER), is_replayed);
        }
        let kept: Vec<AnswerRecord> = store.find(find()).await.unwrap();
        assert_eq!(kept.len(), 1);
    }
}
