//! The identity of a gateway, without its secret: enough to detect that another one is configured.

use std::fmt;

use serde::{Deserialize, Serialize};
use toss::{KeyKind, Protocol, Settings};

/// A gateway, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Identity {
    /// The sandbox inside the server: it accepts every payment, and takes no money.
    BuiltInSandbox,
    Toss {
        address: String,
        keys: KeyKind,
    },
}

impl Identity {
    /// The gateway of the settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        match settings.protocol {
            Protocol::Toss => Self::Toss {
                address: settings.address(),
                keys: settings.secret_key.kind(),
            },
        }
    }

    /// Whether both are the same gateway apart from the address.
    #[must_use]
    pub fn is_of_same_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::BuiltInSandbox, Self::BuiltInSandbox) => true,
            (Self::Toss { keys, .. }, Self::Toss { keys: others, .. }) => keys == others,
            (Self::BuiltInSandbox, Self::Toss { .. })
            | (Self::Toss { .. }, Self::BuiltInSandbox) => false,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltInSandbox => formatter.write_str("the built-in sandbox"),
            Self::Toss { address, keys } => {
                let keys = match keys {
                    KeyKind::Live => "a live key",
                    KeyKind::Test => "a test key",
                    KeyKind::Other => "a key that is neither live_… nor test_…",
                };
                write!(formatter, "the gateway at {address} with {keys}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use toss::SecretKey;

    use super::*;

    fn identity(base_url: &str, secret: &str) -> Identity {
        Identity::of(&Settings {
            base_url: base_url.to_owned(),
            secret_key: SecretKey::new(secret),
            ..Settings::default()
        })
    }

    #[test]
    fn the_same_gateway_is_recognised_and_another_is_not() {
        let live = identity("https://api.tosspayments.com", "live_sk_1");
        assert_eq!(
            identity("HTTPS://API.tosspayments.com/", "live_gsk_2"),
            live
        );
        assert_ne!(identity("https://api.tosspayments.com", "test_sk_1"), live);
        assert_ne!(identity("http://api.tosspayments.com", "live_sk_1"), live);
        let moved = identity("https://gateway.example/toss", "live_sk_1");
        assert!(moved != live && moved.is_of_same_kind(&live));
        assert!(!Identity::BuiltInSandbox.is_of_same_kind(&live));
    }

    #[test]
    fn no_secret_is_stored_or_shown() {
        let live = identity("https://api.tosspayments.com", "live_sk_secret");
        let stored = serde_json::to_string(&live).unwrap();
        assert!(!format!("{live} {live:?} {stored}").contains("secret"));
    }
}
