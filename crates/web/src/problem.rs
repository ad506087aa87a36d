//! Refusals told to the caller: RFC 9457 problem details with a stable `code`. What went wrong inside stays inside:
//! it is logged where it is turned into a problem.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::{TicketId, Timestamp};
use messaging::{CommitError, StoreError, TraceContext, trace};
use serde::Serialize;
use utoipa::ToSchema;

/// When to ask again what became of a request: the store must be reached for that.
const OUTCOME_AFTER_SECS: u32 = 5;

/// What a refused request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    /// The field or parameter that is wrong.
    pub field: Option<String>,
    pub retry_after_secs: Option<u32>,
    /// What the caller has already.
    pub held: Option<HeldTicket>,
}

/// A reservation that stands in the way of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTicket {
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
}

/// The body of a refusal: `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// Stable: programs decide by it.
    pub code: String,
    /// For people; may change.
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Of ALREADY_RESERVED: the reservation that the user has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<TicketId>,
    /// Of ALREADY_RESERVED: its deadline. If it has passed, the reservation is being taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Of a failure: what its lines in the log carry as `trace_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl Problem {
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            status,
            code,
            detail: detail.to_string(),
            field: None,
            retry_after_secs: None,
            held: None,
        }
    }

    /// 400 `INVALID_REQUEST`, naming the field.
    #[must_use]
    pub fn invalid(field: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", detail)
        }
    }

    #[must_use]
    pub fn bad_request(code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    #[must_use]
    pub fn not_found(code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    #[must_use]
    pub fn conflict(code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    /// 503: nothing was done, and the same request may be sent again.
    #[must_use]
    pub fn unavailable(code: &'static str, detail: impl std::fmt::Display) -> Self {
        Self {
            retry_after_secs: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
        }
    }

    #[must_use]
    pub fn details(&self) -> ProblemDetails {
        ProblemDetails {
            kind: format!(
                "/docs/problems#{}",
                self.code.to_lowercase().replace('_', "-")
            ),
            title: self
                .status
                .canonical_reason()
                .unwrap_or("Refused")
                .to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            field: self.field.clone(),
            ticket_id: self.held.map(|held| held.ticket_id),
            expires_at: self.held.map(|held| held.expires_at),
            trace_id: self.trace_id(),
        }
    }

    fn trace_id(&self) -> Option<String> {
        let is_failure = self.status.is_server_error();
        let trace = is_failure.then(trace::current).flatten();
        trace.map(TraceContext::trace_id)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body =
            serde_json::to_vec(&self.details()).expect("problem details have string keys only");
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response();
        if let Some(secs) = self.retry_after_secs {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Overloaded => {
                Self::unavailable("OVERLOADED", "too many requests at once; try again shortly")
            }
            StoreError::Unavailable(_) | StoreError::Poisoned(_) => {
                tracing::error!(%error, "the store did not answer a request");
                Self::unavailable("UNAVAILABLE", "the service cannot answer now")
            }
            StoreError::Unknown(_) => {
                tracing::error!(%error, "a request's outcome is not known yet");
                let detail = "whether it was done is not known yet; send the request again with the same Idempotency-Key";
                Self {
                    retry_after_secs: Some(OUTCOME_AFTER_SECS),
                    ..Self::unavailable("OUTCOME_UNKNOWN", detail)
                }
            }
            StoreError::Corrupt(_) => {
                tracing::error!(%error, "stored data cannot be read");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "INTERNAL",
                    "the service found something it cannot read",
                )
            }
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::conflict(
                "VERSION_CONFLICT",
                "it was changed by another request at the same moment",
            ),
            CommitError::Store(error) => error.into(),
            CommitError::Constraint { .. } | CommitError::Fenced { .. } => {
                tracing::error!(%error, "a request's commit was refused");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "INTERNAL",
                    "the change was refused by the store",
                )
            }
        }
    }
}
