//! Completes the OpenAPI document of the services' routes: general description, operation ids, and what the guard adds to
//! each route. Pure.
//!
//! - [`answers`]: the responses that the guard adds
//! - [`parameters`]: constraints that all parameters of a kind share
//! - [`links`]: which operation takes a value of which response

mod answers;
mod links;
mod parameters;

use utoipa::openapi::{
    OpenApi, PathItem, ServerBuilder,
    path::{Operation, PathsMap},
};

use super::problems;

/// Completes the document once it has all routes.
pub fn finish(page: &mut OpenApi) {
    describe(page);
    name_operations(page);
    for (path, item) in &mut page.paths.paths {
        for (method, operation) in operations(item) {
            parameters::complete(method, operation);
            answers::complete(path, method, operation);
        }
    }
    links::add(page);
    drop_unused(page);
}

/// Drops components that nothing refers to, such as the items of a page, which are inlined.
fn drop_unused(page: &mut OpenApi) {
    let text = page.to_json().expect("a page has string keys only");
    if let Some(components) = &mut page.components {
        let is_used = |name: &String| text.contains(&format!("\"#/components/schemas/{name}\""));
        components.schemas.retain(|name, _| is_used(name));
    }
}

/// Adds the table of problem codes and the server's address.
fn describe(page: &mut OpenApi) {
    let mut text = page.info.description.take().unwrap_or_default();
    text.push_str(
        "\n\nEach POST and PUT takes an `Idempotency-Key`: a repeated request with the same key and body takes effect once \
         and gets the first response again. A refused request is decided again.\n\nA refusal is a problem (RFC 9457, \
         `application/problem+json`); programs decide by its `code`:\n\n",
    );
    text.push_str(problems::TABLE);
    page.info.description = Some(text);
    let here = ServerBuilder::new().url("/");
    page.servers = Some(vec![
        here.description(Some("The server of this document."))
            .build(),
    ]);
}

/// Derives operation ids from method and path: generated clients need unique ones, and services do not know each other.
fn name_operations(page: &mut OpenApi) {
    for (path, item) in &mut page.paths.paths {
        for (method, operation) in operations(item) {
            operation.operation_id = Some(operation_name(method, path));
        }
    }
}

fn operation_name(method: &str, path: &str) -> String {
    let words = path
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |name, word| name + "_" + word)
}

/// Whether a request may have an `Idempotency-Key`.
fn takes_key(method: &str) -> bool {
    matches!(method, "post" | "put")
}

fn operation_of<'a>(
    paths: &'a mut PathsMap<String, PathItem>,
    wanted: &str,
    path: &str,
) -> Option<&'a mut Operation> {
    let mut found = operations(paths.get_mut(path)?);
    found.find_map(|(method, operation)| (method == wanted).then_some(operation))
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
