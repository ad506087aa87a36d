//! OpenAPI schemas of texts that several services accept. They match the validation, so a request that fits its schema
//! is not refused for its form.

use std::ops::RangeInclusive;

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
    let description = "A name that can be seen, on one line.";
    text(Type::String, 1..=NAME_CHARS_MAX, NAME_PATTERN, description)
}

/// The name of an account holder: like [`name`], but shorter.
#[must_use]
pub fn holder_name() -> RefOr<Schema> {
    let chars = 1..=HOLDER_CHARS_MAX;
    text(Type::String, chars, NAME_PATTERN, "Whose account it is.")
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
    let chars = chars_min..=REASON_CHARS_MAX;
    text(types, chars, PLAIN_PATTERN, "A text on one line.")
}

fn text(
    types: impl Into<SchemaType>,
    chars: RangeInclusive<usize>,
    pattern: &str,
    description: &str,
) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(types);
    let text = text.min_length(Some(*chars.start()));
    let text = text.max_length(Some(*chars.end()));
    let text = text.pattern(Some(pattern)).description(Some(description));
    text.build().into()
}
