//! The scope of a key, and the fingerprint of a request. Pure.
//!
//! A key's scope is its route (with the ids in the path) and its caller, if the request names one: two buyers with the
//! same key do not collide. Without a caller, the row of a POST is named as earlier programs name it, so that processes
//! of both versions replay each other's answers.

use axum::http::{HeaderMap, Method, request::Parts};
use contract::UserId;
use messaging::sha256;
use serde_json::Value;

use super::HEADER;
use crate::Problem;

const KEY_CHARS_MAX: usize = 255;
/// The field or query parameter with the caller.
const CALLER: &str = "userId";

/// The parts of a request that its key depends on.
#[derive(Debug)]
pub(super) struct RequestScope {
    /// The key of its row.
    pub record_key: String,
    /// The key of its row in earlier programs, which knew POST only; the same as `record_key` for other methods.
    pub older_key: String,
    /// The digest of the request, independent of the order of fields and of white space.
    pub fingerprint: String,
    /// The digest of the body's bytes, which earlier programs stored.
    pub older_fingerprint: String,
}

impl RequestScope {
    pub fn read(parts: &Parts, body: &[u8]) -> Result<Self, Problem> {
        let key = read_key(&parts.headers)?;
        let (path, query) = (parts.uri.path(), parts.uri.query());
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let caller = caller(json.as_ref(), query);
        // The fields of a `Value` are sorted.
        let sorted = json.map_or_else(|| body.to_vec(), |json| json.to_string().into_bytes());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let record_key = record_key(&parts.method, path, caller, &key);
        let older_key = if parts.method == Method::POST {
            older_key(path, &key)
        } else {
            record_key.clone()
        };
        Ok(Self {
            record_key,
            older_key,
            fingerprint: sha256(&[&sorted, query.as_bytes()]).to_string(),
            older_fingerprint: sha256(&[body]).to_string(),
        })
    }

    /// Whether this is the request with the saved answer.
    pub fn matches(&self, fingerprint: &str) -> bool {
        fingerprint == self.fingerprint || fingerprint == self.older_fingerprint
    }
}

/// The key of the row that saves the answer to an idempotency key.
#[must_use]
pub fn record_key(method: &Method, path: &str, caller: Option<UserId>, key: &str) -> String {
    if method == Method::POST && caller.is_none() {
        return older_key(path, key);
    }
    let caller = caller.map(|caller| caller.to_string()).unwrap_or_default();
    let parts = [path, "\0", &caller, "\0", key].map(str::as_bytes);
    format!("{method} {}", sha256(&parts))
}

fn older_key(path: &str, key: &str) -> String {
    format!("{path} {key}")
}

/// # Errors
/// 400 for a malformed key and for more than one key.
fn read_key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut keys = headers.get_all(HEADER).into_iter();
    let key = keys.next().filter(|_| keys.next().is_none());
    let Some(key) = key else {
        return Err(Problem::invalid("Idempotency-Key", "send exactly one key"));
    };
    let text = key.to_str().unwrap_or_default().trim().trim_matches('"');
    // A header value may contain a tab, which is not printable.
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if text.is_empty() || text.len() > KEY_CHARS_MAX || !is_printable {
        let detail = format!("the key is not 1 to {KEY_CHARS_MAX} printable ASCII characters");
        return Err(Problem::invalid("Idempotency-Key", detail));
    }
    Ok(text.to_owned())
}

/// The caller that the request names; the handler validates it.
fn caller(json: Option<&Value>, query: Option<&str>) -> Option<UserId> {
    let in_body = json.and_then(|json| json.get(CALLER)?.as_i64());
    let in_query = || {
        let mut pairs = query.unwrap_or_default().split('&');
        pairs.find_map(|pair| pair.strip_prefix(CALLER)?.strip_prefix('=')?.parse().ok())
    };
    in_body.or_else(in_query).map(UserId)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn scope_of(uri: &str, body: &str) -> RequestScope {
        let request = Request::post(uri).header(HEADER, "k").body(()).unwrap();
        RequestScope::read(&request.into_parts().0, body.as_bytes()).unwrap()
    }

    #[test]
    fn the_same_json_in_another_order_is_the_same_request() {
        let first = scope_of("/a", r#"{"eventId":1,"to":{"x":1,"y":[2,3]}}"#);
        let again = scope_of("/a", r#" {"to": {"y": [2, 3], "x": 1}, "eventId": 1}"#);
        assert_eq!(first.fingerprint, again.fingerprint);
        // The fingerprint of an earlier program matches too.
        assert!(again.matches(&again.older_fingerprint));
        for other in [
            r#"{"eventId":1,"to":{"x":1,"y":[3,2]}}"#,
            r#"{"eventId":2,"to":{"x":1,"y":[2,3]}}"#,
            "no json",
        ] {
            assert_ne!(
                scope_of("/a", other).fingerprint,
                first.fingerprint,
                "{other}"
            );
        }
        assert_ne!(
            scope_of("/a?x=1", "{}").fingerprint,
            scope_of("/a", "{}").fingerprint
        );
    }

    #[test]
    fn a_key_is_scoped_by_route_and_caller() {
        let one = scope_of("/ticketing/reserve", r#"{"userId":1}"#);
        let other = scope_of("/ticketing/reserve", r#"{"userId":2}"#);
        let in_query = scope_of("/ticketing/reserve?userId=1", "");
        assert_ne!(one.record_key, other.record_key);
        assert_eq!(one.record_key, in_query.record_key);
        assert_ne!(
            one.record_key,
            scope_of("/payment/confirm", r#"{"userId":1}"#).record_key
        );
        assert!(!one.record_key.contains("reserve"), "its length is fixed");
        // Without a caller: the key of earlier programs.
        assert_eq!(scope_of("/event", "{}").record_key, "/event k");
        let put = Request::put("/event/1").header(HEADER, "k");
        let (parts, ()) = put.body(()).unwrap().into_parts();
        let put = RequestScope::read(&parts, b"{}").unwrap();
        let post = scope_of("/event/1", "{}");
        for known in [&put.record_key, &put.older_key] {
            assert!(![&post.record_key, &post.older_key].contains(&known));
        }
    }

    #[test]
    fn duplicate_and_malformed_keys_are_refused() {
        let read = |keys: &[&str]| {
            let mut request = Request::post("/a");
            for key in keys {
                request = request.header(HEADER, *key);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            RequestScope::read(&parts, b"").map(|scope| scope.record_key)
        };
        let long = "k".repeat(256);
        for wrong in [
            &["a", "b"][..],
            &["a", "a"],
            &[""],
            &["\"\""],
            &["a\tb"],
            &[long.as_str()],
        ] {
            let refused = read(wrong).unwrap_err();
            assert_eq!(
                refused.field.as_deref(),
                Some("Idempotency-Key"),
                "{wrong:?}"
            );
        }
        assert_eq!(read(&["\"a\""]).unwrap(), "/a a");
    }
}
