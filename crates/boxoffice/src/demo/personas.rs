//! The simulated buyers. Pure: buyer number `k` is a function of `k` alone, so that each demo has the same buyers in the
//! same order.

use contract::Points;

/// What a buyer does, or why the purchase is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Behaviour {
    Pays,
    /// The first card is declined, the second accepted.
    PaysWithAnotherCard,
    /// The only card is declined.
    GivesUp,
    /// Reserves and never pays.
    NeverPays,
    /// The account is inactive.
    Inactive,
    /// An operator flagged the account for fraud.
    Flagged,
    /// Uses more points than the balance has.
    Overdraws,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    Good,
    Declined,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persona {
    pub name: String,
    pub behaviour: Behaviour,
    /// The balance at the start.
    pub balance: Points,
    /// The points that the buyer pays with.
    pub point: Points,
}

/// The behaviours repeat after this many buyers.
pub const CYCLE: u32 = 40;
/// Points are used in multiples of this.
const POINTS_PACKET: u32 = 1_000;
/// Buyers use fewer packets than this.
const PACKETS: u32 = 5;

/// Buyer number `k`.
pub fn persona(k: u32) -> Persona {
    let behaviour = behaviour(k);
    let point = points((k % PACKETS) * POINTS_PACKET);
    let (balance, point) = if behaviour == Behaviour::Overdraws {
        (points(POINTS_PACKET), points(POINTS_PACKET * PACKETS))
    } else {
        (points(POINTS_PACKET * PACKETS), point)
    };
    Persona {
        name: format!("Buyer {k:05}"),
        behaviour,
        balance,
        point,
    }
}

fn behaviour(k: u32) -> Behaviour {
    match k % CYCLE {
        3 | 23 => Behaviour::PaysWithAnotherCard,
        13 | 33 => Behaviour::GivesUp,
        8 | 28 => Behaviour::NeverPays,
        11 => Behaviour::Inactive,
        17 => Behaviour::Flagged,
        31 => Behaviour::Overdraws,
        _ => Behaviour::Pays,
    }
}

fn points(amount: u32) -> Points {
    Points::new(i64::from(amount)).expect("an unsigned number is not negative")
}

impl Behaviour {
    /// The cards that the buyer tries, in order.
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

    fn crowd(size: u32) -> BTreeMap<Behaviour, u32> {
        let mut crowd = BTreeMap::new();
        (0..size).for_each(|k| *crowd.entry(persona(k).behaviour).or_default() += 1);
        crowd
    }

    #[test]
    fn each_demo_has_the_same_buyers() {
        let twice = || (0..2 * CYCLE).map(persona).collect::<Vec<_>>();
        assert_eq!(twice(), twice());
        let again: Vec<_> = (CYCLE..2 * CYCLE).map(|k| persona(k).behaviour).collect();
        assert_eq!((0..CYCLE).map(behaviour).collect::<Vec<_>>(), again);
    }

    #[test]
    fn most_buyers_pay_and_each_other_behaviour_occurs() {
        let expected = BTreeMap::from([
            (Behaviour::Pays, 31),
            (Behaviour::PaysWithAnotherCard, 2),
            (Behaviour::GivesUp, 2),
            (Behaviour::NeverPays, 2),
            (Behaviour::Inactive, 1),
            (Behaviour::Flagged, 1),
            (Behaviour::Overdraws, 1),
        ]);
        assert_eq!(crowd(CYCLE), expected);
    }

    #[test]
    fn half_of_the_declined_buyers_try_another_card() {
        let crowd = crowd(10 * CYCLE);
        let declined = |behaviour: &Behaviour| behaviour.cards().first() == Some(&Card::Declined);
        let all: u32 = crowd
            .iter()
            .filter(|(it, _)| declined(it))
            .map(|(_, n)| n)
            .sum();
        assert_eq!(crowd[&Behaviour::PaysWithAnotherCard] * 2, all);
    }

    #[test]
    fn only_overdrawing_buyers_use_more_points_than_their_balance() {
        for k in 0..4 * CYCLE {
            let Persona {
                behaviour,
                balance,
                point,
                ..
            } = persona(k);
            assert_eq!(
                point > balance,
                behaviour == Behaviour::Overdraws,
                "buyer {k}"
            );
        }
    }
}
