//! Who comes to the on-sale. Pure: what buyer number `k` is like follows from `k` alone, so that every demo has the
//! same people in the same order.

use contract::Points;

/// What a buyer will do, or have done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Character {
    Pays,
    /// The first card is declined; another one is not.
    PaysWithAnotherCard,
    /// The card is declined, and there is no other.
    GivesUp,
    /// Reserves, and is not seen again.
    NeverPays,
    /// The account is closed.
    Inactive,
    /// A person found this account to be a fraud.
    Flagged,
    /// Wants to pay with more points than there are.
    Overdraws,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    Good,
    Declined,
}

/// One of the cast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub character: Character,
    /// The balance at the start.
    pub balance: Points,
    /// What the buyer wants to pay with points.
    pub point: Points,
}

/// After so many buyers the characters come again.
pub const CYCLE: u32 = 40;
/// Points come in packets of so many.
const POINTS_PACKET: u32 = 1_000;
/// The largest number of packets that a buyer pays with, plus one.
const PACKETS: u32 = 5;

/// Buyer number `k`.
#[must_use]
pub fn part(k: u32) -> Part {
    let character = character(k);
    let point = points((k % PACKETS) * POINTS_PACKET);
    let (balance, point) = match character {
        Character::Overdraws => (points(POINTS_PACKET), points(POINTS_PACKET * PACKETS)),
        Character::Pays
        | Character::PaysWithAnotherCard
        | Character::GivesUp
        | Character::NeverPays
        | Character::Inactive
        | Character::Flagged => (points(POINTS_PACKET * PACKETS), point),
    };
    Part {
        name: format!("Buyer {k:05}"),
        character,
        balance,
        point,
    }
}

fn character(k: u32) -> Character {
    match k % CYCLE {
        3 | 23 => Character::PaysWithAnotherCard,
        13 | 33 => Character::GivesUp,
        8 | 28 => Character::NeverPays,
        11 => Character::Inactive,
        17 => Character::Flagged,
        31 => Character::Overdraws,
        _ => Character::Pays,
    }
}

fn points(amount: u32) -> Points {
    Points::new(i64::from(amount)).expect("an unsigned number is not negative")
}

impl Character {
    /// The cards that the buyer tries, one after another.
    #[must_use]
    pub const fn cards(self) -> &'static [Card] {
        match self {
            Self::Pays | Self::Inactive | Self::Flagged | Self::Overdraws => &[Card::Good],
            Self::PaysWithAnotherCard => &[Card::Declined, Card::Good],
            Self::GivesUp => &[Card::Declined],
            Self::NeverPays => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn crowd(size: u32) -> BTreeMap<Character, u32> {
        let mut crowd = BTreeMap::new();
        (0..size).for_each(|k| *crowd.entry(part(k).character).or_default() += 1);
        crowd
    }

    #[test]
    fn the_cast_is_the_same_every_time() {
        let twice = || (0..2 * CYCLE).map(part).collect::<Vec<_>>();
        assert_eq!(twice(), twice());
        let again: Vec<_> = (CYCLE..2 * CYCLE).map(|k| part(k).character).collect();
        assert_eq!((0..CYCLE).map(character).collect::<Vec<_>>(), again);
    }

    #[test]
    fn most_buy_and_everything_else_happens_too() {
        let expected = BTreeMap::from([
            (Character::Pays, 31),
            (Character::PaysWithAnotherCard, 2),
            (Character::GivesUp, 2),
            (Character::NeverPays, 2),
            (Character::Inactive, 1),
            (Character::Flagged, 1),
            (Character::Overdraws, 1),
        ]);
        assert_eq!(crowd(CYCLE), expected);
    }

    #[test]
    fn of_the_declined_one_half_tries_another_card() {
        let crowd = crowd(10 * CYCLE);
        let declined = |character: &Character| character.cards().first() == Some(&Card::Declined);
        let all: u32 = crowd
            .iter()
            .filter(|(it, _)| declined(it))
            .map(|(_, n)| n)
            .sum();
        assert_eq!(crowd[&Character::PaysWithAnotherCard] * 2, all);
    }

    #[test]
    fn only_those_who_overdraw_want_more_points_than_they_have() {
        for k in 0..4 * CYCLE {
            let Part {
                character,
                balance,
                point,
                ..
            } = part(k);
            assert_eq!(
                point > balance,
                character == Character::Overdraws,
                "buyer {k}"
            );
        }
    }
}
