//! The HTTP client by which commands use a Boxoffice server on this machine. It owns a pool of keep-alive connections.

use std::{fmt, fs, net::SocketAddr, path::Path};

use anyhow::Context;
use reqwest::{Client, Method, RequestBuilder};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{app::ADDRESS_FILE, server::reachable};

/// A client of one server.
pub struct ServerClient {
    client: Client,
    url: String,
}

/// A problem that the server answered (RFC 9457).
#[derive(Debug, Deserialize)]
pub struct ServerRefusal {
    pub status: u16,
    pub code: String,
    pub detail: String,
}

/// The response or the refusal; any other failure is an error.
pub type ServerAnswer<T> = anyhow::Result<Result<T, ServerRefusal>>;

impl ServerClient {
    /// # Errors
    /// If the client cannot be created; it does not connect yet.
    pub fn at(address: SocketAddr) -> anyhow::Result<Self> {
        // reqwest needs a TLS provider even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().build();
        Ok(Self {
            client: client.context("cannot create the HTTP client")?,
            url: format!("http://{}", reachable(address)),
        })
    }

    /// The client of the server that has this data folder open; `None` if no server has it open.
    ///
    /// # Errors
    /// If the server's address file is invalid.
    pub fn of_folder(data: &Path) -> anyhow::Result<Option<Self>> {
        let file = data.join(ADDRESS_FILE);
        let Ok(address) = fs::read_to_string(&file) else {
            return Ok(None);
        };
        let address = address
            .trim()
            .parse()
            .with_context(|| format!("{} does not contain an address", file.display()))?;
        Self::at(address).map(Some)
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request without a timeout. `path` starts with a slash, and may have a query.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }
}

/// # Errors
/// If the server does not respond, or its response cannot be parsed.
pub async fn send<T: DeserializeOwned>(request: RequestBuilder) -> ServerAnswer<T> {
    let response = request
        .send()
        .await
        .context("the server does not respond")?;
    let (status, url) = (response.status(), response.url().clone());
    if status.is_success() {
        let body = response.json().await;
        return Ok(Ok(
            body.with_context(|| format!("cannot parse the response of {url}"))?
        ));
    }
    let refusal = response.json().await;
    Ok(Err(refusal.with_context(|| {
        format!("{url} answered {status} without a problem code")
    })?))
}

impl fmt::Display for ServerRefusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            status,
            code,
            detail,
        } = self;
        write!(formatter, "{status} {code}: {detail}")
    }
}
