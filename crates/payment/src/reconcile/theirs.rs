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
pub(super) struct Row {
    pub transaction_key: String,
    pub payment_key: String,
    pub status: ChargeStatus,
    /// Minor units, without sign.
    pub amount: i64,
    pub at: Option<Timestamp>,
}

impl Row {
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
pub(super) struct Theirs {
    pub orders: BTreeMap<String, Vec<Row>>,
    pub unreadable: u64,
    /// Up to where they were read: the end of the period, or earlier where there are too many.
    pub to: Timestamp,
}

/// What the transactions of one charge come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Approved, and nothing since.
    Held(i64),
    /// Approved, and cancelled as a whole.
    GivenBack(i64),
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
    pub(super) async fn list_theirs(
        &self,
        period: Period,
        rows_max: usize,
    ) -> Result<Theirs, Error> {
        for before_millis in [MARGIN_MILLIS, 0] {
            let wide = Period {
                from: period.from.plus_millis(-before_millis),
                to: period.to.plus_millis(MARGIN_MILLIS),
            };
            if let Some(theirs) = self.list_within(&wide, &period, rows_max).await? {
                return Ok(theirs);
            }
        }
        Err(Error::TooMany)
    }

    /// Page by page; `None` where nothing of the period is among the first `rows_max`.
    async fn list_within(
        &self,
        wide: &Period,
        period: &Period,
        rows_max: usize,
    ) -> Result<Option<Theirs>, Error> {
        let page_rows = u32::try_from(rows_max).map_or(PAGE_ROWS, |max| max.min(PAGE_ROWS));
        let mut theirs = Theirs {
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
            theirs.unreadable += unreadable as u64;
            read += transactions.len() + unreadable;
            after = transactions.last().map(|it| it.transaction_key.clone());
            for transaction in transactions {
                latest = latest.max(transaction.at);
                theirs.take(transaction);
            }
            if is_last {
                return Ok(Some(theirs));
            }
            if read >= rows_max {
                return Ok(theirs.cut(period, latest));
            }
        }
    }
}

/// As many as [`Service::list_theirs`] reads.
pub(super) fn rows_max() -> usize {
    TRANSACTIONS_MAX
}

impl Theirs {
    fn take(&mut self, transaction: Transaction) {
        let rows = self.orders.entry(transaction.order_id).or_default();
        // A gateway that repeats a row has charged no second time.
        if rows
            .iter()
            .any(|row| row.transaction_key == transaction.transaction_key)
        {
            return;
        }
        rows.push(Row {
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
pub(super) fn charges(rows: &[Row]) -> BTreeMap<&str, Shape> {
    let mut by_key: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_key.entry(&row.payment_key).or_default().push(row);
    }
    let shape = |rows: Vec<&Row>| match rows.as_slice() {
        [row] if row.status == ChargeStatus::Done => Shape::Held(row.amount),
        [one, other] if is_given_back(one, other) => Shape::GivenBack(one.amount),
        _ => Shape::Unclear,
    };
    let shaped = by_key.into_iter().map(|(key, rows)| (key, shape(rows)));
    shaped.collect()
}

/// Both may have happened within one moment, and come in either order.
fn is_given_back(one: &Row, other: &Row) -> bool {
    let (done, canceled) = (ChargeStatus::Done, ChargeStatus::Canceled);
    let is_both = (one.status == done && other.status == canceled)
        || (one.status == canceled && other.status == done);
    is_both && one.amount == other.amount
}

/// Which charges of a payment the list alone does not explain: none, where both sides say the same.
pub(super) fn open_charges(payment: &PaymentRecord, rows: &[Row]) -> Vec<OpenCharge> {
    let named = payment.charge_key();
    let amount = payment.final_amount.get();
    let listed = charges(rows);
    let is_explained = |shape: Shape| match (payment.status, shape) {
        (PaymentStatus::Succeeded, Shape::Held(held)) => {
            payment.refund == Refund::None && held == amount
        }
        (PaymentStatus::Cancelled, Shape::GivenBack(back)) => back == amount,
        (
            PaymentStatus::Created | PaymentStatus::Failed | PaymentStatus::Deleted,
            Shape::GivenBack(_),
        ) => true,
        (
            PaymentStatus::Created
            | PaymentStatus::Confirming
            | PaymentStatus::Succeeded
            | PaymentStatus::Failed
            | PaymentStatus::Cancelled
            | PaymentStatus::Deleted,
            Shape::Held(_) | Shape::GivenBack(_) | Shape::Unclear,
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
            !matches!(shape, Shape::GivenBack(_))
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
