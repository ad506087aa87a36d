//! Decides which rule of the script strikes. It owns the script and its counts, in memory: a restart begins again.

use std::collections::HashMap;
use std::sync::Mutex;

use super::script::{Fault, On, Rule, Script};
use crate::sandbox::state::lock;

/// Whom a request or a webhook is about, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sandbox) struct Subject<'a> {
    pub order_id: Option<&'a str>,
    pub payment_key: Option<&'a str>,
}

impl Subject<'_> {
    /// One name for a payment: its order where it is known.
    fn name(&self) -> &str {
        self.order_id.or(self.payment_key).unwrap_or_default()
    }
}

#[derive(Default)]
pub(in crate::sandbox) struct Director(Mutex<Play>);

#[derive(Default)]
struct Play {
    script: Script,
    /// By the rule's index and the payment's name.
    counts: HashMap<(usize, String), Counts>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    asked: u32,
    struck: u32,
}

impl Director {
    /// Plays this script from its beginning.
    pub fn play(&self, script: Script) {
        *lock(&self.0) = Play {
            script,
            counts: HashMap::new(),
        };
    }

    pub fn script(&self) -> Script {
        lock(&self.0).script.clone()
    }

    /// What strikes, if anything does. Asking counts.
    pub fn ask(&self, on: On, subject: Subject<'_>) -> Option<Fault> {
        let mut play = lock(&self.0);
        let Play { script, counts } = &mut *play;
        let matching = script
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| is_about(rule, on, subject));
        for (index, rule) in matching {
            let count = counts
                .entry((index, subject.name().to_owned()))
                .or_default();
            let asked = count.asked;
            count.asked = count.asked.saturating_add(1);
            let is_its_turn = asked >= rule.skip.unwrap_or(0)
                && rule.times.is_none_or(|times| count.struck < times)
                && draw(script.seed, index, subject.name(), asked) < u64::from(rule.per_mille());
            if is_its_turn {
                count.struck = count.struck.saturating_add(1);
                return Some(rule.fault.clone());
            }
        }
        None
    }
}

fn is_about(rule: &Rule, on: On, subject: Subject<'_>) -> bool {
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    rule.on == on
        && is(&rule.order_id, subject.order_id)
        && is(&rule.payment_key, subject.payment_key)
}

/// A number below 1000 that depends on nothing else: no other payment's requests can change it.
fn draw(seed: u64, rule: usize, name: &str, asked: u32) -> u64 {
    // FNV-1a (Fowler, Noll, Vo) over everything, then the mixer of SplitMix64, whose upper bits are good.
    let bytes = seed
        .to_le_bytes()
        .into_iter()
        .chain((rule as u64).to_le_bytes())
        .chain(asked.to_le_bytes())
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

    fn director(seed: u64, rule: &str) -> Director {
        let text = format!(r#"{{"seed":{seed},"rules":[{rule}]}}"#);
        let director = Director::default();
        director.play(Script::parse(text.as_bytes()).expect("a script"));
        director
    }

    fn strikes(director: &Director, order_id: &str) -> bool {
        let subject = Subject {
            order_id: Some(order_id),
            payment_key: Some("key"),
        };
        director.ask(On::Confirm, subject).is_some()
    }

    #[test]
    fn the_same_seed_tells_every_payment_the_same_story_in_whatever_order_they_come() {
        let rule = r#"{"on":"confirm","perMille":400,"fault":"inFlight"}"#;
        let orders: Vec<String> = (0..40).map(|number| format!("order-{number}")).collect();
        let story = |director: &Director, order: &str| {
            (0..8).map(|_| strikes(director, order)).collect::<Vec<_>>()
        };
        let first = director(7, rule);
        let one_by_one: Vec<_> = orders.iter().map(|order| story(&first, order)).collect();

        let second = director(7, rule);
        let mut together = vec![Vec::new(); orders.len()];
        for _ in 0..8 {
            for (order, heard) in orders.iter().zip(&mut together).rev() {
                heard.push(strikes(&second, order));
            }
        }
        assert_eq!(one_by_one, together);

        let other = director(8, rule);
        let other: Vec<_> = orders.iter().map(|order| story(&other, order)).collect();
        assert_ne!(one_by_one, other, "another seed is another story");
        let struck = one_by_one.iter().flatten().filter(|it| **it).count();
        assert!(
            (64..192).contains(&struck),
            "{struck} of 320 is not 400 of 1000"
        );
    }

    #[test]
    fn skip_and_times_count_for_each_payment() {
        let director = director(
            0,
            r#"{"on":"confirm","skip":1,"times":2,"fault":"inFlight"}"#,
        );
        for order in ["order-1", "order-2"] {
            let story: Vec<bool> = (0..5).map(|_| strikes(&director, order)).collect();
            assert_eq!(story, [false, true, true, false, false]);
        }
    }

    #[test]
    fn a_rule_strikes_only_what_it_names() {
        let director = director(
            0,
            r#"{"on":"confirm","orderId":"order-1","paymentKey":"key","fault":"inFlight"}"#,
        );
        assert!(strikes(&director, "order-1"));
        assert!(!strikes(&director, "order-2"));
        let unknown = Subject::default();
        assert_eq!(director.ask(On::Confirm, unknown), None);
        assert_eq!(director.ask(On::Cancel, unknown), None);
    }
}
