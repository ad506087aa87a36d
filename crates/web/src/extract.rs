//! Strict reading of requests: whatever is wrong, the answer names the field.

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::Problem;

/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// A JSON body.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        parse(&bytes).map(Self)
    }
}

/// A body that may be left out: `Option<Body<T>>`.
impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        parse(&bytes).map(|value| Some(Self(value)))
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state)
        .await
        .map_err(|error| unreadable(error.status()))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| wrong_field(&error))?;
    deserializer
        .end()
        .map_err(|error| Problem::invalid("body", error))?;
    Ok(value)
}

fn unreadable(status: StatusCode) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        Problem {
            field: Some("body".to_owned()),
            ..Problem::new(status, "BODY_TOO_LARGE", detail)
        }
    } else {
        Problem::invalid("body", "the body could not be read to its end")
    }
}

/// Serde names a missing or unknown field in its text only; the path is then that of the object around it.
fn wrong_field(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let detail = error.inner().to_string();
    let path = error.path().to_string();
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| detail.strip_prefix(prefix)?.split('`').next());
    let field = match (path.as_str(), named) {
        ("." | "?", Some(name)) => name.to_owned(),
        ("." | "?", None) => "body".to_owned(),
        // The path of an unknown field already ends with its name.
        (path, Some(name)) if path == name || path.ends_with(&format!(".{name}")) => {
            path.to_owned()
        }
        (path, Some(name)) => format!("{path}.{name}"),
        (path, None) => path.to_owned(),
    };
    Problem::invalid(field, detail)
}

/// The one id in the path.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

impl<S, T> FromRequestParts<S> for Id<T>
where
    S: Send + Sync,
    T: FromStr<Err: std::fmt::Display>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let (name, text) = path
            .ok()
            .and_then(|Path(pairs)| pairs.into_iter().next())
            .ok_or_else(|| Problem::invalid("path", "the path has no id that can be read"))?;
        text.parse()
            .map(Id)
            .map_err(|error| Problem::invalid(name, error))
    }
}

/// Query parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let detail = text
                    .rsplit_once("query string: ")
                    .map_or(text.as_str(), |(_, rest)| rest);
                let field = detail
                    .split([':', ' '])
                    .next()
                    .unwrap_or("query")
                    .to_owned();
                Err(Problem::invalid(field, detail))
            }
        }
    }
}
