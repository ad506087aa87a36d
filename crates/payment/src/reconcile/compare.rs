//! Compares one payment with its charges. A charge that the list does not explain is looked up, and its state applied; what
//! cannot be applied becomes a difference in the report.

use contract::{Timestamp, domain::PaymentStatus};
use messaging::StoreError;

use super::{
    gateway_ledger::{self, LedgerRow, OpenCharge},
    report::{Difference, DifferenceKind, Finding},
};
use toss::{Charge, ChargeStatus, Lookup};

use crate::{
    Service,
    gateway_state::{self, GatewayState},
    record::{OrphanChargeRecord, PaymentRecord, Refund},
    refund::is_overdue,
};

impl Service {
    /// Compares a payment with the gateway's rows of its order.
    pub(super) async fn compare(
        &self,
        seen: PaymentRecord,
        rows: Vec<LedgerRow>,
    ) -> Result<Vec<Finding>, StoreError> {
        if gateway_ledger::open_charges(&seen, &rows).is_empty() {
            return Ok(vec![explained(&seen, &rows)]);
        }
        let id = seen.payment_id;
        // A request of this process that is in flight will tell the outcome.
        let Some(_attempt) = self.inner.in_flight.enter(id) else {
            return Ok(vec![Finding::UnderWay]);
        };
        // Loaded again: it may have changed since it was read.
        let Some(payment) = self.show(id).await? else {
            return Ok(vec![Finding::UnderWay]);
        };
        let charges = gateway_ledger::open_charges(&payment, &rows);
        if charges.is_empty() {
            return Ok(vec![explained(&payment, &rows)]);
        }
        let mut findings = Vec::with_capacity(charges.len());
        for charge in &charges {
            findings.push(self.look_at(&payment, charge).await?);
        }
        Ok(findings)
    }

    async fn look_at(
        &self,
        payment: &PaymentRecord,
        open: &OpenCharge,
    ) -> Result<Finding, StoreError> {
        match self.inner.gateway.find_by_key(&open.payment_key).await {
            Lookup::Unknown { reason } => {
                tracing::warn!(payment.id = %payment.payment_id, reason, "cannot look a payment up for its reconciliation");
                Ok(unanswered(payment, open, reason))
            }
            Lookup::NotFound => Ok(absent(payment, open, "the gateway does not know it")),
            Lookup::Found(charge) => self.apply_charge(payment, open, &charge).await,
        }
    }

    /// Applies the state of the charge, or reports it.
    async fn apply_charge(
        &self,
        payment: &PaymentRecord,
        open: &OpenCharge,
        charge: &Charge,
    ) -> Result<Finding, StoreError> {
        let state = gateway_state::compare(payment, charge);
        if let Some(commit) = self.apply_gateway_state(payment, charge, &state).await? {
            let is_settled = self.settled(commit).await?;
            return Ok(match is_settled {
                true => Finding::Settled,
                // A concurrent change, made with the same state of the gateway.
                false => Finding::UnderWay,
            });
        }
        Ok(match state {
            GatewayState::InSync => agreed(payment, open, charge, self.inner.clock.now()),
            GatewayState::OtherOrder => absent(payment, open, "the charge is another order's"),
            GatewayState::Orphan | GatewayState::WrongAmount => {
                self.orphan_finding(payment, charge).await?
            }
            GatewayState::Mismatch(note) => {
                // Charged with another amount, or cancelled in part at the gateway's console.
                let is_amount = charge.total_amount != payment.final_amount.get()
                    || matches!(
                        charge.status,
                        ChargeStatus::Done | ChargeStatus::PartialCanceled
                    );
                let kind = match is_amount {
                    true => DifferenceKind::DifferentAmount,
                    false => DifferenceKind::DifferentStatus,
                };
                both_sides(kind, payment, charge, note)
            }
            GatewayState::Pending
            | GatewayState::AwaitingDeposit
            | GatewayState::Outcome(_)
            | GatewayState::CancelledAtGateway
            | GatewayState::DepositReversed
            | GatewayState::Refunded => Finding::UnderWay,
        })
    }

    /// The finding about a known orphan charge.
    async fn orphan_finding(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<Finding, StoreError> {
        let key = charge.payment_key.as_str();
        let orphan: Option<OrphanChargeRecord> = self.inner.store.load(key).await?;
        Ok(match orphan {
            Some(orphan) if orphan.refund == Refund::Parked => {
                let note = orphan.refund_code.unwrap_or_default();
                both_sides(DifferenceKind::ParkedRefund, payment, charge, &note)
            }
            Some(orphan) if is_overdue(orphan.refund_requested_since(), self.inner.clock.now()) => {
                let note = overdue_note(
                    orphan.refund_requested_since(),
                    orphan.refund_code.as_deref(),
                );
                both_sides(DifferenceKind::ParkedRefund, payment, charge, &note)
            }
            Some(_) => Finding::UnderWay,
            None => {
                let note = "it has an amount that cannot be refunded";
                both_sides(DifferenceKind::DifferentAmount, payment, charge, note)
            }
        })
    }
}

impl Service {
    /// An orphan charge whose refund is parked or overdue.
    pub(super) fn overdue_orphan(&self, orphan: &OrphanChargeRecord) -> Option<Difference> {
        let since = orphan.refund_requested_since();
        let note = match orphan.refund {
            Refund::Parked => orphan.refund_code.clone(),
            Refund::Requested if is_overdue(since, self.inner.clock.now()) => {
                Some(overdue_note(since, orphan.refund_code.as_deref()))
            }
            Refund::Requested | Refund::None | Refund::Done => return None,
        };
        Some(Difference {
            kind: DifferenceKind::ParkedRefund,
            payment_id: Some(orphan.payment_id),
            pg_payment_id: Some(orphan.pg_payment_id.clone()),
            order_id: Some(orphan.payment_id.to_string()),
            ours: None,
            theirs: None,
            amount_ours: None,
            amount_theirs: Some(orphan.amount.get()),
            note,
        })
    }
}

/// The list alone proves that both sides agree.
fn explained(payment: &PaymentRecord, rows: &[LedgerRow]) -> Finding {
    let is_free = payment.is_free() && rows.is_empty();
    match payment.status {
        PaymentStatus::Succeeded | PaymentStatus::Cancelled if is_free => Finding::Free,
        PaymentStatus::Confirming => Finding::UnderWay,
        PaymentStatus::Created
        | PaymentStatus::Succeeded
        | PaymentStatus::Failed
        | PaymentStatus::Cancelled
        | PaymentStatus::Deleted => Finding::Matched,
    }
}

/// Both sides agree; a refund may be open.
fn agreed(payment: &PaymentRecord, open: &OpenCharge, charge: &Charge, now: Timestamp) -> Finding {
    match payment.refund {
        Refund::Parked if open.is_named => {
            let note = payment.refund_code.as_deref().unwrap_or_default();
            both_sides(DifferenceKind::ParkedRefund, payment, charge, note)
        }
        Refund::Requested if open.is_named => {
            let since = payment.refund_requested_since();
            if is_overdue(since, now) {
                let note = overdue_note(since, payment.refund_code.as_deref());
                return both_sides(DifferenceKind::ParkedRefund, payment, charge, &note);
            }
            Finding::UnderWay
        }
        Refund::None | Refund::Requested | Refund::Done | Refund::Parked => Finding::Matched,
    }
}

/// The note about an overdue refund.
pub(super) fn overdue_note(since: Timestamp, code: Option<&str>) -> String {
    let answer = code.map_or_else(String::new, |code| format!(", last answer {code}"));
    format!("requested at {since} and not done{answer}")
}

/// The gateway has no such charge of this order.
fn absent(payment: &PaymentRecord, open: &OpenCharge, note: &str) -> Finding {
    let kind = match payment.status {
        PaymentStatus::Succeeded | PaymentStatus::Cancelled if open.is_named => {
            DifferenceKind::MissingThere
        }
        // The settler decides whether to repeat the confirm.
        PaymentStatus::Confirming => return Finding::UnderWay,
        PaymentStatus::Created
        | PaymentStatus::Succeeded
        | PaymentStatus::Failed
        | PaymentStatus::Cancelled
        | PaymentStatus::Deleted => DifferenceKind::DifferentStatus,
    };
    Finding::Differs(Box::new(Difference {
        note: Some(note.to_owned()),
        ..ours(kind, payment, &open.payment_key)
    }))
}

fn unanswered(payment: &PaymentRecord, open: &OpenCharge, reason: String) -> Finding {
    Finding::Differs(Box::new(Difference {
        note: Some(reason),
        ..ours(DifferenceKind::NotAsked, payment, &open.payment_key)
    }))
}

/// A difference with both sides.
fn both_sides(
    kind: DifferenceKind,
    payment: &PaymentRecord,
    charge: &Charge,
    note: &str,
) -> Finding {
    Finding::Differs(Box::new(Difference {
        theirs: Some(charge.status.as_str().to_owned()),
        amount_theirs: Some(charge.balance_amount),
        note: Some(note.to_owned()),
        ..ours(kind, payment, &charge.payment_key)
    }))
}

fn ours(kind: DifferenceKind, payment: &PaymentRecord, payment_key: &str) -> Difference {
    let status = match serde_json::to_value(payment.status) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(_) | Err(_) => format!("{:?}", payment.status),
    };
    Difference {
        kind,
        payment_id: Some(payment.payment_id),
        pg_payment_id: Some(payment_key.to_owned()),
        order_id: Some(payment.order_id()),
        ours: Some(status),
        theirs: None,
        amount_ours: Some(payment.final_amount.get()),
        amount_theirs: None,
        note: None,
    }
}
