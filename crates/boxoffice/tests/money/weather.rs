//! What the gateway does wrong in an act: a few random rules, each over confirms, cancellations, lookups or webhooks.
//!
//! The sandbox draws by order, and orders are named by the service, which no seed reaches. So it is drawn here which
//! rule strikes which payment at which try, by the payment keys that the buyers bring, and the script names them.

use std::collections::BTreeMap;

use messaging::Random;
use payment::sandbox::{Fault, On, Rule, Script};

use crate::plan::{Part, Way, place};

/// Tries of one payment at one thing that may be struck.
const TRIES: u32 = 3;
/// Strikes on one payment: a script has at most a thousand rules.
const STRIKES_MAX: usize = 3;
const RULES_MAX: usize = 1_000;
/// Longer than the service waits, and shorter than it waits before it gives an attempt up.
const HANG_MILLIS: u64 = 1_200;
/// Within the service's patience; before it gives an attempt up; when it has long done so.
const DELAYS_MILLIS: [u64; 3] = [250, 1_200, 3_500];
pub const DELAY_MILLIS_MAX: i64 = 3_500;

pub struct Weather {
    rules: Vec<(On, u64, Fault)>,
    /// The gateway answers so many lookups of each payment with nothing that helps: it is away.
    lookups_away: Option<u32>,
}

impl Weather {
    pub fn draw(random: &Random) -> Self {
        let rules = (0..6 + random.below(10)).map(|_| {
            let on = [
                On::Confirm,
                On::Confirm,
                On::Cancel,
                On::Lookup,
                On::Webhook,
            ];
            let on = on[place(random, on.len())];
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

    pub fn script(&self, parts: &[Part], random: &Random) -> Script {
        let mut rules = Vec::new();
        rules.extend(self.lookups_away.map(|times| Rule {
            times: Some(times),
            ..rule(On::Lookup, None, unavailable())
        }));
        let declined = parts.iter().filter(|it| it.way == Way::PaysWithAnotherCard);
        let declined: Vec<Rule> = declined
            .map(|part| {
                rule(
                    On::Confirm,
                    Some(part.key(1)),
                    refusal("REJECT_CARD_COMPANY"),
                )
            })
            .collect();
        let room = RULES_MAX - rules.len() - declined.len();
        let keys: Vec<String> = parts.iter().flat_map(Part::keys).collect();
        let strikes = keys.iter().flat_map(|key| self.strikes(key, random));
        rules.extend(strikes.take(room));
        rules.extend(declined);
        Script { seed: 0, rules }
    }

    fn strikes(&self, key: &str, random: &Random) -> Vec<Rule> {
        let tries = [On::Confirm, On::Cancel, On::Lookup, On::Webhook]
            .into_iter()
            .flat_map(|on| (0..TRIES).map(move |number| (on, number)));
        let mut strikes: Vec<(On, u32, Fault)> = tries
            .filter_map(|(on, number)| {
                let mut about = self.rules.iter().filter(|(struck, ..)| *struck == on);
                let strikes = about.find(|(_, per_mille, _)| random.below(1_000) < *per_mille)?;
                Some((on, number, strikes.2.clone()))
            })
            .collect();
        while strikes.len() > STRIKES_MAX {
            strikes.remove(place(random, strikes.len()));
        }
        // A rule that strikes keeps later rules from counting this try.
        let mut before: BTreeMap<String, u32> = BTreeMap::new();
        let named = strikes.into_iter().map(|(on, number, fault)| {
            let before = before.entry(format!("{on:?}")).or_default();
            let skip = number - *before;
            *before += 1;
            Rule {
                skip: Some(skip),
                times: Some(1),
                ..rule(on, Some(key.to_owned()), fault)
            }
        });
        named.collect()
    }
}

fn rule(on: On, payment_key: Option<String>, fault: Fault) -> Rule {
    Rule {
        on,
        order_id: None,
        payment_key,
        skip: None,
        times: None,
        per_mille: None,
        fault,
    }
}

fn fault(on: On, random: &Random) -> Fault {
    let faults = match on {
        On::Webhook => webhook_faults(),
        On::Confirm => [call_faults(), confirm_faults()].concat(),
        On::Cancel => [call_faults(), cancel_faults()].concat(),
        On::Lookup | On::Transactions => call_faults(),
    };
    faults[place(random, faults.len())].clone()
}

/// None of them says for certain that nothing was done.
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

/// A bank is closed for the night. Every other refusal needs a person, which is no story of this one.
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
