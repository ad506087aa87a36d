//! Which gateway it is, as far as it may be stored and shown: enough to notice that another one is asked.

use std::fmt;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{Protocol, SecretKey, Settings};

/// A gateway, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Identity {
    /// The sandbox that a server runs for itself: it takes every payment, and no money.
    BuiltInSandbox,
    Toss {
        address: String,
        keys: KeyKind,
    },
}

/// What the merchant's secret key opens, by its documented beginning: `live_…` or `test_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyKind {
    Live,
    Test,
    /// None of the documented ones.
    Other,
}

impl Identity {
    /// The gateway at the address of the settings.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        // The same address has one name: a host in small letters, no slash at its end.
        let parsed = Url::parse(&settings.base_url).map(String::from);
        let address = parsed.unwrap_or_else(|_| settings.base_url.clone());
        match settings.protocol {
            Protocol::Toss => Self::Toss {
                address: address.trim_end_matches('/').to_owned(),
                keys: settings.secret_key.kind(),
            },
        }
    }

    /// Whether what is charged at one is a charge at the other, but for the address.
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

impl SecretKey {
    /// What it opens.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self.beginning() {
            "live" => KeyKind::Live,
            "test" => KeyKind::Test,
            _ => KeyKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(base_url: &str, secret: &str) -> Identity {
        Identity::of(&Settings {
            base_url: base_url.to_owned(),
            secret_key: SecretKey::new(secret),
            ..Settings::default()
        })
    }

    #[test]
    fn the_same_gateway_is_known_again_and_another_is_another() {
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
