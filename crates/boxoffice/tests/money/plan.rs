//! The whole story, drawn from its seed before it begins: nothing that happens in it can change what is drawn.

use std::{collections::BTreeSet, time::Duration};

use messaging::Random;
use payment::sandbox::Script;

use crate::weather::Weather;

/// Acts of a story, where `MONEY_ACTS` does not say otherwise.
const ACTS: usize = 4;
/// Buyers of one act.
pub const BUYERS: usize = 310;
/// The last kill of an act comes after at most so many answers of those that are given in it.
const ANSWERS_MAX: u64 = 1_300;
/// The shows: their price, and how many tickets there are. The last one has few.
pub const SHOWS: [(i64, i64); 3] = [(1_000, 100_000), (2_500, 100_000), (700, 24)];
/// Points that a buyer is registered with.
pub const POINTS: i64 = 600;

/// What a buyer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pays,
    /// Two tabs, two payment keys.
    PaysTwiceAtOnce,
    /// The first card is declined.
    PaysWithAnotherCard,
    /// Leaves when the answer is not known at once.
    GivesUpWaiting,
    PaysAtTheLastMoment,
    PaysInPoints,
    /// Into a virtual account.
    Deposits(Deposit),
    CancelsTheTicket(Tries),
    /// Somebody cancels it at the gateway's own console.
    IsCancelledByTheMerchant,
    ReleasesWhilePaying,
    /// Money comes that this service has not asked for.
    IsChargedUnasked(Unasked),
    NeverPays,
}

/// When the gateway charges an order by itself, as one does that was given up too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    WhileItIsOpen,
    /// The purchase was taken back.
    WhenItIsClosed,
}

/// What happens to a virtual account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deposit {
    InTime,
    TooLate,
    Never,
    /// The bank takes it back.
    Withdrawn,
    /// And the buyer deposits it again.
    Returned,
    /// The buyer gives the ticket back.
    Cancelled,
    /// The buyer gives the reservation back, and pays all the same.
    Released,
}

/// How often the buyer asks to give the ticket back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tries {
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

/// One buyer's part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// In front of each of their keys.
    pub name: String,
    pub way: Way,
    /// Which show.
    pub show: usize,
    /// Points that they pay with, as far as the price goes.
    pub points: i64,
    /// Asks again where the service went away; others leave.
    pub is_patient: bool,
    /// Names an account for refunds.
    pub names_account: bool,
    /// How long before the deadline somebody pays who pays at the last moment; how long the bank waits.
    pub millis: i64,
}

/// When the service is killed: after so many answers of an act, and a little later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub answers: usize,
    pub then: Duration,
}

#[derive(PartialEq, Eq)]
pub struct Act {
    pub parts: Vec<Part>,
    pub script: Script,
    pub kills: Vec<Moment>,
}

#[derive(PartialEq, Eq)]
pub struct Plan {
    pub acts: Vec<Act>,
}

impl Plan {
    pub fn draw(seed: u64) -> Self {
        let acts = match std::env::var("MONEY_ACTS") {
            Ok(text) => text.parse().expect("MONEY_ACTS is a whole number"),
            Err(_) => ACTS,
        };
        let random = Random::seeded(seed);
        Self {
            acts: (0..acts).map(|act| Act::draw(act, &random)).collect(),
        }
    }
}

impl Plan {
    /// The payment keys that the buyers may pay with.
    pub fn keys(&self) -> Vec<String> {
        let parts = self.acts.iter().flat_map(|act| &act.parts);
        parts.flat_map(Part::keys).collect()
    }

    /// Those of them that a rule names.
    pub fn struck(&self) -> BTreeSet<&str> {
        let rules = self.acts.iter().flat_map(|act| &act.script.rules);
        rules
            .filter_map(|rule| rule.payment_key.as_deref())
            .collect()
    }
}

impl Act {
    fn draw(act: usize, random: &Random) -> Self {
        let parts: Vec<Part> = (0..BUYERS)
            .map(|number| Part::draw(format!("a{act}b{number}"), random))
            .collect();
        let script = Weather::draw(random).script(&parts, random);
        let mut kills: Vec<Moment> = (0..=random.below(3))
            .map(|_| Moment {
                answers: usize::try_from(random.below(ANSWERS_MAX)).unwrap(),
                then: Duration::from_micros(random.below(4_000)),
            })
            .collect();
        kills.sort_by_key(|kill| kill.answers);
        Self {
            parts,
            script,
            kills,
        }
    }
}

impl Part {
    fn draw(name: String, random: &Random) -> Self {
        Self {
            name,
            way: Way::draw(random),
            show: match random.below(8) {
                0 => 2,
                odd if odd % 2 == 1 => 1,
                _ => 0,
            },
            points: [0, 0, 300][place(random, 3)],
            is_patient: random.below(4) > 0,
            names_account: random.below(2) == 0,
            millis: i64::try_from(random.below(1_000)).unwrap(),
        }
    }

    /// The names of their payments at the gateway.
    pub fn keys(&self) -> Vec<String> {
        let number = match self.way {
            Way::NeverPays => 0,
            Way::PaysTwiceAtOnce | Way::PaysWithAnotherCard | Way::Pays => 2,
            _ => 1,
        };
        (1..=number).map(|number| self.key(number)).collect()
    }

    pub fn key(&self, number: usize) -> String {
        format!("{}-card{number}", self.name)
    }
}

impl Way {
    fn draw(random: &Random) -> Self {
        match random.below(100) {
            0..25 => Self::Pays,
            25..35 => Self::PaysTwiceAtOnce,
            35..42 => Self::PaysWithAnotherCard,
            42..50 => Self::GivesUpWaiting,
            50..54 => Self::PaysAtTheLastMoment,
            54..59 => Self::PaysInPoints,
            59..74 => Self::Deposits(DEPOSITS[place(random, DEPOSITS.len())]),
            74..78 => Self::CancelsTheTicket(Tries::Once),
            78..81 => Self::CancelsTheTicket(Tries::TwiceAtOnce),
            81..85 => Self::CancelsTheTicket(Tries::AtOnce),
            85..91 => Self::IsCancelledByTheMerchant,
            91..95 => Self::ReleasesWhilePaying,
            95..96 => Self::IsChargedUnasked(Unasked::WhileItIsOpen),
            96..98 => Self::IsChargedUnasked(Unasked::WhenItIsClosed),
            _ => Self::NeverPays,
        }
    }
}

/// A place in a list of so many.
pub fn place(random: &Random, length: usize) -> usize {
    usize::try_from(random.below(length as u64)).unwrap()
}
