//! Constraints that all parameters of a kind share, so that a request that matches the document is not refused for its
//! form.

use utoipa::openapi::{
    ObjectBuilder, RefOr, Schema, Type,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::SchemaType,
};
use web::page::{LIMIT_DEFAULT, LIMIT_MAX};

use super::takes_key;

const KEY: &str = "Idempotency-Key";
/// Excludes NUL, which PostgreSQL cannot store.
const WITHOUT_NUL: &str = r"^[^\u0000]*$";

pub fn complete(method: &str, operation: &mut Operation) {
    let parameters = operation.parameters.get_or_insert_default();
    parameters.retain(|it| !matches!(it, RefOr::T(it) if it.name == KEY));
    for parameter in parameters.iter_mut() {
        let RefOr::T(parameter) = parameter else {
            continue;
        };
        if parameter.name == "limit" {
            parameter.schema = Some(limit());
        } else if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema {
            let is_free =
                schema.format.is_none() && schema.pattern.is_none() && schema.enum_values.is_none();
            if is_text(&schema.schema_type) && is_free {
                // A missing parameter is absent, never null.
                schema.schema_type = Type::String.into();
                schema.pattern = Some(WITHOUT_NUL.to_owned());
            }
        }
    }
    if takes_key(method) {
        parameters.push(RefOr::T(key()));
    }
}

fn is_text(types: &SchemaType) -> bool {
    match types {
        SchemaType::Type(it) => *it == Type::String,
        SchemaType::Array(all) => all.contains(&Type::String),
        SchemaType::AnyValue => false,
    }
}

fn limit() -> RefOr<Schema> {
    let rows = ObjectBuilder::new().schema_type(Type::Integer);
    let rows = rows.minimum(Some(1)).maximum(Some(LIMIT_MAX));
    rows.default(Some(LIMIT_DEFAULT.into())).build().into()
}

fn key() -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let text = text.min_length(Some(1)).max_length(Some(255));
    let text = text.pattern(Some(r#"^"*[!#-~]([ -~]*[!-~])?$"#));
    let text_of_key = "A repeated request with the same key and body gets the first response again. The key may be quoted.";
    let key = ParameterBuilder::new()
        .name(KEY)
        .parameter_in(ParameterIn::Header);
    key.schema(Some(text))
        .description(Some(text_of_key))
        .build()
}
