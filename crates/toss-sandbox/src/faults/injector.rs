//! Decides which rule of the script applies to a request. It owns the script and its counters, in memory only.

use std::collections::HashMap;
use std::sync::Mutex;

use super::script::{Fault, FaultRule, FaultScript, FaultTarget};
use crate::state::lock;

/// The payment that a request or a webhook is about, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Subject<'a> {
    pub order_id: Option<&'a str>,
    pub payment_key: Option<&'a str>,
}

impl<'a> Subject<'a> {
    pub fn new(order_id: Option<&'a str>, payment_key: Option<&'a str>) -> Self {
        Self {
            order_id,
            payment_key,
        }
    }

    /// The order, if known, identifies the payment, or else the key.
    fn name(&self) -> &str {
        self.order_id.or(self.payment_key).unwrap_or_default()
    }
}

#[derive(Default)]
pub(crate) struct FaultInjector(Mutex<Loaded>);

#[derive(Default)]
struct Loaded {
    script: FaultScript,
    /// By the rule's index and the payment's name.
    counts: HashMap<(usize, String), Counts>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    seen: u32,
    applied: u32,
}

impl FaultInjector {
    /// Replaces the script, and resets the counters.
    pub fn load(&self, script: FaultScript) {
        *lock(&self.0) = Loaded {
            script,
            counts: HashMap::new(),
        };
    }

    pub fn script(&self) -> FaultScript {
        lock(&self.0).script.clone()
    }

    /// The fault of the next request about this payment, if any. Every call counts.
    pub fn next(&self, on: FaultTarget, subject: Subject<'_>) -> Option<Fault> {
        let mut loaded = lock(&self.0);
        let Loaded { script, counts } = &mut *loaded;
        let matching = script
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| is_about(rule, on, subject));
        for (index, rule) in matching {
            let count = counts
                .entry((index, subject.name().to_owned()))
                .or_default();
            let seen = count.seen;
            count.seen = count.seen.saturating_add(1);
            let is_its_turn = seen >= rule.skip.unwrap_or(0)
                && rule.times.is_none_or(|times| count.applied < times)
                && draw(script.seed, index, subject.name(), seen) < u64::from(rule.per_mille());
            if is_its_turn {
                count.applied = count.applied.saturating_add(1);
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

fn is_about(rule: &FaultRule, on: FaultTarget, subject: Subject<'_>) -> bool {
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    rule.on == on
        && is(&rule.order_id, subject.order_id)
        && is(&rule.payment_key, subject.payment_key)
}

/// A number below 1000 that depends only on the arguments, so that requests of other payments cannot change it.
fn draw(seed: u64, rule: usize, name: &str, seen: u32) -> u64 {
    // FNV-1a (Fowler, Noll, Vo) over everything, then the mixer of SplitMix64, whose upper bits are good.
    let bytes = seed
        .to_le_bytes()
        .into_iter()
        .chain((rule as u64).to_le_bytes())
        .chain(seen.to_le_bytes())
        .chain(name.bytes());
    let hash = bytes.fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) % 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injector(seed: u64, rule: &str) -> FaultInjector {
        let text = format!(r#"{{"seed":{seed},"rules":[{rule}]}}"#);
        let injector = FaultInjector::default();
        injector.load(FaultScript::parse(text.as_bytes()).expect("a script"));
        injector
    }

    fn applies(injector: &FaultInjector, order_id: &str) -> bool {
        let subject = Subject::new(Some(order_id), Some("key"));
        injector.next(FaultTarget::Confirm, subject).is_some()
    }

    #[test]
    fn the_same_seed_gives_every_payment_the_same_faults_in_any_order_of_requests() {
        let rule = r#"{"on":"confirm","perMille":400,"fault":"inFlight"}"#;
        let orders: Vec<String> = (0..40).map(|number| format!("order-{number}")).collect();
        let faults = |injector: &FaultInjector, order: &str| {
            (0..8).map(|_| applies(injector, order)).collect::<Vec<_>>()
        };
        let first = injector(7, rule);
        let one_by_one: Vec<_> = orders.iter().map(|order| faults(&first, order)).collect();

        let second = injector(7, rule);
        let mut together = vec![Vec::new(); orders.len()];
        for _ in 0..8 {
            for (order, received) in orders.iter().zip(&mut together).rev() {
                received.push(applies(&second, order));
            }
        }
        assert_eq!(one_by_one, together);

        let other = injector(8, rule);
        let other: Vec<_> = orders.iter().map(|order| faults(&other, order)).collect();
        assert_ne!(one_by_one, other, "another seed gives other faults");
        let applied = one_by_one.iter().flatten().filter(|it| **it).count();
        assert!(
            (64..192).contains(&applied),
            "{applied} of 320 is not 400 of 1000"
        );
    }

    #[test]
    fn skip_and_times_count_for_each_payment() {
        let injector = injector(
            0,
            r#"{"on":"confirm","skip":1,"times":2,"fault":"inFlight"}"#,
        );
        for order in ["order-1", "order-2"] {
            let faults: Vec<bool> = (0..5).map(|_| applies(&injector, order)).collect();
            assert_eq!(faults, [false, true, true, false, false]);
        }
    }

    #[test]
    fn a_rule_applies_only_to_what_it_names() {
        let injector = injector(
            0,
            r#"{"on":"confirm","orderId":"order-1","paymentKey":"key","fault":"inFlight"}"#,
        );
        assert!(applies(&injector, "order-1"));
        assert!(!applies(&injector, "order-2"));
        let unknown = Subject::default();
        assert_eq!(injector.next(FaultTarget::Confirm, unknown), None);
        assert_eq!(injector.next(FaultTarget::Cancel, unknown), None);
    }
}
