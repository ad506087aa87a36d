//! What happened, counted. Pure: visits and observations go in, numbers come out.

use std::collections::BTreeMap;

use contract::Money;
use user::ledger::EntryKind;

use super::{
    api::LedgerEntry,
    buyer::{End, Visit},
};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    pub buyers: u64,
    /// Reservations.
    pub granted: u64,
    /// Answers, by code: somebody who tried twice is told twice.
    pub refused: BTreeMap<String, u64>,
    pub compensated: BTreeMap<String, u64>,
    /// Cards.
    pub declined: u64,
    /// Purchases that were paid after a declined card.
    pub paid_with_another_card: u64,
    pub unpaid: u64,
    pub refunded: u64,
    pub bought: u64,
    pub bought_in_rush: u64,
    pub money: i64,
    /// With which tickets were paid, as the buyers meant it.
    pub points_spent: i64,
}

/// What the ledgers of all buyers say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PointsTally {
    pub reserved: i64,
    pub restored: i64,
}

impl Tally {
    /// The first `rush` visits were those of the rush.
    #[must_use]
    pub fn of(visits: &[Visit], rush: usize) -> Self {
        let mut tally = Self {
            buyers: rush as u64,
            ..Self::default()
        };
        visits.iter().for_each(|visit| tally.count(visit));
        let bought = |visit: &&Visit| matches!(visit.end, End::Bought { .. });
        tally.bought_in_rush = visits.iter().take(rush).filter(bought).count() as u64;
        tally
    }

    fn count(&mut self, visit: &Visit) {
        let once = |counts: &mut BTreeMap<String, u64>, what: &String| {
            *counts.entry(what.clone()).or_default() += 1;
        };
        visit
            .refused
            .iter()
            .for_each(|code| once(&mut self.refused, code));
        self.declined += u64::from(visit.declined);
        self.granted += u64::from(visit.end != End::LeftOut);
        match &visit.end {
            End::LeftOut => {}
            End::Compensated { reason } => once(&mut self.compensated, reason),
            End::Unpaid { .. } => self.unpaid += 1,
            End::Refunded => self.refunded += 1,
            End::Bought { paid } => self.count_ticket(visit, *paid),
        }
    }

    fn count_ticket(&mut self, visit: &Visit, paid: Money) {
        self.bought += 1;
        self.paid_with_another_card += u64::from(visit.declined > 0);
        self.money += paid.get();
        self.points_spent += visit.buyer.part.point.get();
    }
}

impl PointsTally {
    pub fn add(&mut self, entries: &[LedgerEntry]) {
        for LedgerEntry { kind, amount } in entries {
            match kind {
                EntryKind::Reserved => self.reserved -= amount,
                EntryKind::Restored => self.restored += amount,
                EntryKind::Granted | EntryKind::Used => {}
            }
        }
    }

    /// Once nothing is under way, what was taken and not given back is used.
    #[must_use]
    pub fn used(&self) -> i64 {
        self.reserved - self.restored
    }
}

#[cfg(test)]
mod tests {
    use contract::{TicketId, UserId};

    use super::*;
    use crate::demo::{buyer::Buyer, cast};

    fn visit(k: u32, refused: Option<&str>, declined: u32, end: End) -> Visit {
        let buyer = Buyer {
            user_id: UserId(i64::from(k)),
            part: cast::part(k),
        };
        Visit {
            buyer,
            refused: refused.map(str::to_owned),
            declined,
            end,
        }
    }

    #[test]
    fn every_visit_is_counted_where_it_belongs() {
        let ticket_id = TicketId(uuid::Uuid::nil());
        let paid = Money::new(48_000).unwrap();
        let reason = "FRAUD_SUSPECTED".to_owned();
        let visits = [
            visit(2, None, 0, End::Bought { paid }),
            visit(7, None, 1, End::Bought { paid }),
            visit(13, None, 1, End::Unpaid { ticket_id }),
            visit(
                17,
                None,
                0,
                End::Compensated {
                    reason: reason.clone(),
                },
            ),
            visit(22, Some("SOLD_OUT"), 0, End::LeftOut),
            visit(22, None, 0, End::Bought { paid }),
        ];
        let expected = Tally {
            buyers: 5,
            granted: 5,
            refused: BTreeMap::from([("SOLD_OUT".to_owned(), 1)]),
            compensated: BTreeMap::from([(reason, 1)]),
            declined: 2,
            paid_with_another_card: 1,
            unpaid: 1,
            refunded: 0,
            bought: 3,
            bought_in_rush: 2,
            money: 144_000,
            points_spent: 6_000,
        };
        assert_eq!(Tally::of(&visits, 5), expected);
    }

    #[test]
    fn points_that_did_not_come_back_are_used() {
        let entry = |kind, amount| LedgerEntry { kind, amount };
        let mut points = PointsTally::default();
        points.add(&[
            entry(EntryKind::Granted, 5_000),
            entry(EntryKind::Reserved, -3_000),
            entry(EntryKind::Restored, 3_000),
            entry(EntryKind::Reserved, -1_000),
            entry(EntryKind::Used, 0),
        ]);
        assert_eq!(
            (points.reserved, points.restored, points.used()),
            (4_000, 3_000, 1_000)
        );
    }
}
