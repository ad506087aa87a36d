//! How an answer is broken in transit.
//!
//! An HTTP handler cannot close its connection without an answer. So [`CuttableListener`] gives every connection a
//! [`ConnectionCutter`], which the handler finds in the extensions of the request. After [`ConnectionCutter::cut`] every
//! write fails, and the server drops the connection with the answer unsent. If the router runs without
//! `CuttableListener` (in a test, behind a layer), the body fails instead: the answer is never complete, but its head may
//! be sent.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::connect_info::Connected;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::{IncomingStream, Listener};
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::script::Fault;
use crate::routes::answer::{self, refuse};
use crate::state::StoredAnswer;
use toss::ErrorCode;

/// Cuts the connection of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionCutter(Arc<AtomicBool>);

impl ConnectionCutter {
    /// Makes every later write fail.
    fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Accepts connections that can be cut.
pub(crate) struct CuttableListener(pub TcpListener);

impl Listener for CuttableListener {
    type Io = CuttableConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CuttableConnection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Nagle's algorithm may delay an answer by 40 ms; if the option cannot be set, answers are only slower.
        let _ = stream.set_nodelay(true);
        let connection = CuttableConnection {
            stream,
            cutter: ConnectionCutter::default(),
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for ConnectionCutter {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().cutter.clone()
    }
}

/// A connection that stops sending when it is cut.
pub(crate) struct CuttableConnection {
    stream: TcpStream,
    cutter: ConnectionCutter,
}

impl AsyncRead for CuttableConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cutter.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
        Some(Fault::InFlight) => Some(refuse(ErrorCode::IdempotentRequestProcessing)),
        Some(Fault::Delay { millis }) => {
            wait(*millis).await;
            None
        }
        Some(
            Fault::Refuse { .. }
            | Fault::DoThenDrop
            | Fault::DoAnswerThenDrop
            | Fault::DoThenHang { .. }
            | Fault::DoThen500
            | Fault::WrongContentType
            | Fault::TruncatedBody
            | Fault::LieProviderError
            | Fault::Drop
            | Fault::Duplicate { .. }
            | Fault::Reorder
            | Fault::Repeat { .. },
        )
        | None => None,
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
        Some(Fault::DoThen500) => refuse(ErrorCode::FailedInternalSystemProcessing),
        Some(Fault::WrongContentType) => web_page(answer),
        Some(Fault::TruncatedBody) => answer::respond(StoredAnswer {
            body: half(&answer.body).to_owned(),
            ..answer
        }),
        Some(Fault::LieProviderError) => refuse(ErrorCode::ProviderError),
        Some(
            Fault::Refuse { .. }
            | Fault::DropBefore
            | Fault::Hang { .. }
            | Fault::Delay { .. }
            | Fault::InFlight
            | Fault::Drop
            | Fault::Duplicate { .. }
            | Fault::Reorder
            | Fault::Repeat { .. },
        )
        | None => answer::respond(answer),
    }
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
    let parts = stream::unfold(Some(first), |rest| async move {
        match rest {
            Some(first) if !first.is_empty() => Some((Ok(first), Some(Bytes::new()))),
            Some(_) => {
                // The server flushes when the body is pending: without this the first half would be lost too.
                yield_once().await;
                Some((Err(aborted()), None))
            }
            None => None,
        }
    });
    let mut response = answer::respond(answer);
    *response.body_mut() = Body::from_stream(parts);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn web_page(answer: StoredAnswer) -> Response {
    let mut response = answer::respond(answer);
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

/// Pending once.
async fn yield_once() {
    let mut is_polled = false;
    poll_fn(|context| {
        if is_polled {
            return Poll::Ready(());
        }
        is_polled = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
