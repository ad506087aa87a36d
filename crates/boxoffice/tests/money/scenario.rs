//! The whole scenario, drawn from its seed before the run, so that nothing in the run can change the draws.

use std::{collections::BTreeSet, time::Duration};

use messaging::Random;
use toss_sandbox::FaultScript;

use crate::fault_profile::FaultProfile;

/// Phases of a scenario if `MONEY_ACTS` is not set.
const PHASES: usize = 4;
/// Buyers of one phase.
pub const BUYERS: usize = 310;
/// The last kill of a phase comes after at most this number of its answers.
const ANSWERS_MAX: u64 = 1_300;
/// Price and quantity of each event. The last one has few tickets.
pub const EVENTS: [(i64, i64); 3] = [(1_000, 100_000), (2_500, 100_000), (700, 24)];
/// Points of a new user beside those that the purchase uses.
pub const POINTS: i64 = 600;

/// What a buyer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Pays,
    /// From two browser tabs, with two payment keys.
    PaysTwiceAtOnce,
    /// The first card is declined.
    PaysWithAnotherCard,
    /// Leaves if the outcome is not known at once.
    LeavesWithoutOutcome,
    PaysAtTheLastMoment,
    PaysInPoints,
    /// Into a virtual account.
    Deposits(Deposit),
    CancelsTheTicket(CancelRequests),
    /// The merchant cancels the payment at the gateway's console.
    IsCancelledByTheMerchant,
    ReleasesWhilePaying,
    /// The gateway charges an order that the service did not confirm.
    IsChargedUnrequested(UnrequestedCharge),
    NeverPays,
}

/// When the gateway charges an order by itself, as a late one does after the service gave the attempt up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnrequestedCharge {
    WhilePaymentIsOpen,
    /// The reservation has expired.
    AfterPaymentIsClosed,
}

/// What happens to a virtual account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deposit {
    InTime,
    TooLate,
    Never,
    /// The bank takes it back.
    Withdrawn,
    /// The bank takes it back, and the buyer deposits it again.
    Returned,
    /// The buyer cancels the ticket.
    Cancelled,
    /// The buyer releases the reservation and pays all the same.
    Released,
}

/// How the buyer requests the cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelRequests {
    Once,
    TwiceAtOnce,
    /// Without waiting for the ticket.
    AtOnce,
}

const DEPOSITS: &[Deposit] = &[
    Deposit::InTime,
    Deposit::InTime,
    Deposit::TooLate,
    Deposit::Never,
    Deposit::Withdrawn,
    Deposit::Returned,
    Deposit::Cancelled,
    Deposit::Released,
];

/// What one buyer does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuyerSpec {
    /// Prefix of the buyer's keys.
    pub name: String,
    pub behaviour: Behaviour,
    /// Index into [`EVENTS`].
    pub event: usize,
    /// Points that the purchase uses.
    pub points: i64,
    /// Repeats a request if the service dies; other buyers give up.
    pub is_patient: bool,
    /// Names an account for refunds.
    pub names_account: bool,
    /// Time before the deadline of a last-moment payment, or the bank's delay.
    pub millis: i64,
}

/// When the service is killed: `then` after this number of answers in the phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KillMoment {
    pub answers: usize,
    pub then: Duration,
}

#[derive(PartialEq, Eq)]
pub struct Phase {
    pub specs: Vec<BuyerSpec>,
    pub script: FaultScript,
    pub kills: Vec<KillMoment>,
}

#[derive(PartialEq, Eq)]
pub struct Scenario {
    pub phases: Vec<Phase>,
}

impl Scenario {
    pub fn draw(seed: u64) -> Self {
        let phases = match std::env::var("MONEY_ACTS") {
            Ok(text) => text.parse().expect("MONEY_ACTS is a whole number"),
            Err(_) => PHASES,
        };
        let random = Random::seeded(seed);
        Self {
            phases: (0..phases).map(|act| Phase::draw(act, &random)).collect(),
        }
    }
}

impl Scenario {
    /// The payment keys that the buyers may pay with.
    pub fn keys(&self) -> Vec<String> {
        let specs = self.phases.iter().flat_map(|act| &act.specs);
        specs.flat_map(BuyerSpec::keys).collect()
    }

    /// The keys that a fault rule names.
    pub fn keys_with_faults(&self) -> BTreeSet<&str> {
        let rules = self.phases.iter().flat_map(|act| &act.script.rules);
        rules
            .filter_map(|rule| rule.payment_key.as_deref())
            .collect()
    }
}

impl Phase {
    fn draw(act: usize, random: &Random) -> Self {
        let specs: Vec<BuyerSpec> = (0..BUYERS)
            .map(|number| BuyerSpec::draw(format!("a{act}b{number}"), random))
            .collect();
        let script = FaultProfile::draw(random).script(&specs, random);
        let mut kills: Vec<KillMoment> = (0..=random.below(3))
            .map(|_| KillMoment {
                answers: usize::try_from(random.below(ANSWERS_MAX)).unwrap(),
                then: Duration::from_micros(random.below(4_000)),
            })
            .collect();
        kills.sort_by_key(|kill| kill.answers);
        Self {
            specs,
            script,
            kills,
        }
    }
}

impl BuyerSpec {
    fn draw(name: String, random: &Random) -> Self {
        Self {
            name,
            behaviour: Behaviour::draw(random),
            event: match random.below(8) {
                0 => 2,
                odd if odd % 2 == 1 => 1,
                _ => 0,
            },
            points: [0, 0, 300][random_index(random, 3)],
            is_patient: random.below(4) > 0,
            names_account: random.below(2) == 0,
            millis: i64::try_from(random.below(1_000)).unwrap(),
        }
    }

    /// The payment keys that the buyer may use.
    pub fn keys(&self) -> Vec<String> {
        let number = match self.behaviour {
            Behaviour::NeverPays => 0,
            Behaviour::PaysTwiceAtOnce | Behaviour::PaysWithAnotherCard | Behaviour::Pays => 2,
            _ => 1,
        };
        (1..=number).map(|number| self.key(number)).collect()
    }

    pub fn key(&self, number: usize) -> String {
        format!("{}-card{number}", self.name)
    }
}

impl Behaviour {
    fn draw(random: &Random) -> Self {
        match random.below(100) {
            0..25 => Self::Pays,
            25..35 => Self::PaysTwiceAtOnce,
            35..42 => Self::PaysWithAnotherCard,
            42..50 => Self::LeavesWithoutOutcome,
            50..54 => Self::PaysAtTheLastMoment,
            54..59 => Self::PaysInPoints,
            59..74 => Self::Deposits(DEPOSITS[random_index(random, DEPOSITS.len())]),
            74..78 => Self::CancelsTheTicket(CancelRequests::Once),
            78..81 => Self::CancelsTheTicket(CancelRequests::TwiceAtOnce),
            81..85 => Self::CancelsTheTicket(CancelRequests::AtOnce),
            85..91 => Self::IsCancelledByTheMerchant,
            91..95 => Self::ReleasesWhilePaying,
            95..96 => Self::IsChargedUnrequested(UnrequestedCharge::WhilePaymentIsOpen),
            96..98 => Self::IsChargedUnrequested(UnrequestedCharge::AfterPaymentIsClosed),
            _ => Self::NeverPays,
        }
    }
}

/// A random index into a list of this length.
pub fn random_index(random: &Random, length: usize) -> usize {
    usize::try_from(random.below(length as u64)).unwrap()
}
