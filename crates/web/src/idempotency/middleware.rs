//! The middleware around all routes: starts a keyed request or replays its saved answer, and saves an answer that no
//! Commit has saved. Its state is the set of keys whose requests run in this process.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, header},
    middleware::Next,
    response::Response,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use messaging::{Clock, Commit, CommitError, Store};

use super::{
    HEADER, IdempotentRequest, JSON, KeyedRequest, LeaveUnsaved, record::AnswerRecord,
    scope::RequestScope,
};
use crate::{
    Problem,
    extract::{self, BODY_BYTES_MAX},
};

/// The state of the middleware.
#[derive(Clone)]
pub struct Idempotency {
    store: Store,
    clock: Clock,
    in_flight: Arc<Mutex<HashSet<String>>>,
}

/// What to do with a keyed request.
enum NextAction {
    Start(KeyedRequest),
    SavedAnswer(Response),
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

/// Whether a request has a key, and a method and a route that take one.
#[must_use]
pub fn is_keyed(request: &Request) -> bool {
    let takes_keys = [Method::POST, Method::PUT].contains(request.method());
    let is_routed = request.extensions().get::<MatchedPath>().is_some();
    takes_keys && is_routed && request.headers().contains_key(HEADER)
}

/// The middleware.
///
/// # Errors
/// 422 `IDEMPOTENCY_KEY_REUSED` for the key with another body; 409 `IDEMPOTENCY_KEY_IN_FLIGHT` while the first
/// request runs; 400 for a malformed key.
pub async fn idempotent(
    State(state): State<Idempotency>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if !is_keyed(&request) {
        return Ok(next.run(request).await);
    }
    let (parts, body) = request.into_parts();
    let bytes = read_body(body).await?;
    let scope = RequestScope::read(&parts, &bytes)?;
    let _in_flight = state.enter(&scope.record_key)?;
    let keyed = match state.next_action(scope).await? {
        NextAction::Start(keyed) => Arc::new(keyed),
        NextAction::SavedAnswer(response) => return Ok(response),
    };
    let mut request = Request::from_parts(parts, Body::from(bytes));
    request
        .extensions_mut()
        .insert(IdempotentRequest(Some(Arc::clone(&keyed))));
    let response = next.run(request).await;
    let is_saved = response.extensions().get::<LeaveUnsaved>().is_some();
    match response.status() {
        status if status.is_success() && !is_saved => state.save(&keyed, response).await,
        StatusCode::CONFLICT => state.replay_of_another(&keyed, response).await,
        _ => Ok(response),
    }
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

    /// # Errors
    /// 422 if the key was used with another request.
    async fn next_action(&self, scope: RequestScope) -> Result<NextAction, Problem> {
        let saved = AnswerRecord::load(&self.store, &scope).await?;
        Ok(match saved {
            Some(saved) if saved.revisable == 0 => NextAction::SavedAnswer(saved.replay()),
            saved => NextAction::Start(KeyedRequest {
                scope,
                at: self.clock.now(),
                saved,
            }),
        })
    }

    /// Another process may have saved an answer to the same key first; that answer is replayed.
    async fn replay_of_another(
        &self,
        keyed: &KeyedRequest,
        response: Response,
    ) -> Result<Response, Problem> {
        let known = keyed.saved.as_ref().map_or(0, |saved| saved.version);
        let saved = AnswerRecord::load(&self.store, &keyed.scope).await?;
        let newer = saved.filter(|saved| saved.version > known);
        Ok(newer.map_or(response, |saved| saved.replay()))
    }

    /// Saves an answer that was not part of a Commit. Its effect is durable, so a failure here is only logged.
    async fn save(&self, keyed: &KeyedRequest, response: Response) -> Result<Response, Problem> {
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
        commit.put(&keyed.record(parts.status, content_type.unwrap_or(JSON), text));
        fail::fail_point!("web.before_save", |_| std::process::abort());
        let stored = self.store.commit(commit).await;
        fail::fail_point!("web.after_save", |_| std::process::abort());
        let response = Response::from_parts(parts, Body::from(bytes));
        match stored {
            Ok(()) => Ok(response),
            Err(CommitError::Conflict { .. }) => self.replay_of_another(keyed, response).await,
            Err(error) => {
                tracing::warn!(%error, "cannot save the answer to an idempotency key");
                Ok(response)
            }
        }
    }
}

async fn read_body(body: Body) -> Result<Bytes, Problem> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(extract::too_large()),
        Err(_) => Err(extract::incomplete()),
    }
}
