//! Money and points: whole numbers, never below zero, checked arithmetic, never a float.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why an amount cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidAmount {
    #[error("an amount cannot be negative: {0}")]
    Negative(i64),
    #[error("the amount is out of range")]
    Overflow,
}

macro_rules! amount {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "i64", into = "i64")]
        #[schema(value_type = i64, minimum = 0)]
        pub struct $name(i64);

        impl $name {
            pub const ZERO: Self = Self(0);

            /// # Errors
            /// [`InvalidAmount::Negative`] below zero.
            pub fn new(amount: i64) -> Result<Self, InvalidAmount> {
                if amount < 0 { Err(InvalidAmount::Negative(amount)) } else { Ok(Self(amount)) }
            }

            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }

            #[must_use]
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }

            /// `None` where the result would be below zero.
            #[must_use]
            pub fn checked_sub(self, other: Self) -> Option<Self> {
                self.0.checked_sub(other.0).filter(|rest| *rest >= 0).map(Self)
            }
        }

        impl TryFrom<i64> for $name {
            type Error = InvalidAmount;
            fn try_from(amount: i64) -> Result<Self, InvalidAmount> {
                Self::new(amount)
            }
        }

        impl From<$name> for i64 {
            fn from(amount: $name) -> i64 {
                amount.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

amount! {
    /// An amount of money in minor units (KRW: won).
    Money,
    /// Loyalty points. One point pays for one minor unit of money.
    Points,
}

impl Money {
    /// What is left to pay after `points`: `None` where the points are worth more than the amount.
    #[must_use]
    pub fn less(self, points: Points) -> Option<Money> {
        self.checked_sub(Money(points.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_never_go_below_zero_or_overflow() {
        assert_eq!(Money::new(-1), Err(InvalidAmount::Negative(-1)));
        assert!(serde_json::from_str::<Points>("-3").is_err());
        assert!(serde_json::from_str::<Points>("1.5").is_err());
        let most = Money::new(i64::MAX).unwrap();
        assert_eq!(most.checked_add(Money::new(1).unwrap()), None);
        assert_eq!(Money::ZERO.checked_sub(Money::new(1).unwrap()), None);
    }

    #[test]
    fn points_lessen_the_amount_to_pay() {
        let price = Money::new(10_000).unwrap();
        assert_eq!(
            price.less(Points::new(3_000).unwrap()),
            Money::new(7_000).ok()
        );
        assert_eq!(price.less(Points::new(10_001).unwrap()), None);
    }
}
