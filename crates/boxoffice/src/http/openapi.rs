//! The OpenAPI page: what is said of the whole, and names for operations.

use utoipa::openapi::{
    ContentBuilder, OpenApi, PathItem, Ref, RefOr, Response, ResponseBuilder,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
};

use super::problems::CODES;

/// Completes the page once every route is on it.
pub fn finish(page: &mut OpenApi) {
    describe(page);
    name_operations(page);
    add_common_answers(page);
}

/// Adds the codes, as a table, to the description of the OpenAPI page.
fn describe(page: &mut OpenApi) {
    let mut text = page.info.description.take().unwrap_or_default();
    text.push_str(
        "\n\nEvery POST takes an `Idempotency-Key`: the same key and body is answered as it was the first time, and \
         happens once.\n\nA refusal is a problem (RFC 9457, `application/problem+json`); programs decide by its \
         `code`:\n\n| status | code | meaning |\n|---|---|---|\n",
    );
    for (status, code, meaning) in CODES {
        text.push_str(&format!("| {status} | `{code}` | {meaning} |\n"));
    }
    page.info.description = Some(text);
}

/// Generated clients need a name for each operation, and services name theirs without knowing of each other.
fn name_operations(page: &mut OpenApi) {
    for (path, item) in &mut page.paths.paths {
        for (method, operation) in operations(item) {
            let words = path
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| !word.is_empty());
            let name = words.fold(method.to_owned(), |name, word| name + "_" + word);
            operation.operation_id = Some(name);
        }
    }
}

/// What the guard, the idempotency keys and the body's reader answer, on routes that do not say it themselves.
fn add_common_answers(page: &mut OpenApi) {
    for item in page.paths.paths.values_mut() {
        for (method, operation) in operations(item) {
            let is_post = method == "post";
            let has_body = operation.request_body.is_some();
            for (status, codes, is_given) in [
                ("413", "BODY_TOO_LARGE", has_body || is_post),
                ("409", "IDEMPOTENCY_KEY_IN_FLIGHT", is_post),
                ("422", "IDEMPOTENCY_KEY_REUSED", is_post),
                ("503", "OVERLOADED, UNAVAILABLE", method != "get"),
            ] {
                if is_given {
                    let responses = &mut operation.responses.responses;
                    responses
                        .entry(status.to_owned())
                        .or_insert_with(|| RefOr::T(problem(codes)));
                }
            }
            let parameters = operation.parameters.get_or_insert_default();
            let is_key =
                |it: &RefOr<Parameter>| matches!(it, RefOr::T(it) if it.name == "Idempotency-Key");
            if is_post && !parameters.iter().any(is_key) {
                let key = ParameterBuilder::new()
                    .name("Idempotency-Key")
                    .parameter_in(ParameterIn::Header);
                let told = "the same key and body is answered as the first time";
                parameters.push(RefOr::T(key.description(Some(told)).build()));
            }
        }
    }
}

fn problem(codes: &str) -> Response {
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("ProblemDetails")))
        .build();
    ResponseBuilder::new()
        .description(codes)
        .content("application/problem+json", body)
        .build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    [
        ("get", item.get.as_mut()),
        ("post", item.post.as_mut()),
        ("put", item.put.as_mut()),
        ("delete", item.delete.as_mut()),
        ("patch", item.patch.as_mut()),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation?)))
}
