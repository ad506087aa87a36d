//! Answers as the gateway gives them: JSON, and for errors a code with a message.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::state::StoredAnswer;
use toss::ErrorCode;
use toss::protocol::ErrorBody;

/// An answer, or an error that is the answer.
pub(crate) type Answered<T = StoredAnswer> = Result<T, StoredAnswer>;

pub(crate) fn json(status: u16, body: &impl Serialize) -> StoredAnswer {
    let body = serde_json::to_string(body).expect("these bodies are plain structs");
    StoredAnswer { status, body }
}

/// An error whose code need not be in the table of codes.
pub(crate) fn named(status: u16, code: &str, message: impl Into<String>) -> StoredAnswer {
    let body = ErrorBody {
        code: code.to_owned(),
        message: message.into(),
    };
    json(status, &body)
}

impl From<ErrorCode> for StoredAnswer {
    fn from(code: ErrorCode) -> Self {
        let message = format!("the sandbox answers {}", code.name());
        named(code.http_status(), code.name(), message)
    }
}

impl From<rusqlite::Error> for StoredAnswer {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(%error, "cannot use the file of the sandbox");
        ErrorCode::FAILED_INTERNAL_SYSTEM_PROCESSING.into()
    }
}

impl IntoResponse for StoredAnswer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = [(CONTENT_TYPE, "application/json;charset=UTF-8")];
        (status, headers, self.body).into_response()
    }
}
