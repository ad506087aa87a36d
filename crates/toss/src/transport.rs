//! One HTTP exchange with the gateway: a connection pool, a limit of requests in flight, a deadline over the whole
//! exchange, and a limit of the answer's size. It judges nothing. Reads are retried after a broken connection; requests
//! that move money are sent once.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Request, RequestBuilder, Url, redirect, retry};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use super::outcome::{Inconclusive, RawAnswer};
use super::protocol::{IDEMPOTENCY_HEADER, TEST_CODE_HEADER};
use super::{Error, Settings};

/// Ten times the largest payment object seen; a larger answer is not the gateway's.
pub(super) const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// Four times the longest page of transactions (5000 rows of about 400 bytes).
pub(super) const LISTING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Shorter than a server's usual minute, so that the client closes an idle connection first.
const POOL_IDLE_SECS_MAX: u64 = 30;

/// A POST without its body.
pub(super) struct Call<'a> {
    pub url: Url,
    pub idempotency_key: &'a str,
    pub test_code: Option<&'a str>,
}

/// Sends requests in place of the network.
pub trait Exchange: std::fmt::Debug + Send + Sync {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<HttpAnswer, ExchangeError>>;
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeError {
    /// The request was certainly not received.
    NoConnection,
    /// It may have been received.
    Broken,
}

#[derive(Debug)]
pub(super) struct Transport {
    http: Client,
    /// Used in place of `http`.
    exchange: Option<Arc<dyn Exchange>>,
    base_url: Url,
    request_timeout: Duration,
    slots: Semaphore,
    lookup_retries: u32,
}

impl Transport {
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        settings.check_limits()?;
        Ok(Self {
            http: client(settings)?,
            exchange: settings.exchange.clone(),
            base_url: base_url(&settings.base_url)?,
            request_timeout: Duration::from_millis(settings.request_timeout_millis),
            slots: Semaphore::new(settings.max_connections),
            lookup_retries: settings.lookup_retries,
        })
    }

    /// The address of a path below the base address; segments are escaped.
    pub fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .expect("an http address has a path")
            .pop_if_empty()
            .extend(segments);
        url
    }

    /// Sends a read, with retries; the timeout covers all of them.
    pub async fn get(&self, url: Url, bytes_max: usize) -> Result<RawAnswer, Inconclusive> {
        let exchanges = async {
            let mut retries_left = self.lookup_retries;
            loop {
                match self.exchange(self.http.get(url.clone()), bytes_max).await {
                    Err(reason) if reason.is_connection_failure() && retries_left > 0 => {
                        tracing::debug!(%reason, retries_left, "the gateway is asked again");
                        retries_left -= 1;
                    }
                    answered => return answered,
                }
            }
        };
        self.within_limits(exchanges).await
    }

    pub async fn post(&self, call: Call<'_>, body: Vec<u8>) -> Result<RawAnswer, Inconclusive> {
        let mut request = self
            .http
            .post(call.url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(IDEMPOTENCY_HEADER, call.idempotency_key)
            .body(body);
        if let Some(code) = call.test_code {
            request = request.header(TEST_CODE_HEADER, code);
        }
        self.within_limits(self.exchange(request, RESPONSE_BYTES_MAX))
            .await
    }

    async fn exchange(
        &self,
        request: RequestBuilder,
        bytes_max: usize,
    ) -> Result<RawAnswer, Inconclusive> {
        let Some(other) = &self.exchange else {
            return exchange(request, bytes_max).await;
        };
        let request = request.build().map_err(|error| inconclusive(&error))?;
        match other.send(request).await {
            Ok(answer) if answer.body.len() > bytes_max => Err(Inconclusive::TooLarge),
            Ok(answer) => Ok(RawAnswer {
                status: answer.status,
                is_json: is_json(&answer.content_type),
                body: without_nul(&answer.body),
            }),
            Err(ExchangeError::NoConnection) => Err(Inconclusive::NoConnection),
            Err(ExchangeError::Broken) => Err(Inconclusive::Broken),
        }
    }

    async fn within_limits(
        &self,
        exchange: impl Future<Output = Result<RawAnswer, Inconclusive>>,
    ) -> Result<RawAnswer, Inconclusive> {
        let exchange = async {
            let _slot = self
                .slots
                .acquire()
                .await
                .expect("the semaphore is never closed");
            exchange.await
        };
        tokio::time::timeout(self.request_timeout, exchange)
            .await
            .unwrap_or(Err(Inconclusive::Timeout))
    }
}

async fn exchange(request: RequestBuilder, bytes_max: usize) -> Result<RawAnswer, Inconclusive> {
    let mut response = request.send().await.map_err(|error| inconclusive(&error))?;
    let status = response.status().as_u16();
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(is_json);
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| inconclusive(&error))?
    {
        if body.len() + chunk.len() > bytes_max {
            return Err(Inconclusive::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(RawAnswer {
        status,
        is_json,
        body: without_nul(&body),
    })
}

/// Replaces the escape of U+0000, which PostgreSQL cannot store: an answer about money must be storable whatever text
/// the gateway sends.
const REPLACEMENT: &[u8; 6] = b"\\ufffd";

fn without_nul(json: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some((first, behind)) = rest.split_first() {
        // A backslash and the escaped byte belong together: an escaped backslash starts no escape.
        let (taken, put) = match (*first, behind) {
            (b'\\', [b'u', b'0', b'0', b'0', b'0', ..]) => (6, &REPLACEMENT[..]),
            (b'\\', [_, ..]) => (2, &rest[..2]),
            _ => (1, &rest[..1]),
        };
        kept.extend_from_slice(put);
        rest = &rest[taken..];
    }
    kept
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// Not the error of the library: its text may quote addresses.
fn inconclusive(error: &reqwest::Error) -> Inconclusive {
    if error.is_timeout() {
        Inconclusive::Timeout
    } else if error.is_connect() {
        Inconclusive::NoConnection
    } else {
        Inconclusive::Broken
    }
}

fn base_url(text: &str) -> Result<Url, Error> {
    let url = Url::parse(text).map_err(|_| Error::BaseUrl)?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if is_plain {
        Ok(url)
    } else {
        Err(Error::BaseUrl)
    }
}

fn client(settings: &Settings) -> Result<Client, Error> {
    Client::builder()
        .tls_backend_preconfigured(tls()?)
        .default_headers(headers(settings)?)
        .connect_timeout(Duration::from_millis(settings.connect_timeout_millis))
        .tcp_nodelay(true)
        .http1_only()
        .pool_max_idle_per_host(settings.max_connections)
        .pool_idle_timeout(Duration::from_secs(POOL_IDLE_SECS_MAX))
        // A redirect would send the secret to an address that is not configured.
        .redirect(redirect::Policy::none())
        .referer(false)
        // The caller decides when to retry, with the record of the attempt.
        .retry(retry::never())
        .no_proxy()
        .build()
        .map_err(Error::Client)
}

fn headers(settings: &Settings) -> Result<HeaderMap, Error> {
    if settings.secret_key.is_empty() {
        return Err(Error::SecretKey);
    }
    let mut authorization = HeaderValue::try_from(settings.secret_key.basic_authorization())
        .map_err(|_| Error::SecretKey)?;
    authorization.set_sensitive(true);
    Ok(HeaderMap::from_iter([
        (AUTHORIZATION, authorization),
        (ACCEPT, HeaderValue::from_static("application/json")),
    ]))
}

/// With its own cryptography provider, so that the process needs no global one.
fn tls() -> Result<ClientConfig, Error> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    Ok(
        ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_contains_no_text_that_a_store_refuses() {
        let given = r#"{"code":"A\u0000B","path":"C:\\u0000","line":"\n\u0000"}"#;
        let kept: serde_json::Value =
            serde_json::from_slice(&without_nul(given.as_bytes())).unwrap();
        let code = "A\u{fffd}B";
        let wanted = serde_json::json!({"code": code, "path": "C:\\u0000", "line": "\n\u{fffd}"});
        assert_eq!(kept, wanted);
        assert_eq!(without_nul(br"\u00"), br"\u00");
        assert_eq!(without_nul(b"\\"), b"\\");
    }
}
