//! Ids: newtypes around UUIDs and integers, and the derivation of stable ids from one another.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::sha256;

/// Why a text is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a {kind}")]
pub struct InvalidId {
    pub kind: &'static str,
    pub text: String,
}

/// Makes a newtype around a [`Uuid`] an id: it is displayed, parsed, and the key of a record.
///
/// ```
/// #[derive(Debug, Clone, Copy, PartialEq, Eq)]
/// struct AccountId(pub uuid::Uuid);
/// messaging::uuid_id!(AccountId);
/// ```
#[macro_export]
macro_rules! uuid_id {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::id::InvalidId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let invalid = |_| $crate::id::InvalidId {
                    kind: "UUID",
                    text: text.to_owned(),
                };
                text.parse().map($name).map_err(invalid)
            }
        }

        impl From<$name> for $crate::Key {
            fn from(id: $name) -> Self {
                Self::Text(id.to_string())
            }
        }
    };
}

/// Makes a newtype around an `i64` an id, as [`uuid_id!`](crate::uuid_id) does for a UUID.
#[macro_export]
macro_rules! integer_id {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::id::InvalidId;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let invalid = |_| $crate::id::InvalidId {
                    kind: "64-bit integer",
                    text: text.to_owned(),
                };
                text.parse().map($name).map_err(invalid)
            }
        }

        impl From<$name> for $crate::Key {
            fn from(id: $name) -> Self {
                Self::Integer(id.0)
            }
        }
    };
}

/// A saga, and the correlation and key of every request it sends.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct SagaId(pub Uuid);
uuid_id!(SagaId);

/// A message that a consumer could not handle.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct DeadLetterId(pub Uuid);
uuid_id!(DeadLetterId);

/// Makes a stable UUID out of another one and a label: deriving again gives the same id.
///
/// The time stamp of `parent` is kept, so that derived ids sort beside it; the other bits are a SHA-256 of both. The
/// version is 8 (RFC 9562, section 5.8: vendor-specific).
#[must_use]
pub fn derive(parent: Uuid, label: &str) -> Uuid {
    let digest: [u8; 10] = sha256(&[parent.as_bytes(), label.as_bytes()]).first();
    let mut bytes = [0_u8; 16];
    bytes[..6].copy_from_slice(&parent.as_bytes()[..6]);
    bytes[6..].copy_from_slice(&digest);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A stable UUID for a text, of version 8 as in [`derive`]; all other bits are a SHA-256 of it.
#[must_use]
pub fn digest(text: &str) -> Uuid {
    uuid::Builder::from_custom_bytes(sha256(&[text.as_bytes()]).first()).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_stable_distinct_and_sort_with_their_parent() {
        let parent = Uuid::parse_str("0192f0c1-2f00-7abc-8def-0123456789ab").unwrap();
        let one = derive(parent, "one");
        assert_eq!(one, derive(parent, "one"));
        assert_ne!(one, derive(parent, "two"));
        assert_eq!(one.as_bytes()[..6], parent.as_bytes()[..6]);
        assert_eq!(one.get_version_num(), 8);
    }
}
