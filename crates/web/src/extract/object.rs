//! JSON objects only: Serde would also accept a list for a struct, field by field.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A value that JSON must write as an object.
#[derive(Debug)]
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_map(ObjectVisitor(PhantomData))?;
        Ok(Self(value))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(fields))
    }
}

/// For an optional field with a struct: `#[serde(default, deserialize_with = "web::optional_object")]`.
///
/// # Errors
/// If the value is neither an object nor `null`.
pub fn optional_object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let object = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(object.map(|Object(value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Inner {
        a: Option<u8>,
    }

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(default, deserialize_with = "optional_object")]
        inner: Option<Inner>,
    }

    #[test]
    fn a_list_is_refused_as_an_object_at_any_depth() {
        let read = |json| serde_json::from_str::<Object<Outer>>(json).map(|Object(outer)| outer);
        let inner = read(r#"{"inner":{"a":1}}"#).unwrap().inner.unwrap();
        assert_eq!(inner.a, Some(1));
        for json in ["{}", r#"{"inner":null}"#] {
            assert!(read(json).unwrap().inner.is_none(), "{json}");
        }
        for json in [
            "[]",
            "[null]",
            r#"{"inner":[1]}"#,
            r#"{"inner":[]}"#,
            "1",
            "null",
        ] {
            let refused = read(json).unwrap_err().to_string();
            assert!(refused.contains("expected an object"), "{json}: {refused}");
        }
    }
}
