//! Answers as the gateway gives them: JSON, and for errors a code with a message.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::state::StoredAnswer;
use toss::ErrorCode;
use toss::protocol::ErrorBody;

pub(crate) fn json(status: u16, body: &impl Serialize) -> StoredAnswer {
    let body = serde_json::to_string(body).expect("these bodies are plain structs");
    StoredAnswer { status, body }
}

pub(crate) fn error(code: ErrorCode) -> StoredAnswer {
    let message = format!("the sandbox answers {}", code.name());
    named(code.http_status(), code.name(), message)
}

/// An error whose code need not be in the table of codes.
pub(crate) fn named(status: u16, code: &str, message: impl Into<String>) -> StoredAnswer {
    let body = ErrorBody {
        code: code.to_owned(),
        message: message.into(),
    };
    json(status, &body)
}

pub(crate) fn refuse(code: ErrorCode) -> Response {
    respond(error(code))
}

pub(crate) fn file_error(error: &rusqlite::Error) -> Response {
    tracing::error!(%error, "cannot use the file of the sandbox");
    refuse(ErrorCode::FailedInternalSystemProcessing)
}

pub(crate) fn respond(StoredAnswer { status, body }: StoredAnswer) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (
        status,
        [(CONTENT_TYPE, "application/json;charset=UTF-8")],
        body,
    )
        .into_response()
}
