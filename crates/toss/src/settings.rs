//! The settings of a client: the address, the secret and the limits. Nothing here prints the secret.

use std::{fmt, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::transport::Exchange;

/// Longer than any gateway needs; the buyer has left long before.
const TIMEOUT_MILLIS_MAX: u64 = 600_000;
/// One address has no more ports.
const CONNECTIONS_MAX: u64 = 65_535;
/// More retries would only add load to a gateway that is down.
const LOOKUP_RETRIES_MAX: u64 = 10;

/// The name of the protocol in a configuration file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Toss Payments: <https://docs.tosspayments.com/reference>.
    #[default]
    Toss,
}

/// Where the gateway is, and the limits of the client.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub protocol: Protocol,
    /// `https://api.tosspayments.com`, or the address of a sandbox (`http://` is allowed).
    pub base_url: String,
    pub secret_key: SecretKey,
    /// From 1 to 600,000.
    pub connect_timeout_millis: u64,
    /// The deadline of a whole call with its retries, from waiting for a free slot to reading the last byte. From 1 to
    /// 600,000.
    pub request_timeout_millis: u64,
    /// Requests in flight at once; further ones wait within their own timeout. From 1 to 65,535.
    pub max_connections: usize,
    /// Immediate retries of a lookup or a list after a broken connection, within the request timeout. Requests that
    /// move money are never retried. From 0 to 10.
    pub lookup_retries: u32,
    /// Sends the requests in place of the network. Set by the program, not by an operator.
    #[serde(skip)]
    pub exchange: Option<Arc<dyn Exchange>>,
}

impl Default for Settings {
    /// The live gateway without a secret: [`Client::new`](super::Client::new) fails until one is set.
    fn default() -> Self {
        Self {
            protocol: Protocol::Toss,
            base_url: "https://api.tosspayments.com".to_owned(),
            secret_key: SecretKey::new(""),
            connect_timeout_millis: 2_000,
            request_timeout_millis: 10_000,
            max_connections: 256,
            lookup_retries: 2,
            exchange: None,
        }
    }
}

impl Settings {
    /// The base address in one normal form: lower-case host, no slash at the end.
    #[must_use]
    pub fn address(&self) -> String {
        let parsed = Url::parse(&self.base_url).map(String::from);
        let address = parsed.unwrap_or_else(|_| self.base_url.clone());
        address.trim_end_matches('/').to_owned()
    }

    /// # Errors
    /// [`Error::Limit`] with the name of the first limit that cannot work.
    pub(super) fn check_limits(&self) -> Result<(), Error> {
        let connections = u64::try_from(self.max_connections).unwrap_or(u64::MAX);
        let (connect, request) = (self.connect_timeout_millis, self.request_timeout_millis);
        let retries = self.lookup_retries.into();
        for (name, value, min, max) in [
            ("connect_timeout_millis", connect, 1, TIMEOUT_MILLIS_MAX),
            ("request_timeout_millis", request, 1, TIMEOUT_MILLIS_MAX),
            ("max_connections", connections, 1, CONNECTIONS_MAX),
            ("lookup_retries", retries, 0, LOOKUP_RETRIES_MAX),
        ] {
            if !(min..=max).contains(&value) {
                return Err(Error::Limit { name, min, max });
            }
        }
        Ok(())
    }
}

/// The merchant's secret key. It is sent, and never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretKey(String);

impl SecretKey {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The value of the `Authorization` header (RFC 7617: the key is the user, the password is empty).
    pub fn basic_authorization(&self) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(format!("{}:", self.0)))
    }

    /// The kind of the key, by its documented prefix.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self.0.split_once('_') {
            Some(("live", _)) => KeyKind::Live,
            Some(("test", _)) => KeyKind::Test,
            _ => KeyKind::Other,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` without the secret, plain or as in the header: a peer may quote the request.
    pub(super) fn hidden_in(&self, text: &str) -> String {
        let header = self.basic_authorization();
        let token = header.trim_start_matches("Basic ");
        text.replace(token, "***").replace(&self.0, "***")
    }
}

/// The kind of a secret key, by its documented prefix: `live_…` or `test_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyKind {
    Live,
    Test,
    /// Neither documented prefix.
    Other,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Why a client cannot be created. Nothing here carries the secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the gateway's base_url is not an http or https address without query")]
    BaseUrl,
    #[error("the gateway's secret_key is empty or cannot stand in a header")]
    SecretKey,
    #[error("the gateway's {name} must be from {min} to {max}")]
    Limit {
        name: &'static str,
        min: u64,
        max: u64,
    },
    #[error("the TLS settings were refused")]
    Tls(#[source] rustls::Error),
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_sent_as_a_user_without_a_password() {
        for (secret, header) in [
            ("", "Basic Og=="),
            ("f", "Basic Zjo="),
            ("foobar", "Basic Zm9vYmFyOg=="),
            (
                "test_sk_zXLkKEypNArWmo50nX3lmeaxYG5R",
                "Basic dGVzdF9za196WExrS0V5cE5BcldtbzUwblgzbG1lYXhZRzVSOg==",
            ),
        ] {
            assert_eq!(SecretKey::new(secret).basic_authorization(), header);
        }
    }
}
