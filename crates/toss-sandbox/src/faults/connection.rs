//! How an answer is broken in transit.
//!
//! An HTTP handler cannot close its connection without an answer. So every connection of [`Sandbox::serve`] has a
//! [`ConnectionCutter`], which the handler finds in the extensions of the request. After [`ConnectionCutter::cut`] every
//! write fails, and the server drops the connection with the answer unsent. Under another server the body fails instead:
//! the answer is never complete, but its head may be sent.
//!
//! [`Sandbox::serve`]: crate::Sandbox::serve

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use futures::{StreamExt, stream};
use tokio::net::TcpListener;

use super::script::Fault;
use crate::state::StoredAnswer;
use toss::ErrorCode;

/// Cuts the connection of a request; without effect if it has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionCutter(Option<Arc<std::net::TcpStream>>);

impl ConnectionCutter {
    /// Makes every later write fail.
    fn cut(&self) {
        if let Some(connection) = &self.0 {
            // It fails only if the peer has closed the connection already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for ConnectionCutter {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        // Nagle's algorithm may delay an answer by 40 ms; if the option cannot be set, answers are only slower.
        let _ = stream.io().set_nodelay(true);
        let connection = stream.io().as_fd().try_clone_to_owned();
        Self(connection.ok().map(|it| Arc::new(it.into())))
    }
}

/// Applies a fault before the request is executed; returns an answer if it must not be executed.
pub(crate) async fn before(fault: Option<&Fault>, cutter: &ConnectionCutter) -> Option<Response> {
    match fault {
        Some(Fault::DropBefore) => Some(no_answer(cutter)),
        Some(Fault::Hang { millis }) => {
            wait(*millis).await;
            Some(no_answer(cutter))
        }
        Some(Fault::InFlight) => Some(refuse(ErrorCode::IDEMPOTENT_REQUEST_PROCESSING)),
        Some(Fault::Delay { millis }) => {
            wait(*millis).await;
            None
        }
        Some(_) | None => None,
    }
}

/// Applies a fault to the answer after the request was executed.
pub(crate) async fn after(
    fault: Option<&Fault>,
    answer: StoredAnswer,
    cutter: &ConnectionCutter,
) -> Response {
    match fault {
        Some(Fault::DoThenDrop) => no_answer(cutter),
        Some(Fault::DoAnswerThenDrop) => partial_answer(answer),
        Some(Fault::DoThenHang { millis }) => {
            wait(*millis).await;
            no_answer(cutter)
        }
        Some(Fault::DoThen500) => refuse(ErrorCode::FAILED_INTERNAL_SYSTEM_PROCESSING),
        Some(Fault::WrongContentType) => web_page(answer),
        Some(Fault::TruncatedBody) => StoredAnswer {
            body: half(&answer.body).to_owned(),
            ..answer
        }
        .into_response(),
        Some(Fault::LieProviderError) => refuse(ErrorCode::PROVIDER_ERROR),
        Some(_) | None => answer.into_response(),
    }
}

fn refuse(code: ErrorCode) -> Response {
    StoredAnswer::from(code).into_response()
}

async fn wait(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Closes the connection without an answer.
fn no_answer(cutter: &ConnectionCutter) -> Response {
    cutter.cut();
    let failing = stream::once(async { Err::<Bytes, _>(aborted()) });
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        Body::from_stream(failing),
    )
        .into_response()
}

/// Closes the connection after the head and half of the body.
fn partial_answer(answer: StoredAnswer) -> Response {
    let length = answer.body.len();
    let first = Bytes::copy_from_slice(half(&answer.body).as_bytes());
    let parts = stream::once(async { Ok(first) }).chain(stream::once(async {
        // The server flushes when the body is pending: without this the first half would be lost too.
        tokio::task::yield_now().await;
        Err(aborted())
    }));
    let mut response = answer.into_response();
    *response.body_mut() = Body::from_stream(parts);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn web_page(answer: StoredAnswer) -> Response {
    let mut response = answer.into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// Bodies contain non-ASCII characters: cut at a character boundary.
fn half(body: &str) -> &str {
    let middle = (0..=body.len() / 2)
        .rev()
        .find(|index| body.is_char_boundary(*index));
    &body[..middle.unwrap_or(0)]
}

fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
