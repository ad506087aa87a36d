//! Refusals and failures as the caller gets them: RFC 9457 problem details with a stable `code`. Internal causes are logged
//! here and are not sent to the caller.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::{TicketId, Timestamp};
use messaging::{CommitError, StoreError, TraceContext, trace};
use serde::Serialize;
use utoipa::ToSchema;

/// `Retry-After` of a request whose outcome is unknown until the store is reachable again.
const OUTCOME_AFTER_SECS: u32 = 5;

/// The answer to a refused or failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
    /// The wrong field or parameter.
    pub field: Option<String>,
    pub retry_after_secs: Option<u32>,
    /// The reservation that the caller already has.
    pub existing: Option<ExistingReservation>,
}

/// The user's existing reservation, because of which another one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExistingReservation {
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
}

/// The body of a problem: `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// A URI reference that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// Stable; programs should rely on it.
    pub code: String,
    /// For people; the text may change.
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// With ALREADY_RESERVED: the user's reservation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<TicketId>,
    /// With ALREADY_RESERVED: its deadline. If it has passed, the reservation is about to expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// With a failure: the `trace_id` of its log lines.
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
            existing: None,
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

    /// 500 `INTERNAL`; the caller logs the failure.
    #[must_use]
    pub fn internal(detail: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", detail)
    }

    /// 503: nothing was changed, and the request may be sent again.
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
            ticket_id: self.existing.map(|it| it.ticket_id),
            expires_at: self.existing.map(|it| it.expires_at),
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
                tracing::error!(%error, "cannot answer a request: the store is unavailable");
                Self::unavailable("UNAVAILABLE", "the service cannot answer now")
            }
            StoreError::Unknown(_) => {
                tracing::error!(%error, "the outcome of a request is not known yet");
                let detail = "whether the request took effect is not known yet; send it again with the same Idempotency-Key";
                Self {
                    retry_after_secs: Some(OUTCOME_AFTER_SECS),
                    ..Self::unavailable("OUTCOME_UNKNOWN", detail)
                }
            }
            StoreError::Corrupt(_) => {
                tracing::error!(%error, "cannot answer a request: stored data is corrupt");
                Self::internal("the service cannot read its stored data; the failure is logged")
            }
        }
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::conflict(
                "VERSION_CONFLICT",
                "another request changed it at the same time",
            ),
            CommitError::Store(error) => error.into(),
            CommitError::Constraint { .. } | CommitError::Fenced { .. } => {
                tracing::error!(%error, "the store refused the commit of a request");
                Self::internal("the store refused the change; the failure is logged")
            }
        }
    }
}
