//! Does a purchase look like fraud? Pure rules, and the memory they need: a user's recent purchases.

use contract::{Money, SagaId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{PurchaseStart, User};

/// Recent purchases kept of a user: more than any [`Rules::purchases_max`] can count, so that what is forgotten
/// would not change a verdict.
const RECENT_MAX: usize = u8::MAX as usize + 1;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Purchases that one user may start within the window.
    pub purchases_max: u8,
    pub window_secs: u32,
    /// The highest price of one purchase; none where it is absent.
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

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub flagged: bool,
    /// The purchases that this one follows.
    pub earlier: &'a [PurchaseStart],
    pub total_amount: Option<Money>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    Clear,
    Fraudulent(Reason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// A person found the user to be a fraud.
    Flagged,
    TooManyPurchases,
    AmountTooLarge,
}

/// The first rule that is broken decides.
#[must_use]
pub fn judge(rules: &Rules, facts: &Facts<'_>, now: Timestamp) -> Verdict {
    let recent = facts
        .earlier
        .iter()
        .filter(|start| rules.is_recent(start, now));
    let exceeds = |amount_max| facts.total_amount.is_some_and(|amount| amount > amount_max);
    if facts.flagged {
        Verdict::Fraudulent(Reason::Flagged)
    } else if recent.count() >= usize::from(rules.purchases_max) {
        Verdict::Fraudulent(Reason::TooManyPurchases)
    } else if rules.amount_max.is_some_and(exceeds) {
        Verdict::Fraudulent(Reason::AmountTooLarge)
    } else {
        Verdict::Clear
    }
}

impl Rules {
    /// One that starts later than that, from now, was stored before the clock was set back.
    fn is_recent(&self, start: &PurchaseStart, now: Timestamp) -> bool {
        now.millis_since(start.at).abs() < i64::from(self.window_secs) * 1000
    }
}

/// Judges a purchase once: the user that remembers it comes back with the verdict, or nothing to save where this
/// purchase was judged before.
#[must_use]
pub fn check(
    rules: &Rules,
    mut user: User,
    saga_id: SagaId,
    total_amount: Option<Money>,
    now: Timestamp,
) -> (Verdict, Option<User>) {
    let known = user
        .recent_purchases
        .iter()
        .find(|start| start.saga_id == saga_id);
    if let Some(known) = known {
        return (known.verdict, None);
    }
    let facts = Facts {
        flagged: user.flagged,
        earlier: &user.recent_purchases,
        total_amount,
    };
    let verdict = judge(rules, &facts, now);
    let recent = &mut user.recent_purchases;
    recent.retain(|start| rules.is_recent(start, now));
    recent.push(PurchaseStart {
        saga_id,
        at: now,
        verdict,
    });
    recent.drain(..recent.len().saturating_sub(RECENT_MAX));
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

    fn starts(count: u128, at: Timestamp) -> Vec<PurchaseStart> {
        let start = |number| PurchaseStart {
            saga_id: saga(number),
            at,
            verdict: Verdict::Clear,
        };
        (0..count).map(start).collect()
    }

    #[test]
    fn each_rule_refuses_what_it_is_there_for_and_nothing_else() {
        let rules = Rules {
            amount_max: Money::new(1000).ok(),
            ..Rules::default()
        };
        let (many, some) = (starts(10, NOW), starts(9, NOW));
        let (edge, old) = (
            starts(10, NOW.plus_millis(-59_999)),
            starts(10, NOW.plus_secs(-60)),
        );
        let clear = Verdict::Clear;
        let table = [
            (false, &some, None, clear),
            (true, &some, None, Verdict::Fraudulent(Reason::Flagged)),
            (
                false,
                &many,
                None,
                Verdict::Fraudulent(Reason::TooManyPurchases),
            ),
            (
                false,
                &edge,
                None,
                Verdict::Fraudulent(Reason::TooManyPurchases),
            ),
            (false, &old, None, clear),
            (false, &some, Money::new(1000).ok(), clear),
            (
                false,
                &some,
                Money::new(1001).ok(),
                Verdict::Fraudulent(Reason::AmountTooLarge),
            ),
            (
                true,
                &many,
                Money::new(1001).ok(),
                Verdict::Fraudulent(Reason::Flagged),
            ),
        ];
        for (row, (flagged, earlier, total_amount, expected)) in table.into_iter().enumerate() {
            let facts = Facts {
                flagged,
                earlier,
                total_amount,
            };
            assert_eq!(judge(&rules, &facts, NOW), expected, "row {row}");
        }
    }

    #[test]
    fn without_a_highest_amount_no_amount_is_too_large() {
        let facts = Facts {
            flagged: false,
            earlier: &[],
            total_amount: Money::new(i64::MAX).ok(),
        };
        assert_eq!(judge(&Rules::default(), &facts, NOW), Verdict::Clear);
    }

    #[test]
    fn purchases_from_before_the_clock_was_set_back_count_no_longer() {
        let start = PurchaseStart {
            saga_id: saga(1),
            at: NOW.plus_secs(1_200),
            verdict: Verdict::Clear,
        };
        let facts = Facts {
            flagged: false,
            earlier: &[start; 20],
            total_amount: None,
        };
        assert_eq!(judge(&Rules::default(), &facts, NOW), Verdict::Clear);
    }

    #[test]
    fn a_purchase_asked_about_again_is_told_the_same_and_counted_once() {
        let (first, saved) = check(&Rules::default(), user(), saga(1), None, NOW);
        let mut saved = saved.unwrap();
        assert_eq!((first, saved.recent_purchases.len()), (Verdict::Clear, 1));

        saved.flagged = true;
        let (again, nothing) = check(&Rules::default(), saved, saga(1), None, NOW.plus_secs(5));

        assert_eq!((again, nothing), (Verdict::Clear, None));
    }

    #[test]
    fn the_eleventh_purchase_within_a_minute_is_refused_and_the_next_minute_forgives() {
        let mut buyer = user();
        for number in 0..10 {
            let (verdict, saved) = check(&Rules::default(), buyer, saga(number), None, NOW);
            assert_eq!(verdict, Verdict::Clear);
            buyer = saved.unwrap();
        }
        let (eleventh, saved) = check(&Rules::default(), buyer, saga(10), None, NOW.plus_secs(1));
        assert_eq!(eleventh, Verdict::Fraudulent(Reason::TooManyPurchases));
        let (later, saved) = check(
            &Rules::default(),
            saved.unwrap(),
            saga(11),
            None,
            NOW.plus_secs(61),
        );
        assert_eq!(later, Verdict::Clear);
        assert_eq!(saved.unwrap().recent_purchases.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_bounded_and_never_hides_a_purchase_that_counts(
            purchases_max: u8, gaps in proptest::collection::vec(0..2000_i64, 1..400),
        ) {
            let rules = Rules { purchases_max, window_secs: 60, amount_max: None };
            let (mut buyer, mut now, mut all) = (user(), NOW, Vec::new());
            for (number, gap) in gaps.into_iter().enumerate() {
                now = now.plus_millis(gap);
                let expected = judge(&rules, &Facts { flagged: false, earlier: &all, total_amount: None }, now);
                let saga_id = saga(number as u128);
                let (verdict, saved) = check(&rules, buyer, saga_id, None, now);
                prop_assert_eq!(verdict, expected);
                all.push(PurchaseStart { saga_id, at: now, verdict });
                buyer = saved.unwrap();
                prop_assert!(buyer.recent_purchases.len() <= RECENT_MAX);
            }
        }
    }
}
