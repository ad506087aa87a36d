//! What the gateway lists of a period, by order; and what that alone says of a payment. Pure but for the listing.

use std::collections::BTreeMap;

use contract::{Timestamp, domain::PaymentStatus};

use super::Error;
use crate::{
    Service,
    gateway::{ChargeStatus, Listing, Period, Transaction},
    record::{PaymentRecord, Refund},
};

/// Our clock and the gateway's differ, and an approval is recorded after it was made: the list is read so much wider.
pub(super) const MARGIN_MILLIS: i64 = 600_000;
/// Rows of a page.
const PAGE_ROWS: u32 = 1_000;
/// Transactions that one reconciliation takes on: some hundred bytes each, in memory.
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
    /// Not only in the margin; so is one of which nobody knows when it was.
    pub fn is_inside(&self, period: &Period) -> bool {
        self.at
            .is_none_or(|at| (period.from..period.to).contains(&at))
    }

    /// In the margin before the period: it may have been listed only after the period before was compared.
    pub fn is_late(&self, period: &Period) -> bool {
        self.at.is_some_and(|at| at < period.from)
    }
}

/// The transactions of a period.
#[derive(Debug)]
pub(super) struct GatewayLedger {
    pub orders: BTreeMap<String, Vec<LedgerRow>>,
    pub unreadable: u64,
    /// Up to where they were read: the end of the period, or earlier where there are too many.
    pub to: Timestamp,
}

/// What the transactions of one charge come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChargeState {
    /// Approved, and nothing since.
    Held(i64),
    /// Approved, and cancelled as a whole.
    Refunded(i64),
    /// Anything else: only a lookup says where it stands.
    Unclear,
}

/// A charge that must be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenCharge {
    pub payment_key: String,
    /// The payment names it as its own.
    pub is_named: bool,
}

impl Service {
    /// Reads the list of a period. Where the margin before it alone is too much, it is read without that: the period
    /// always begins, and the next one goes on where it was left.
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

    /// Page by page; `None` where nothing of the period is among the first `rows_max`.
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
        loop {
            let gateway = &self.inner.gateway;
            let page = gateway
                .transactions(wide, after.as_deref(), page_rows)
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
                latest = latest.max(transaction.at);
                ledger.take(transaction);
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

/// As many as [`Service::read_gateway_ledger`] reads.
pub(super) fn rows_max() -> usize {
    TRANSACTIONS_MAX
}

impl GatewayLedger {
    fn take(&mut self, transaction: Transaction) {
        let rows = self.orders.entry(transaction.order_id).or_default();
        // A gateway that repeats a row has charged no second time.
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
            at: transaction.at,
        });
    }

    /// Ends the period where the list was left: it comes in the order of time. Less the margin, or without one where not
    /// so much was read: then what our payments have beyond the end is looked up one by one.
    fn cut(mut self, period: &Period, latest: Option<Timestamp>) -> Option<Self> {
        let left = latest?;
        let short = left.plus_millis(-MARGIN_MILLIS);
        let to = if short > period.from { short } else { left };
        self.to = to.min(period.to);
        (to > period.from).then_some(self)
    }
}

/// What the rows of each charge of an order come to.
pub(super) fn charges(rows: &[LedgerRow]) -> BTreeMap<&str, ChargeState> {
    let mut by_key: BTreeMap<&str, Vec<&LedgerRow>> = BTreeMap::new();
    for row in rows {
        by_key.entry(&row.payment_key).or_default().push(row);
    }
    let shape = |rows: Vec<&LedgerRow>| match rows.as_slice() {
        [row] if row.status == ChargeStatus::Done => ChargeState::Held(row.amount),
        [one, other] if is_refund_pair(one, other) => ChargeState::Refunded(one.amount),
        _ => ChargeState::Unclear,
    };
    let shaped = by_key.into_iter().map(|(key, rows)| (key, shape(rows)));
    shaped.collect()
}

/// Both may have happened within one moment, and come in either order.
fn is_refund_pair(one: &LedgerRow, other: &LedgerRow) -> bool {
    let (done, canceled) = (ChargeStatus::Done, ChargeStatus::Canceled);
    let is_both = (one.status == done && other.status == canceled)
        || (one.status == canceled && other.status == done);
    is_both && one.amount == other.amount
}

/// Which charges of a payment the list alone does not explain: none, where both sides say the same.
pub(super) fn open_charges(payment: &PaymentRecord, rows: &[LedgerRow]) -> Vec<OpenCharge> {
    let named = payment.charge_key();
    let amount = payment.final_amount.get();
    let listed = charges(rows);
    let is_explained = |shape: ChargeState| match (payment.status, shape) {
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
    let open = listed.iter().filter(|(key, shape)| {
        if Some(**key) == named {
            !is_explained(**shape)
        } else {
            !matches!(shape, ChargeState::Refunded(_))
        }
    });
    // Its own first: what is beside it can be told from it only then.
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
