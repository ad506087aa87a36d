//! Strict parsing of requests; each refusal names the wrong field.
//!
//! A text with the character U+0000 is refused anywhere in the body, the path and the query: PostgreSQL cannot store it,
//! and both stores must accept the same texts. Header values cannot contain it (RFC 9110, 5.5).

mod numbers;
mod object;

use std::str::FromStr;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Path, Query, Request},
    http::{StatusCode, Uri, request::Parts},
};
use contract::UserId;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::IntoParams;

use self::object::Object;
use crate::Problem;

pub use object::optional_object;

/// The largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The character that no text may contain.
const NUL: char = '\0';
/// Its escape in JSON; a JSON text cannot contain the character itself.
const NUL_ESCAPE: &[u8] = b"\\u0000";

/// A JSON body that is an object.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read(request, state).await?;
        let Object(value) = parse(&bytes)?;
        Ok(Self(value))
    }
}

/// An optional body: `Option<Body<T>>`.
impl<S: Send + Sync, T: DeserializeOwned> OptionalFromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let value = parse::<Option<Object<T>>>(&bytes)?;
        Ok(value.map(|Object(value)| Self(value)))
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state)
        .await
        .map_err(|error| unreadable(error.status()))
}

/// JSON has no integers, and some clients send `1.0` or `1e3` for a whole number. Such numbers are rewritten only if the
/// body was refused as it is.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if let Some(field) = field_with_nul(bytes) {
        return Err(has_nul(field));
    }
    parse_strictly(bytes).or_else(|refused| match numbers::with_integers(bytes) {
        Some(whole) => parse_strictly(&whole),
        None => Err(refused),
    })
}

fn parse_strictly<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value =
        serde_path_to_error::deserialize(&mut deserializer).map_err(|error| wrong_field(&error))?;
    deserializer
        .end()
        .map_err(|error| Problem::invalid("body", error))?;
    Ok(value)
}

fn has_nul(field: impl Into<String>) -> Problem {
    Problem::invalid(field, "a text may not contain the character U+0000")
}

/// The path of the field with the character; `None` for invalid JSON, which the parser refuses.
fn field_with_nul(bytes: &[u8]) -> Option<String> {
    let mut places = bytes.windows(NUL_ESCAPE.len());
    // This may be an escaped backslash instead of the escape.
    places.find(|place| *place == NUL_ESCAPE)?;
    let path = path_to_nul(&serde_json::from_slice(bytes).ok()?)?;
    let path = path.trim_start_matches('.');
    Some(if path.is_empty() { "body" } else { path }.to_owned())
}

/// The path of the first text with the character, as `.field[0].field`. The parser limits the depth of the recursion.
fn path_to_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains(NUL).then(String::new),
        Value::Array(items) => items.iter().enumerate().find_map(|(place, item)| {
            let path = path_to_nul(item)?;
            Some(format!("[{place}]{path}"))
        }),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let is_wrong = name.contains(NUL).then(String::new);
            let path = is_wrong.or_else(|| path_to_nul(value))?;
            Some(format!(".{}{path}", name.escape_debug()))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn unreadable(status: StatusCode) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        Problem {
            field: Some("body".to_owned()),
            ..too_large()
        }
    } else {
        incomplete()
    }
}

pub(crate) fn too_large() -> Problem {
    let detail = format_args!("the body is larger than {BODY_BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", detail)
}

pub(crate) fn incomplete() -> Problem {
    Problem::invalid("body", "the body could not be read to its end")
}

/// The missing, unknown or duplicate field that Serde names in its message.
fn named_in(text: &str) -> Option<&str> {
    ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|prefix| text.strip_prefix(prefix)?.split('`').next())
}

/// The parameter named in Serde's message, else the text before the first colon.
fn wrong_parameter(detail: &str) -> &str {
    let (path, text) = detail.split_once(": ").unwrap_or(("", detail));
    named_in(detail)
        .or_else(|| named_in(text))
        .or(Some(path).filter(|path| !path.is_empty()))
        .unwrap_or("query")
}

/// For a missing or unknown field the path may end at its object; its name is in Serde's message only.
fn wrong_field(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let detail = error.inner().to_string();
    let path = error.path().to_string();
    let named = named_in(&detail);
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

/// The id in the path.
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
            .ok_or_else(|| Problem::invalid("path", "the path has no readable id"))?;
        if text.contains(NUL) {
            return Err(has_nul(name));
        }
        text.parse()
            .map(Id)
            .map_err(|error| Problem::invalid(name, error))
    }
}

/// The caller: `?userId=`, set by a proxy that authenticates users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Caller {
    /// The caller, who must be the owner. If omitted, ownership is not checked.
    user_id: Option<UserId>,
}

impl Caller {
    /// The caller, whom the body may name too.
    ///
    /// # Errors
    /// 400 naming `userId` if the two differ.
    pub fn or(self, body: Option<UserId>) -> Result<Option<UserId>, Problem> {
        match (self.user_id, body) {
            (Some(query), Some(body)) if query != body => {
                let detail = "the query and the body name different users";
                Err(Problem::invalid("userId", detail))
            }
            (query, body) => Ok(query.or(body)),
        }
    }

    #[must_use]
    pub const fn user_id(self) -> Option<UserId> {
        self.user_id
    }
}

/// Query parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let wrong = pairs.ok().and_then(|Query(pairs)| {
            let has = |(name, value): &(String, String)| name.contains(NUL) || value.contains(NUL);
            pairs.into_iter().find(has)
        });
        if let Some((name, _)) = wrong {
            return Err(has_nul(name.escape_debug().to_string()));
        }
        read_query(&parts.uri).map(Self)
    }
}

/// As in a body, a whole number written as a fraction is rewritten only if the parameter was refused.
fn read_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let mut uri = uri.clone();
    loop {
        let refused = match Query::<T>::try_from_uri(&uri) {
            Ok(Query(value)) => return Ok(value),
            Err(rejection) => wrong_query(&rejection.body_text()),
        };
        let query = uri.query().unwrap_or_default();
        let whole = numbers::query_with_integer(query, refused.field.as_deref().unwrap_or(""));
        // Each iteration rewrites one fraction.
        match whole.and_then(|query| format!("/?{query}").parse().ok()) {
            Some(again) => uri = again,
            None => return Err(refused),
        }
    }
}

fn wrong_query(text: &str) -> Problem {
    let detail = text
        .rsplit_once("query string: ")
        .map_or(text, |(_, rest)| rest);
    Problem::invalid(wrong_parameter(detail), detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_nul_is_refused_at_any_depth_with_its_field_named() {
        for (body, field) in [
            (r#""a\u0000""#, "body"),
            (r#"{"name":"a\u0000"}"#, "name"),
            (r#"{"data":{"list":[1,{"x":"\u0000"}]}}"#, "data.list[1].x"),
            (r#"["a","\u0000b"]"#, "[1]"),
            (r#"{"a\u0000":1}"#, "a\\0"),
        ] {
            let refused = parse::<Value>(body.as_bytes()).unwrap_err();
            assert_eq!(refused.field.as_deref(), Some(field), "{body}");
            assert_eq!(refused.code, "INVALID_REQUEST");
        }
    }

    #[test]
    fn a_whole_fraction_is_accepted_for_a_number_and_kept_in_a_text() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Query {
            user: i64,
            limit: Option<u32>,
            after: Option<String>,
        }
        let read = |query: &str| read_query::<Query>(&format!("/a?{query}").parse().unwrap());
        let wanted = Query {
            user: 1_102_025,
            limit: Some(10),
            after: Some("1.0".to_owned()),
        };
        assert_eq!(read("user=1102025.0&limit=1e1&after=1.0").unwrap(), wanted);
        for (query, field) in [
            ("user=1.5", "user"),
            ("user=1&limit=-1.0", "limit"),
            ("user=1.0&user=1.0", "user"),
            ("user=1.0&other=1.0", "other"),
            ("user=", "user"),
        ] {
            let refused = read(query).unwrap_err();
            assert_eq!(refused.field.as_deref(), Some(field), "{query}");
        }
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_accepted() {
        for body in [r#"{"name":"a\\u0000"}"#, r#"{"name":"\u0001"}"#] {
            assert!(parse::<Value>(body.as_bytes()).is_ok(), "{body}");
        }
        // Invalid JSON is reported as such.
        let refused = parse::<Value>(br#"{"name":"\u0000""#).unwrap_err();
        assert!(refused.detail.contains("EOF"), "{}", refused.detail);
    }
}
