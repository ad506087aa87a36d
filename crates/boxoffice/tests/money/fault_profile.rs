//! The gateway's faults in one phase: a few random rules, each for confirms, cancellations, lookups or webhooks.
//!
//! The sandbox draws faults by order id, and the service chooses order ids, which no seed determines. So this module
//! draws which rule affects which attempt of which payment key, and the sandbox's script names the keys.

use std::collections::BTreeMap;

use messaging::Random;
use toss_sandbox::{Fault, FaultRule, FaultScript, FaultTarget};

use crate::scenario::{Behaviour, BuyerSpec, random_index};

/// Attempts of one payment at one kind of call that may fail.
const TRIES: u32 = 3;
/// Faults per payment key: a script has at most a thousand rules.
const FAULTS_PER_KEY_MAX: usize = 3;
const RULES_MAX: usize = 1_000;
/// Longer than the service's request timeout, and shorter than the time before it gives an attempt up.
const HANG_MILLIS: u64 = 1_200;
/// Within the request timeout; before an attempt is given up; long after it.
const DELAYS_MILLIS: [u64; 3] = [250, 1_200, 3_500];
pub const DELAY_MILLIS_MAX: i64 = 3_500;

pub struct FaultProfile {
    rules: Vec<(FaultTarget, u64, Fault)>,
    /// The gateway answers this number of lookups of each payment with an error, as if it was unreachable.
    lookups_away: Option<u32>,
}

impl FaultProfile {
    pub fn draw(random: &Random) -> Self {
        let rules = (0..6 + random.below(10)).map(|_| {
            let on = [
                FaultTarget::Confirm,
                FaultTarget::Confirm,
                FaultTarget::Cancel,
                FaultTarget::Lookup,
                FaultTarget::Webhook,
            ];
            let on = on[random_index(random, on.len())];
            (on, 20 + random.below(381), fault(on, random))
        });
        Self {
            rules: rules.collect(),
            lookups_away: match random.below(4) {
                0 => Some(3 + u32::try_from(random.below(6)).unwrap()),
                _ => None,
            },
        }
    }

    pub fn script(&self, specs: &[BuyerSpec], random: &Random) -> FaultScript {
        let mut rules = Vec::new();
        rules.extend(self.lookups_away.map(|times| FaultRule {
            times: Some(times),
            ..rule(FaultTarget::Lookup, None, unavailable())
        }));
        let declined = specs
            .iter()
            .filter(|it| it.behaviour == Behaviour::PaysWithAnotherCard);
        let declined: Vec<FaultRule> = declined
            .map(|spec| {
                rule(
                    FaultTarget::Confirm,
                    Some(spec.key(1)),
                    refusal("REJECT_CARD_COMPANY"),
                )
            })
            .collect();
        let room = RULES_MAX - rules.len() - declined.len();
        let keys: Vec<String> = specs.iter().flat_map(BuyerSpec::keys).collect();
        let faults = keys.iter().flat_map(|key| self.faults_for(key, random));
        rules.extend(faults.take(room));
        rules.extend(declined);
        FaultScript { seed: 0, rules }
    }

    fn faults_for(&self, key: &str, random: &Random) -> Vec<FaultRule> {
        let attempts = [
            FaultTarget::Confirm,
            FaultTarget::Cancel,
            FaultTarget::Lookup,
            FaultTarget::Webhook,
        ]
        .into_iter()
        .flat_map(|on| (0..TRIES).map(move |number| (on, number)));
        let mut faults: Vec<(FaultTarget, u32, Fault)> = attempts
            .filter_map(|(on, number)| {
                let mut rules = self.rules.iter().filter(|(rule_on, ..)| *rule_on == on);
                let rule = rules.find(|(_, per_mille, _)| random.below(1_000) < *per_mille)?;
                Some((on, number, rule.2.clone()))
            })
            .collect();
        while faults.len() > FAULTS_PER_KEY_MAX {
            faults.remove(random_index(random, faults.len()));
        }
        // If a rule applies, later rules do not count this attempt.
        let mut before: BTreeMap<String, u32> = BTreeMap::new();
        let named = faults.into_iter().map(|(on, number, fault)| {
            let before = before.entry(format!("{on:?}")).or_default();
            let skip = number - *before;
            *before += 1;
            FaultRule {
                skip: Some(skip),
                times: Some(1),
                ..rule(on, Some(key.to_owned()), fault)
            }
        });
        named.collect()
    }
}

fn rule(on: FaultTarget, payment_key: Option<String>, fault: Fault) -> FaultRule {
    FaultRule {
        on,
        order_id: None,
        payment_key,
        skip: None,
        times: None,
        per_mille: None,
        fault,
    }
}

fn fault(on: FaultTarget, random: &Random) -> Fault {
    let faults = match on {
        FaultTarget::Webhook => webhook_faults(),
        FaultTarget::Confirm => [call_faults(), confirm_faults()].concat(),
        FaultTarget::Cancel => [call_faults(), cancel_faults()].concat(),
        FaultTarget::Lookup | FaultTarget::Transactions => call_faults(),
    };
    faults[random_index(random, faults.len())].clone()
}

/// None of them proves that nothing was done.
fn call_faults() -> Vec<Fault> {
    vec![
        Fault::DropBefore,
        Fault::Hang {
            millis: HANG_MILLIS,
        },
        Fault::DoThenDrop,
        Fault::DoAnswerThenDrop,
        Fault::DoThenHang {
            millis: HANG_MILLIS,
        },
        Fault::DoThen500,
        Fault::Delay {
            millis: DELAYS_MILLIS[0],
        },
        Fault::Delay {
            millis: DELAYS_MILLIS[1],
        },
        Fault::Delay {
            millis: DELAYS_MILLIS[2],
        },
        Fault::InFlight,
        Fault::WrongContentType,
        Fault::TruncatedBody,
        Fault::LieProviderError,
        unavailable(),
        refusal("NOBODY_KNOWS_THIS_CODE"),
    ]
}

fn confirm_faults() -> Vec<Fault> {
    vec![
        refusal("REJECT_CARD_PAYMENT"),
        refusal("INVALID_STOPPED_CARD"),
        refusal("FORBIDDEN_CONSECUTIVE_REQUEST"),
        refusal("UNKNOWN_PAYMENT_ERROR"),
    ]
}

/// A bank is closed for the night. Every other refusal needs a person, which this suite does not test.
fn cancel_faults() -> Vec<Fault> {
    vec![refusal("NOT_AVAILABLE_BANK")]
}

fn webhook_faults() -> Vec<Fault> {
    vec![
        Fault::Drop,
        Fault::Duplicate { times: 2 },
        Fault::Reorder,
        Fault::Repeat { times: 2 },
        Fault::Delay {
            millis: DELAYS_MILLIS[0],
        },
    ]
}

fn unavailable() -> Fault {
    refusal("COMMON_ERROR")
}

fn refusal(code: &str) -> Fault {
    Fault::Refuse {
        code: code.to_owned(),
        status: None,
    }
}
