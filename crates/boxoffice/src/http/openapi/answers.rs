//! The responses that the guard, the idempotency keys and the body extractor add to each route, and the form of refusals.

use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, Type, path::Operation,
};

use super::takes_key;

const PROBLEM: &str = "application/problem+json";
/// Never refused by the guard.
const HEALTH: &str = "/healthz";

/// The properties of an operation that decide its additional responses.
struct OperationTraits<'a> {
    path: &'a str,
    takes_key: bool,
    is_read: bool,
    has_body: bool,
    has_parameters: bool,
}

/// Status, code, and the operations that return it.
type CommonAnswer = (&'static str, &'static str, fn(&OperationTraits<'_>) -> bool);

const COMMON_ANSWERS: &[CommonAnswer] = &[
    ("400", "INVALID_REQUEST", |it| {
        it.has_parameters || it.has_body
    }),
    ("403", "CROSS_ORIGIN_REQUEST", |it| !it.is_read),
    ("409", "IDEMPOTENCY_KEY_IN_FLIGHT", |it| it.takes_key),
    ("413", "BODY_TOO_LARGE", |it| it.has_body || it.takes_key),
    ("415", "UNSUPPORTED_ENCODING", |it| !it.is_read),
    ("421", "UNKNOWN_HOST", |it| {
        !matches!(it.path, HEALTH | "/readyz")
    }),
    ("422", "IDEMPOTENCY_KEY_REUSED", |it| it.takes_key),
    ("500", "INTERNAL", |_| true),
    ("503", "OVERLOADED", |it| it.path != HEALTH),
    ("503", "UNAVAILABLE", |it| it.path != HEALTH),
    ("504", "REQUEST_TIMEOUT", |it| it.path != HEALTH),
];

/// Adds the guard's responses, and completes the form of all responses.
pub fn complete(path: &str, method: &str, operation: &mut Operation) {
    let traits = OperationTraits {
        path,
        takes_key: takes_key(method),
        is_read: method == "get",
        has_body: operation.request_body.is_some(),
        has_parameters: operation
            .parameters
            .as_ref()
            .is_some_and(|all| !all.is_empty()),
    };
    let responses = &mut operation.responses.responses;
    for (status, code, is_given) in COMMON_ANSWERS {
        if is_given(&traits) {
            let response = responses
                .entry((*status).to_owned())
                .or_insert_with(|| RefOr::T(Response::new("")));
            if let RefOr::T(response) = response {
                name_code(response, code);
            }
        }
    }
    for (status, response) in responses {
        let RefOr::T(response) = response else {
            continue;
        };
        if status.starts_with(['4', '5']) {
            make_problem(status, response);
        } else if response.description.is_empty() {
            response.description = done(status).to_owned();
        }
    }
}

fn name_code(response: &mut Response, code: &str) {
    let text = &mut response.description;
    if text.is_empty() {
        text.push_str(code);
    } else if !text.contains(code) {
        text.push_str(", ");
        text.push_str(code);
    }
}

fn make_problem(status: &str, response: &mut Response) {
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ProblemDetails")))
        .build();
    response.content.clear();
    response.content.insert(PROBLEM.to_owned(), RefOr::T(body));
    if status == "503" {
        let secs = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1));
        let header = HeaderBuilder::new().schema(Some(secs));
        let header = header.description(Some("Seconds to wait before the request is sent again."));
        response
            .headers
            .insert("Retry-After".to_owned(), RefOr::T(header.build()));
    }
}

fn done(status: &str) -> &'static str {
    match status {
        "201" => "Created.",
        "202" => "Accepted.",
        "204" => "Done.",
        _ => "OK.",
    }
}
