//! The OpenAPI page: what is said of the whole, and names for operations.

use utoipa::openapi::{OpenApi, PathItem, path::Operation};

use super::problems::CODES;

/// Completes the page once every route is on it.
pub fn finish(page: &mut OpenApi) {
    describe(page);
    name_operations(page);
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
