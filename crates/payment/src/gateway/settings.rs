//! Where the gateway is, which protocol it speaks, and how patient we are with it. What is printed shows no secret.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;

use super::protocol;

/// Longer than any gateway takes; a buyer is gone long before.
const TIMEOUT_MILLIS_MAX: u64 = 600_000;
/// As many connections as one address has ports.
const CONNECTIONS_MAX: u64 = 65_535;
/// More would only beat on a gateway that is down.
const LOOKUP_RETRIES_MAX: u64 = 10;

/// What the gateway speaks. Another protocol is one more name here and one more arm in [`super::Gateway`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Toss Payments: <https://docs.tosspayments.com/reference>.
    #[default]
    Toss,
}

/// Where the gateway is and how patient we are with it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub protocol: Protocol,
    /// `https://api.tosspayments.com`, or the address of a sandbox (plain `http://` is allowed).
    pub base_url: String,
    pub secret_key: SecretKey,
    /// From 1 to 600,000.
    pub connect_timeout_millis: u64,
    /// The whole exchange, repetitions included: waiting for a free slot, connecting, sending, and reading the last
    /// byte. From 1 to 600,000.
    pub request_timeout_millis: u64,
    /// Requests under way at once; further ones wait within their own timeout. From 1 to 65,535.
    pub max_connections: usize,
    /// How often a lookup or a list is asked again at once after a broken connection, within the request timeout.
    /// What moves money is never repeated here. From 0 to 10.
    pub lookup_retries: u32,
}

impl Default for Settings {
    /// The live gateway, without a secret: [`super::Gateway::new`] refuses until one is set.
    fn default() -> Self {
        Self {
            protocol: Protocol::Toss,
            base_url: "https://api.tosspayments.com".to_owned(),
            secret_key: SecretKey::new(""),
            connect_timeout_millis: 2_000,
            request_timeout_millis: 10_000,
            max_connections: 256,
            lookup_retries: 2,
        }
    }
}

impl Settings {
    /// # Errors
    /// [`Error::Limit`] with the name of the first limit that cannot work.
    pub(super) fn check_limits(&self) -> Result<(), Error> {
        let connections = u64::try_from(self.max_connections).unwrap_or(u64::MAX);
        within(
            "connect_timeout_millis",
            self.connect_timeout_millis,
            1..=TIMEOUT_MILLIS_MAX,
        )?;
        within(
            "request_timeout_millis",
            self.request_timeout_millis,
            1..=TIMEOUT_MILLIS_MAX,
        )?;
        within("max_connections", connections, 1..=CONNECTIONS_MAX)?;
        within(
            "lookup_retries",
            self.lookup_retries.into(),
            0..=LOOKUP_RETRIES_MAX,
        )
    }
}

fn within(name: &'static str, value: u64, range: RangeInclusive<u64>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = range.into_inner();
    Err(Error::Limit { name, min, max })
}

/// The merchant's secret. It can be sent, but never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretKey(String);

impl SecretKey {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The value of the `Authorization` header (RFC 7617: the key is the user, the password is empty).
    pub(crate) fn basic_authorization(&self) -> String {
        protocol::basic_authorization(&self.0)
    }

    /// What stands before the first `_`: it says what the key opens, and nothing of the secret.
    pub(super) fn beginning(&self) -> &str {
        self.0
            .split_once('_')
            .map_or("", |(beginning, _)| beginning)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text without the secret, plain or as the header carries it: a peer may quote what it was sent.
    pub(super) fn hidden_in(&self, text: &str) -> String {
        let header = self.basic_authorization();
        let token = header.trim_start_matches("Basic ");
        text.replace(token, "***").replace(&self.0, "***")
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Why a client could not be made. Nothing here carries the secret.
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
