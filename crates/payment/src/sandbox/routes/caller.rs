//! Who asks, by which line, and what exactly.

use std::convert::Infallible;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::gateway::ErrorCode;
use crate::gateway::protocol::{IDEMPOTENCY_HEADER, TEST_CODE_HEADER, is_idempotency_key};
use crate::sandbox::faults::test_code::TestCode;
use crate::sandbox::faults::wire::Line;
use crate::sandbox::shared::Shared;
use crate::sandbox::state::Request;

pub(super) struct Caller {
    headers: HeaderMap,
    /// Of its own, and cut in vain, where the router runs without such lines.
    pub line: Line,
}

/// A POST that can be judged.
pub(super) struct Asked<Body> {
    pub request: Request,
    pub body: Body,
    pub test_code: Option<TestCode>,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let line = parts.extensions.get::<ConnectInfo<Line>>();
        Ok(Self {
            headers: parts.headers.clone(),
            line: line
                .map(|ConnectInfo(line)| line.clone())
                .unwrap_or_default(),
        })
    }
}

impl Caller {
    /// Whether a test code comes with the request.
    pub fn tests(&self) -> bool {
        self.headers.contains_key(TEST_CODE_HEADER)
    }

    pub fn authenticate(&self, shared: &Shared) -> Result<(), ErrorCode> {
        let given = self.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if given == Some(shared.authorization.as_bytes()) {
            Ok(())
        } else {
            Err(ErrorCode::UnauthorizedKey)
        }
    }

    pub fn read<Body: Serialize + DeserializeOwned>(
        &self,
        shared: &Shared,
        path: String,
        bytes: &[u8],
    ) -> Result<Asked<Body>, ErrorCode> {
        self.authenticate(shared)?;
        let idempotency_key = self.text(IDEMPOTENCY_HEADER, ErrorCode::InvalidIdempotencyKey)?;
        if idempotency_key.is_some_and(|key| !is_idempotency_key(key)) {
            return Err(ErrorCode::InvalidIdempotencyKey);
        }
        let test_code = self
            .text(TEST_CODE_HEADER, ErrorCode::InvalidTestCode)?
            .map(TestCode::parse)
            .transpose()?;
        let body: Body = serde_json::from_slice(bytes).map_err(|_| ErrorCode::InvalidRequest)?;
        let request = Request {
            path,
            idempotency_key: idempotency_key.map(str::to_owned),
            body: serde_json::to_string(&body).map_err(|_| ErrorCode::InvalidRequest)?,
        };
        Ok(Asked {
            request,
            body,
            test_code,
        })
    }

    fn text(&self, name: &str, otherwise: ErrorCode) -> Result<Option<&str>, ErrorCode> {
        self.headers
            .get(name)
            .map(|value| value.to_str().map_err(|_| otherwise))
            .transpose()
    }
}
