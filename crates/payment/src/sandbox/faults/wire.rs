//! How an answer is broken on its way.
//!
//! A server that answers nothing must close its connection without a byte, which no HTTP handler can do. So
//! [`Lines`] gives every connection a [`Line`], the handler finds it among its request's extensions, and
//! [`Line::cut`] makes every later write fail: the server then drops the connection with the answer unsent. Where
//! the router runs without `Lines` (in a test, behind a layer) the body fails instead: the answer is never whole,
//! but its head may be seen.

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
use crate::gateway::ErrorCode;
use crate::sandbox::routes::answer::{self, refuse};
use crate::sandbox::state::Answer;

/// Cuts the connection that a request came by.
#[derive(Clone, Debug, Default)]
pub(in crate::sandbox) struct Line(Arc<AtomicBool>);

impl Line {
    /// From now on nothing is sent.
    fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Accepts connections that can be cut.
pub(in crate::sandbox) struct Lines(pub TcpListener);

impl Listener for Lines {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Without it an answer may wait 40 ms for the caller's acknowledgement; a socket that refuses is only slower.
        let _ = stream.set_nodelay(true);
        let wire = Wire {
            stream,
            line: Line::default(),
        };
        (wire, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Lines>> for Line {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        stream.io().line.clone()
    }
}

/// A connection that stops sending when it is cut.
pub(in crate::sandbox) struct Wire {
    stream: TcpStream,
    line: Line,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.line.is_cut() {
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

/// What a fault does before anything is done; an answer where nothing is to be done.
pub(in crate::sandbox) async fn before(fault: Option<&Fault>, line: &Line) -> Option<Response> {
    match fault {
        Some(Fault::DropBefore) => Some(silence(line)),
        Some(Fault::Hang { millis }) => {
            wait(*millis).await;
            Some(silence(line))
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

/// What a fault makes of the answer when everything is done.
pub(in crate::sandbox) async fn after(
    fault: Option<&Fault>,
    answer: Answer,
    line: &Line,
) -> Response {
    match fault {
        Some(Fault::DoThenDrop) => silence(line),
        Some(Fault::DoAnswerThenDrop) => broken_off(answer),
        Some(Fault::DoThenHang { millis }) => {
            wait(*millis).await;
            silence(line)
        }
        Some(Fault::DoThen500) => refuse(ErrorCode::FailedInternalSystemProcessing),
        Some(Fault::WrongContentType) => web_page(answer),
        Some(Fault::TruncatedBody) => answer::tell(Answer {
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
        | None => answer::tell(answer),
    }
}

async fn wait(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// No answer at all, and no connection any more.
fn silence(line: &Line) -> Response {
    line.cut();
    let failing = stream::once(async { Err::<Bytes, _>(broken()) });
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        Body::from_stream(failing),
    )
        .into_response()
}

/// The head and half of the body, and no connection any more.
fn broken_off(answer: Answer) -> Response {
    let length = answer.body.len();
    let first = Bytes::copy_from_slice(half(&answer.body).as_bytes());
    let parts = stream::unfold(Some(first), |rest| async move {
        match rest {
            Some(first) if !first.is_empty() => Some((Ok(first), Some(Bytes::new()))),
            Some(_) => {
                // The server sends what it has when the body is not ready: without this the half would be lost too.
                pass_once().await;
                Some((Err(broken()), None))
            }
            None => None,
        }
    });
    let mut response = answer::tell(answer);
    *response.body_mut() = Body::from_stream(parts);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn web_page(answer: Answer) -> Response {
    let mut response = answer::tell(answer);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// Bodies are JSON with other than ASCII letters in them: cut where a letter ends.
fn half(body: &str) -> &str {
    let middle = (0..=body.len() / 2)
        .rev()
        .find(|index| body.is_char_boundary(*index));
    &body[..middle.unwrap_or(0)]
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// Not ready the first time.
async fn pass_once() {
    let mut is_asked = false;
    poll_fn(|context| {
        if is_asked {
            return Poll::Ready(());
        }
        is_asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
