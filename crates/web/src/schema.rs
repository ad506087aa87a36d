//! OpenAPI schemas of texts that several services accept. They match the validation, so a request that fits its schema
//! is not refused for its form.

use contract::text::{NAME_CHARS_MAX, NAME_PATTERN, PLAIN_PATTERN, REASON_CHARS_MAX};
use utoipa::openapi::{
    ObjectBuilder, RefOr, Schema,
    schema::{SchemaType, Type},
};

/// Characters of the name of an account holder.
pub const HOLDER_CHARS_MAX: usize = 60;

/// A name: no control characters, and at least one visible character.
#[must_use]
pub fn name() -> RefOr<Schema> {
    text(
        NAME_CHARS_MAX,
        NAME_PATTERN,
        "A name that can be seen, on one line.",
    )
}

/// The name of an account holder: like [`name`], but shorter.
#[must_use]
pub fn holder_name() -> RefOr<Schema> {
    text(HOLDER_CHARS_MAX, NAME_PATTERN, "Whose account it is.")
}

/// An optional reason on one line, which may be empty.
#[must_use]
pub fn reason() -> RefOr<Schema> {
    optional(0)
}

/// An optional reason on one line, not empty if given.
#[must_use]
pub fn stated_reason() -> RefOr<Schema> {
    optional(1)
}

fn optional(chars_min: usize) -> RefOr<Schema> {
    let types = SchemaType::from_iter([Type::String, Type::Null]);
    let reason = ObjectBuilder::new().schema_type(types);
    let reason = reason
        .min_length(Some(chars_min))
        .max_length(Some(REASON_CHARS_MAX));
    let reason = reason.pattern(Some(PLAIN_PATTERN));
    reason
        .description(Some("A text on one line."))
        .build()
        .into()
}

fn text(chars_max: usize, pattern: &str, description: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let text = text.min_length(Some(1)).max_length(Some(chars_max));
    let text = text.pattern(Some(pattern)).description(Some(description));
    text.build().into()
}
