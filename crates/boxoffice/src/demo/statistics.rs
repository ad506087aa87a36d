//! Counts of what happened in the sale. Pure.

use std::collections::BTreeMap;

use contract::Money;
use user::ledger::EntryKind;

use super::{
    api::LedgerEntry,
    buyer::{Visit, VisitOutcome},
};

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SaleStatistics {
    pub buyers: u64,
    /// Reservations.
    pub granted: u64,
    /// Refusals by code; a buyer who tried twice counts twice.
    pub refused: BTreeMap<String, u64>,
    pub compensated: BTreeMap<String, u64>,
    /// Declined cards.
    pub declined: u64,
    /// Purchases that were paid after a declined card.
    pub paid_with_another_card: u64,
    pub unpaid: u64,
    pub refunded: u64,
    pub bought: u64,
    pub bought_in_rush: u64,
    pub money: i64,
    /// Points that the buyers paid with.
    pub points_spent: i64,
}

/// Sums over the points ledgers of all buyers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct PointsStatistics {
    pub reserved: i64,
    pub restored: i64,
}

impl SaleStatistics {
    /// The first `rush` visits belong to the rush.
    pub fn of(visits: &[Visit], rush: usize) -> Self {
        let mut statistics = Self {
            buyers: rush as u64,
            ..Self::default()
        };
        visits.iter().for_each(|visit| statistics.count(visit));
        let bought = |visit: &&Visit| matches!(visit.outcome, VisitOutcome::Bought { .. });
        statistics.bought_in_rush = visits.iter().take(rush).filter(bought).count() as u64;
        statistics
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
        self.granted += u64::from(visit.outcome != VisitOutcome::LeftOut);
        match &visit.outcome {
            VisitOutcome::LeftOut => {}
            VisitOutcome::Compensated { reason } => once(&mut self.compensated, reason),
            VisitOutcome::Unpaid { .. } => self.unpaid += 1,
            VisitOutcome::Refunded => self.refunded += 1,
            VisitOutcome::Bought { paid } => self.count_ticket(visit, *paid),
        }
    }

    fn count_ticket(&mut self, visit: &Visit, paid: Money) {
        self.bought += 1;
        self.paid_with_another_card += u64::from(visit.declined > 0);
        self.money += paid.get();
        self.points_spent += visit.buyer.persona.point.get();
    }
}

impl PointsStatistics {
    pub fn add(&mut self, entries: &[LedgerEntry]) {
        for LedgerEntry { kind, amount } in entries {
            match kind {
                EntryKind::Reserved => self.reserved -= amount,
                EntryKind::Restored => self.restored += amount,
                EntryKind::Granted | EntryKind::Used => {}
            }
        }
    }

    /// Exact once nothing is in progress: points reserved and not restored are used.
    pub fn used(&self) -> i64 {
        self.reserved - self.restored
    }
}

#[cfg(test)]
mod tests {
    use contract::{TicketId, UserId};

    use super::*;
    use crate::demo::{buyer::Buyer, personas};

    fn visit(k: u32, refused: Option<&str>, declined: u32, outcome: VisitOutcome) -> Visit {
        let buyer = Buyer {
            user_id: UserId(i64::from(k)),
            persona: personas::persona(k),
        };
        Visit {
            buyer,
            refused: refused.map(str::to_owned),
            declined,
            outcome,
        }
    }

    #[test]
    fn each_visit_is_counted_by_its_outcome() {
        let ticket_id = TicketId(uuid::Uuid::nil());
        let paid = Money::new(48_000).unwrap();
        let reason = "FRAUD_SUSPECTED".to_owned();
        let visits = [
            visit(2, None, 0, VisitOutcome::Bought { paid }),
            visit(7, None, 1, VisitOutcome::Bought { paid }),
            visit(13, None, 1, VisitOutcome::Unpaid { ticket_id }),
            visit(
                17,
                None,
                0,
                VisitOutcome::Compensated {
                    reason: reason.clone(),
                },
            ),
            visit(22, Some("SOLD_OUT"), 0, VisitOutcome::LeftOut),
            visit(22, None, 0, VisitOutcome::Bought { paid }),
        ];
        let expected = SaleStatistics {
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
        assert_eq!(SaleStatistics::of(&visits, 5), expected);
    }

    #[test]
    fn points_reserved_and_not_restored_are_used() {
        let entry = |kind, amount| LedgerEntry { kind, amount };
        let mut points = PointsStatistics::default();
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
