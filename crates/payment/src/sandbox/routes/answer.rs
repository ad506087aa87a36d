//! Answers as the gateway gives them: JSON, and for errors a code with a message.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::gateway::ErrorCode;
use crate::gateway::protocol::ErrorBody;
use crate::sandbox::state::Answer;

pub(in crate::sandbox) fn json(status: u16, body: &impl Serialize) -> Answer {
    let body = serde_json::to_string(body).expect("these bodies are plain structs");
    Answer { status, body }
}

pub(in crate::sandbox) fn error(code: ErrorCode) -> Answer {
    let message = format!("the sandbox answers {}", code.name());
    named(code.http_status(), code.name(), message)
}

/// An error by a name, where the table of codes need not know it.
pub(in crate::sandbox) fn named(status: u16, code: &str, message: impl Into<String>) -> Answer {
    let body = ErrorBody {
        code: code.to_owned(),
        message: message.into(),
    };
    json(status, &body)
}

pub(in crate::sandbox) fn refuse(code: ErrorCode) -> Response {
    tell(error(code))
}

pub(in crate::sandbox) fn broken(error: &rusqlite::Error) -> Response {
    tracing::error!(%error, "the sandbox's file failed");
    refuse(ErrorCode::FailedInternalSystemProcessing)
}

pub(in crate::sandbox) fn tell(Answer { status, body }: Answer) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (
        status,
        [(CONTENT_TYPE, "application/json;charset=UTF-8")],
        body,
    )
        .into_response()
}
