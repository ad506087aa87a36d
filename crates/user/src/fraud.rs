//! The fraud check: pure rules over a user's recent purchases, which are stored with the user.

use contract::{Money, SagaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{PurchaseStart, User};

/// Recent purchases kept for a user: more than any [`Rules::purchases_max`], so that dropping older ones changes no
/// verdict.
const RECENT_PURCHASES_MAX: usize = u8::MAX as usize + 1;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Purchases that one user may start within the window.
    pub purchases_max: u8,
    pub window_secs: u32,
    /// The highest amount of one purchase; no limit if absent.
    pub amount_max: Option<Money>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            purchases_max: 10,
            window_secs: 60,
            amount_max: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FraudVerdict {
    Clear,
    Fraudulent(FraudReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FraudReason {
    /// An operator marked the user as fraudulent.
    Flagged,
    TooManyPurchases,
    AmountTooLarge,
}

/// The verdict on a further purchase of this user: the first broken rule decides.
fn evaluate(
    rules: &Rules,
    user: &User,
    total_amount: Option<Money>,
    now: Timestamp,
) -> FraudVerdict {
    let earlier = user.recent_purchases.iter();
    let recent = earlier.filter(|start| rules.is_recent(start, now));
    let exceeds = |amount_max| total_amount.is_some_and(|amount| amount > amount_max);
    if user.flagged {
        FraudVerdict::Fraudulent(FraudReason::Flagged)
    } else if recent.count() >= usize::from(rules.purchases_max) {
        FraudVerdict::Fraudulent(FraudReason::TooManyPurchases)
    } else if rules.amount_max.is_some_and(exceeds) {
        FraudVerdict::Fraudulent(FraudReason::AmountTooLarge)
    } else {
        FraudVerdict::Clear
    }
}

impl Rules {
    /// A start further in the future than the window was stored before the clock was set back.
    fn is_recent(&self, start: &PurchaseStart, now: Timestamp) -> bool {
        now.millis_since(start.at).abs() < i64::from(self.window_secs) * 1000
    }
}

/// Checks a purchase once. Returns the verdict and the user to save; `None` if this purchase was checked before.
#[must_use]
pub fn check(
    rules: &Rules,
    mut user: User,
    saga_id: SagaId,
    total_amount: Option<Money>,
    now: Timestamp,
) -> (FraudVerdict, Option<User>) {
    let known = user
        .recent_purchases
        .iter()
        .find(|start| start.saga_id == saga_id);
    if let Some(known) = known {
        return (known.verdict, None);
    }
    let verdict = evaluate(rules, &user, total_amount, now);
    let recent = &mut user.recent_purchases;
    recent.retain(|start| rules.is_recent(start, now));
    recent.push(PurchaseStart {
        saga_id,
        at: now,
        verdict,
    });
    recent.drain(..recent.len().saturating_sub(RECENT_PURCHASES_MAX));
    user.updated_at = now;
    (verdict, Some(user))
}

#[cfg(test)]
mod tests {
    use contract::UserId;
    use proptest::prelude::*;

    use super::*;
    use crate::model::Status;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn saga(number: u128) -> SagaId {
        SagaId(uuid::Uuid::from_u128(number))
    }

    fn user() -> User {
        User::new(UserId(1), "Kim".to_owned(), Status::Active, NOW)
    }

    fn buyer(flagged: bool, earlier: &[PurchaseStart]) -> User {
        User {
            flagged,
            recent_purchases: earlier.to_vec(),
            ..user()
        }
    }

    fn starts(count: u128, at: Timestamp) -> Vec<PurchaseStart> {
        let start = |number| PurchaseStart {
            saga_id: saga(number),
            at,
            verdict: FraudVerdict::Clear,
        };
        (0..count).map(start).collect()
    }

    #[test]
    fn each_rule_rejects_only_its_own_case() {
        let rules = Rules {
            amount_max: Money::new(1000).ok(),
            ..Rules::default()
        };
        let (many, some) = (starts(10, NOW), starts(9, NOW));
        let (edge, old) = (
            starts(10, NOW.plus_millis(-59_999)),
            starts(10, NOW.plus_secs(-60)),
        );
        let clear = FraudVerdict::Clear;
        let table = [
            (false, &some, None, clear),
            (
                true,
                &some,
                None,
                FraudVerdict::Fraudulent(FraudReason::Flagged),
            ),
            (
                false,
                &many,
                None,
                FraudVerdict::Fraudulent(FraudReason::TooManyPurchases),
            ),
            (
                false,
                &edge,
                None,
                FraudVerdict::Fraudulent(FraudReason::TooManyPurchases),
            ),
            (false, &old, None, clear),
            (false, &some, Money::new(1000).ok(), clear),
            (
                false,
                &some,
                Money::new(1001).ok(),
                FraudVerdict::Fraudulent(FraudReason::AmountTooLarge),
            ),
            (
                true,
                &many,
                Money::new(1001).ok(),
                FraudVerdict::Fraudulent(FraudReason::Flagged),
            ),
        ];
        for (row, (flagged, earlier, total_amount, expected)) in table.into_iter().enumerate() {
            let verdict = evaluate(&rules, &buyer(flagged, earlier), total_amount, NOW);
            assert_eq!(verdict, expected, "row {row}");
        }
    }

    #[test]
    fn without_a_limit_no_amount_is_too_large() {
        let verdict = evaluate(&Rules::default(), &user(), Money::new(i64::MAX).ok(), NOW);
        assert_eq!(verdict, FraudVerdict::Clear);
    }

    #[test]
    fn purchases_from_before_the_clock_was_set_back_are_not_counted() {
        let start = PurchaseStart {
            saga_id: saga(1),
            at: NOW.plus_secs(1_200),
            verdict: FraudVerdict::Clear,
        };
        let verdict = evaluate(&Rules::default(), &buyer(false, &[start; 20]), None, NOW);
        assert_eq!(verdict, FraudVerdict::Clear);
    }

    #[test]
    fn a_repeated_check_gets_the_same_verdict_and_counts_once() {
        let (first, saved) = check(&Rules::default(), user(), saga(1), None, NOW);
        let mut saved = saved.unwrap();
        assert_eq!(
            (first, saved.recent_purchases.len()),
            (FraudVerdict::Clear, 1)
        );

        saved.flagged = true;
        let (again, nothing) = check(&Rules::default(), saved, saga(1), None, NOW.plus_secs(5));

        assert_eq!((again, nothing), (FraudVerdict::Clear, None));
    }

    #[test]
    fn the_eleventh_purchase_in_a_minute_is_fraudulent_and_one_a_minute_later_is_clear() {
        let mut buyer = user();
        for number in 0..10 {
            let (verdict, saved) = check(&Rules::default(), buyer, saga(number), None, NOW);
            assert_eq!(verdict, FraudVerdict::Clear);
            buyer = saved.unwrap();
        }
        let (eleventh, saved) = check(&Rules::default(), buyer, saga(10), None, NOW.plus_secs(1));
        assert_eq!(
            eleventh,
            FraudVerdict::Fraudulent(FraudReason::TooManyPurchases)
        );
        let (later, saved) = check(
            &Rules::default(),
            saved.unwrap(),
            saga(11),
            None,
            NOW.plus_secs(61),
        );
        assert_eq!(later, FraudVerdict::Clear);
        assert_eq!(saved.unwrap().recent_purchases.len(), 1);
    }

    proptest! {
        #[test]
        fn recent_purchases_are_bounded_without_changing_a_verdict(
            purchases_max: u8, gaps in proptest::collection::vec(0..2000_i64, 1..400),
        ) {
            let rules = Rules { purchases_max, window_secs: 60, amount_max: None };
            let (mut buyer, mut now, mut all) = (user(), NOW, Vec::new());
            for (number, gap) in gaps.into_iter().enumerate() {
                now = now.plus_millis(gap);
                let expected = evaluate(&rules, &User { recent_purchases: all.clone(), ..user() }, None, now);
                let saga_id = saga(number as u128);
                let (verdict, saved) = check(&rules, buyer, saga_id, None, now);
                prop_assert_eq!(verdict, expected);
                all.push(PurchaseStart { saga_id, at: now, verdict });
                buyer = saved.unwrap();
                prop_assert!(buyer.recent_purchases.len() <= RECENT_PURCHASES_MAX);
            }
        }
    }
}
