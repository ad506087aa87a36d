//! `Idempotency-Key` of POST and PUT: a repeated request with the same key gets the saved answer, and takes effect once.
//!
//! Only answers of successful requests are saved. A use case adds the answer to the Commit of its work
//! ([`IdempotentRequest::answer`]), so that a crash leaves both or neither; the middleware saves other answers after the
//! work. A refusal changes nothing and is decided again, and so is an answer whose outcome is [`pending`]. If the effect
//! may be undone later ([`IdempotentRequest::revisable_answer`]), the use case gets the saved answer and decides whether
//! it is still valid. Keys are scoped by route and caller ([`scope`]); unknown paths ignore them.
//!
//! - [`middleware`]: starts a keyed request or replays its saved answer
//! - [`record`]: the table of saved answers

mod middleware;
mod record;
mod scope;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension, Json,
    extract::FromRequestParts,
    http::{HeaderName, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use contract::Timestamp;
use messaging::{Commit, sha256};
use serde::{Serialize, de::DeserializeOwned};

use self::scope::RequestScope;
pub use middleware::{Idempotency, idempotent, is_keyed};
pub use record::AnswerRecord;
pub use scope::record_key;

pub const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks a replayed answer.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotency-replayed");
const JSON: &str = "application/json";

/// A request's idempotency key as its handler sees it; empty if the request has none.
#[derive(Debug, Clone, Default)]
pub struct IdempotentRequest(Option<Arc<KeyedRequest>>);

/// An answer that the same request got before, and whose effect may have been undone since.
#[derive(Debug)]
pub struct SavedAnswer<T> {
    pub answer: T,
    /// Replays the answer.
    pub response: Response,
}

/// A keyed request that takes effect now.
#[derive(Debug)]
struct KeyedRequest {
    scope: RequestScope,
    at: Timestamp,
    /// The saved answer, if its effect may have been undone since.
    saved: Option<AnswerRecord>,
}

/// In a response's extensions: its answer is saved already, or its outcome is pending.
#[derive(Debug, Clone, Copy)]
struct LeaveUnsaved;

impl<S: Send + Sync> FromRequestParts<S> for IdempotentRequest {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl IdempotentRequest {
    /// A short digest of the key and the request; `None` without a key.
    #[must_use]
    pub fn short_digest(&self) -> Option<[u8; 6]> {
        let scope = &self.0.as_ref()?.scope;
        let parts = [
            scope.older_key.as_bytes(),
            &[0],
            scope.fingerprint.as_bytes(),
        ];
        Some(sha256(&parts).first())
    }

    /// The answer that the same request got before, if it was saved as revisable. A new answer replaces it.
    #[must_use]
    pub fn saved<T: DeserializeOwned>(&self) -> Option<SavedAnswer<T>> {
        let saved = self.0.as_ref()?.saved.as_ref()?;
        Some(SavedAnswer {
            answer: serde_json::from_str(&saved.body).ok()?,
            response: saved.replay(),
        })
    }

    /// Makes the response, and adds its answer to the Commit of the work.
    pub fn answer<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
    ) -> Response {
        self.answer_as(commit, status, answer, 0)
    }

    /// The same for an effect that may be undone later: see [`saved`](Self::saved).
    pub fn revisable_answer<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
    ) -> Response {
        self.answer_as(commit, status, answer, 1)
    }

    fn answer_as<T: Serialize>(
        &self,
        commit: &mut Commit,
        status: StatusCode,
        answer: &T,
        revisable: u8,
    ) -> Response {
        let body = serde_json::to_string(answer).expect("answers have string keys only");
        if let Some(keyed) = &self.0 {
            commit.put(&AnswerRecord {
                revisable,
                ..keyed.record(status, JSON, body.clone())
            });
        }
        let headers = [(header::CONTENT_TYPE, JSON)];
        (status, Extension(LeaveUnsaved), headers, body).into_response()
    }
}

/// The response of a request whose outcome is pending. It is not saved.
pub fn pending<T: Serialize>(status: StatusCode, answer: T) -> Response {
    (status, Extension(LeaveUnsaved), Json(answer)).into_response()
}

impl KeyedRequest {
    fn record(&self, status: StatusCode, content_type: &str, body: String) -> AnswerRecord {
        let saved = self.saved.as_ref();
        AnswerRecord {
            key: saved
                .map_or(&self.scope.record_key, |saved| &saved.key)
                .clone(),
            fingerprint: self.scope.fingerprint.clone(),
            status: status.as_u16(),
            content_type: content_type.to_owned(),
            body,
            created_at: self.at,
            revisable: 0,
            version: saved.map_or(0, |saved| saved.version),
        }
    }
}

#[cfg(test)]
mod tests;
