//! The caller of a request: its credentials, its connection and its body.

use std::convert::Infallible;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::faults::connection::ConnectionCutter;
use crate::faults::test_code::TestCode;
use crate::shared::Shared;
use crate::state::Request;
use toss::ErrorCode;
use toss::protocol::{IDEMPOTENCY_HEADER, TEST_CODE_HEADER, is_idempotency_key};

pub(super) struct Caller {
    headers: HeaderMap,
    /// Without effect if another server than [`Sandbox::serve`](crate::Sandbox::serve) runs the router.
    pub cutter: ConnectionCutter,
}

/// A POST that passed authentication and parsing.
pub(super) struct PostRequest<Body> {
    pub request: Request,
    pub body: Body,
    pub test_code: Option<TestCode>,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let cutter = parts.extensions.get::<ConnectInfo<ConnectionCutter>>();
        Ok(Self {
            headers: parts.headers.clone(),
            cutter: cutter
                .map(|ConnectInfo(cutter)| cutter.clone())
                .unwrap_or_default(),
        })
    }
}

impl Caller {
    pub fn has_test_code(&self) -> bool {
        self.headers.contains_key(TEST_CODE_HEADER)
    }

    pub fn authenticate(&self, shared: &Shared) -> Result<(), ErrorCode> {
        let given = self.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if given == Some(shared.authorization.as_bytes()) {
            Ok(())
        } else {
            Err(ErrorCode::UNAUTHORIZED_KEY)
        }
    }

    pub fn read<Body: Serialize + DeserializeOwned>(
        &self,
        shared: &Shared,
        path: String,
        bytes: &[u8],
    ) -> Result<PostRequest<Body>, ErrorCode> {
        self.authenticate(shared)?;
        let idempotency_key = self.text(IDEMPOTENCY_HEADER, ErrorCode::INVALID_IDEMPOTENCY_KEY)?;
        if idempotency_key.is_some_and(|key| !is_idempotency_key(key)) {
            return Err(ErrorCode::INVALID_IDEMPOTENCY_KEY);
        }
        let test_code = self
            .text(TEST_CODE_HEADER, ErrorCode::INVALID_TEST_CODE)?
            .map(TestCode::parse)
            .transpose()?;
        let body: Body = serde_json::from_slice(bytes).map_err(|_| ErrorCode::INVALID_REQUEST)?;
        let request = Request {
            path,
            idempotency_key: idempotency_key.map(str::to_owned),
            body: serde_json::to_string(&body).map_err(|_| ErrorCode::INVALID_REQUEST)?,
        };
        Ok(PostRequest {
            request,
            body,
            test_code,
        })
    }

    fn text(&self, name: &str, error: ErrorCode) -> Result<Option<&str>, ErrorCode> {
        self.headers
            .get(name)
            .map(|value| value.to_str().map_err(|_| error))
            .transpose()
    }
}
