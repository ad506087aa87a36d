//! The gateway's transactions of a period, by order, and what they alone prove about a payment. Pure except for reading
//! the list.

use std::collections::BTreeMap;

use contract::{Timestamp, domain::PaymentStatus};

use super::{Error, Period};
use toss::{ChargeStatus, Listing, Transaction};

use crate::{
    Service,
    record::{PaymentRecord, Refund},
};

/// The list is read this much wider: clocks differ, and the gateway lists an approval later than it happened.
pub(super) const MARGIN_MILLIS: i64 = 600_000;
/// Rows of a page.
const PAGE_ROWS: u32 = 1_000;
/// Transactions that one reconciliation holds in memory, a few hundred bytes each.
const TRANSACTIONS_MAX: usize = 200_000;

/// One transaction of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LedgerRow {
    pub transaction_key: String,
    pub payment_key: String,
    pub status: ChargeStatus,
    /// Minor units, without sign.
    pub amount: i64,
    pub at: Option<Timestamp>,
}

impl LedgerRow {
    /// Whether it is in the period and not in the margin; a row without a time is.
    pub fn is_inside(&self, period: &Period) -> bool {
        self.at
            .is_none_or(|at| (period.from..period.to).contains(&at))
    }

    /// Whether it is in the margin before the period: the gateway may have listed it after that period was compared.
    pub fn is_late(&self, period: &Period) -> bool {
        self.at.is_some_and(|at| at < period.from)
    }
}

/// The transactions of a period.
#[derive(Debug)]
pub(super) struct GatewayLedger {
    pub orders: BTreeMap<String, Vec<LedgerRow>>,
    pub unreadable: u64,
    /// The end of what was read: the end of the period, or earlier if there are too many.
    pub to: Timestamp,
}

/// What the transactions of one charge prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChargeState {
    /// Approved and not cancelled.
    Held(i64),
    /// Approved and cancelled in full.
    Refunded(i64),
    /// Anything else: only a lookup tells the state.
    Unclear,
}

/// A charge that must be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenCharge {
    pub payment_key: String,
    /// Whether it is the payment's own.
    pub is_named: bool,
}

impl Service {
    /// Reads the list of a period. If the margin before it alone is too long, reads without it, so that every period makes
    /// progress and the next one continues.
    pub(super) async fn read_gateway_ledger(
        &self,
        period: Period,
        rows_max: usize,
    ) -> Result<GatewayLedger, Error> {
        for before_millis in [MARGIN_MILLIS, 0] {
            let wide = Period {
                from: period.from.plus_millis(-before_millis),
                to: period.to.plus_millis(MARGIN_MILLIS),
            };
            if let Some(ledger) = self.read_ledger_within(&wide, &period, rows_max).await? {
                return Ok(ledger);
            }
        }
        Err(Error::TooMany)
    }

    /// Reads page by page; `None` if the first `rows_max` rows contain nothing of the period.
    async fn read_ledger_within(
        &self,
        wide: &Period,
        period: &Period,
        rows_max: usize,
    ) -> Result<Option<GatewayLedger>, Error> {
        let page_rows = u32::try_from(rows_max).map_or(PAGE_ROWS, |max| max.min(PAGE_ROWS));
        let mut ledger = GatewayLedger {
            orders: BTreeMap::new(),
            unreadable: 0,
            to: period.to,
        };
        let (mut after, mut read, mut latest): (Option<String>, usize, Option<Timestamp>) =
            (None, 0, None);
        let listed = toss::Period {
            from: instant(wide.from),
            to: instant(wide.to),
        };
        loop {
            let gateway = &self.inner.gateway;
            let page = gateway
                .transactions(&listed, after.as_deref(), page_rows)
                .await;
            let (transactions, is_last, unreadable) = match page {
                Listing::Page {
                    transactions,
                    is_last,
                    unreadable,
                } => (transactions, is_last, unreadable),
                Listing::Unknown { reason } => return Err(Error::Gateway { reason }),
            };
            ledger.unreadable += unreadable as u64;
            read += transactions.len() + unreadable;
            after = transactions.last().map(|it| it.transaction_key.clone());
            for transaction in transactions {
                latest = latest.max(transaction.at.map(timestamp));
                ledger.add(transaction);
            }
            if is_last {
                return Ok(Some(ledger));
            }
            if read >= rows_max {
                return Ok(ledger.cut(period, latest));
            }
        }
    }
}

fn timestamp(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millisecond())
}

fn instant(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::MAX)
}

/// The limit of [`Service::read_gateway_ledger`].
pub(super) fn rows_max() -> usize {
    TRANSACTIONS_MAX
}

impl GatewayLedger {
    fn add(&mut self, transaction: Transaction) {
        let rows = self.orders.entry(transaction.order_id).or_default();
        // A repeated row is no second charge.
        if rows
            .iter()
            .any(|row| row.transaction_key == transaction.transaction_key)
        {
            return;
        }
        rows.push(LedgerRow {
            transaction_key: transaction.transaction_key,
            payment_key: transaction.payment_key,
            status: transaction.status,
            amount: transaction.amount.saturating_abs(),
            at: transaction.at.map(timestamp),
        });
    }

    /// Ends the period at the last row read, minus the margin. If less than the margin was read, ends it without a margin:
    /// then the payments beyond the end are looked up one by one.
    fn cut(mut self, period: &Period, latest: Option<Timestamp>) -> Option<Self> {
        let left = latest?;
        let short = left.plus_millis(-MARGIN_MILLIS);
        let to = if short > period.from { short } else { left };
        self.to = to.min(period.to);
        (to > period.from).then_some(self)
    }
}

/// The state of each charge of an order.
pub(super) fn charges(rows: &[LedgerRow]) -> BTreeMap<&str, ChargeState> {
    let mut by_key: BTreeMap<&str, Vec<&LedgerRow>> = BTreeMap::new();
    for row in rows {
        by_key.entry(&row.payment_key).or_default().push(row);
    }
    let state = |rows: Vec<&LedgerRow>| match rows.as_slice() {
        [row] if row.status == ChargeStatus::Done => ChargeState::Held(row.amount),
        [one, other] if is_refund_pair(one, other) => ChargeState::Refunded(one.amount),
        _ => ChargeState::Unclear,
    };
    let states = by_key.into_iter().map(|(key, rows)| (key, state(rows)));
    states.collect()
}

/// An approval and a cancellation, which may have the same time and any order.
fn is_refund_pair(one: &LedgerRow, other: &LedgerRow) -> bool {
    let (done, canceled) = (ChargeStatus::Done, ChargeStatus::Canceled);
    let is_both = (one.status == done && other.status == canceled)
        || (one.status == canceled && other.status == done);
    is_both && one.amount == other.amount
}

/// The charges of a payment that the list alone does not explain; none if both sides agree.
pub(super) fn open_charges(payment: &PaymentRecord, rows: &[LedgerRow]) -> Vec<OpenCharge> {
    let named = payment.charge_key();
    let amount = payment.final_amount.get();
    let listed = charges(rows);
    let is_explained = |state: ChargeState| match (payment.status, state) {
        (PaymentStatus::Succeeded, ChargeState::Held(held)) => {
            payment.refund == Refund::None && held == amount
        }
        (PaymentStatus::Cancelled, ChargeState::Refunded(back)) => back == amount,
        (
            PaymentStatus::Created | PaymentStatus::Failed | PaymentStatus::Deleted,
            ChargeState::Refunded(_),
        ) => true,
        (
            PaymentStatus::Created
            | PaymentStatus::Confirming
            | PaymentStatus::Succeeded
            | PaymentStatus::Failed
            | PaymentStatus::Cancelled
            | PaymentStatus::Deleted,
            ChargeState::Held(_) | ChargeState::Refunded(_) | ChargeState::Unclear,
        ) => false,
    };
    let expects_charge = matches!(
        payment.status,
        PaymentStatus::Confirming | PaymentStatus::Succeeded | PaymentStatus::Cancelled
    );
    let unlisted = named.filter(|key| expects_charge && !listed.contains_key(key));
    let open = listed.iter().filter(|(key, state)| {
        if Some(**key) == named {
            !is_explained(**state)
        } else {
            !matches!(state, ChargeState::Refunded(_))
        }
    });
    // The own charge first: only then can the others be told apart from it.
    let mut charges: Vec<OpenCharge> = unlisted
        .into_iter()
        .chain(open.map(|(key, _)| *key))
        .map(|key| OpenCharge {
            payment_key: key.to_owned(),
            is_named: Some(key) == named,
        })
        .collect();
    charges.sort_by_key(|charge| !charge.is_named);
    charges
}

#[cfg(test)]
mod tests;
