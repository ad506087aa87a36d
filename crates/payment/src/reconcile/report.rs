//! The report of a reconciliation. Plain data.

use contract::{PaymentId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Differences that a report lists; further ones are only counted.
pub const LISTED_MAX: usize = 1_000;

/// The result of a reconciliation with its differences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    #[serde(flatten)]
    pub summary: Summary,
    /// The first 1000.
    pub differences: Vec<Difference>,
    /// Differences that are counted but not listed.
    pub left_out: u64,
}

/// The period and the counts of a reconciliation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub id: String,
    pub from: Timestamp,
    /// Earlier than requested if the gateway lists too many transactions: the next reconciliation continues here.
    pub to: Timestamp,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    #[serde(flatten)]
    pub counts: Counts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Payments on which both sides agree.
    pub matched: u64,
    /// Payments that points paid in full: the gateway was never asked.
    pub free_payments: u64,
    /// Payments that were brought to their state at the gateway.
    pub settled: u64,
    /// Payments that are being settled.
    pub under_way: u64,
    /// Charges whose order has no payment here, perhaps of another shop of the same merchant.
    pub missing_here: u64,
    /// Paid payments that the gateway does not know.
    pub missing_there: u64,
    pub different_amount: u64,
    pub different_status: u64,
    /// Refunds that are parked or overdue: an operator is needed.
    pub parked_refunds: u64,
    /// Payments that the gateway did not answer about.
    pub not_asked: u64,
    /// Rows of the gateway's list that could not be read, or are in another currency.
    pub unreadable: u64,
}

/// A difference between the two sides that could not be settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub kind: DifferenceKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<PaymentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg_payment_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<String>,
    /// The status here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ours: Option<String>,
    /// The status at the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theirs: Option<String>,
    /// Minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_ours: Option<i64>,
    /// Minor units that the gateway holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_theirs: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DifferenceKind {
    MissingHere,
    MissingThere,
    DifferentAmount,
    DifferentStatus,
    ParkedRefund,
    NotAsked,
}

impl DifferenceKind {
    pub const ALL: [Self; 6] = [
        Self::MissingHere,
        Self::MissingThere,
        Self::DifferentAmount,
        Self::DifferentStatus,
        Self::ParkedRefund,
        Self::NotAsked,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingHere => "MISSING_HERE",
            Self::MissingThere => "MISSING_THERE",
            Self::DifferentAmount => "DIFFERENT_AMOUNT",
            Self::DifferentStatus => "DIFFERENT_STATUS",
            Self::ParkedRefund => "PARKED_REFUND",
            Self::NotAsked => "NOT_ASKED",
        }
    }
}

impl Counts {
    #[must_use]
    pub fn of(mut self, kind: DifferenceKind) -> u64 {
        *self.of_mut(kind)
    }

    fn of_mut(&mut self, kind: DifferenceKind) -> &mut u64 {
        match kind {
            DifferenceKind::MissingHere => &mut self.missing_here,
            DifferenceKind::MissingThere => &mut self.missing_there,
            DifferenceKind::DifferentAmount => &mut self.different_amount,
            DifferenceKind::DifferentStatus => &mut self.different_status,
            DifferenceKind::ParkedRefund => &mut self.parked_refunds,
            DifferenceKind::NotAsked => &mut self.not_asked,
        }
    }
}

impl Report {
    /// Whether no difference is left for an operator.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let counts = self.summary.counts;
        counts.unreadable == 0 && DifferenceKind::ALL.iter().all(|kind| counts.of(*kind) == 0)
    }
}

/// The result of comparing one charge of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    Matched,
    Free,
    Settled,
    UnderWay,
    Differs(Box<Difference>),
}

impl Finding {
    /// Whether it is a change or a difference.
    pub fn is_news(&self) -> bool {
        match self {
            Self::Settled | Self::Differs(_) => true,
            Self::Matched | Self::Free | Self::UnderWay => false,
        }
    }
}

/// The report under construction.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub counts: Counts,
    pub differences: Vec<Difference>,
    pub left_out: u64,
}

impl Tally {
    /// Adds the findings about one payment, which counts once, except for its differences.
    pub fn add(&mut self, findings: Vec<Finding>) {
        let has = |wanted: &Finding| findings.contains(wanted);
        let counter = match () {
            () if findings.iter().any(|it| matches!(it, Finding::Differs(_))) => None,
            () if has(&Finding::Settled) => Some(&mut self.counts.settled),
            () if has(&Finding::UnderWay) => Some(&mut self.counts.under_way),
            () if has(&Finding::Free) => Some(&mut self.counts.free_payments),
            () => Some(&mut self.counts.matched),
        };
        if let Some(counter) = counter {
            *counter += 1;
        }
        for finding in findings {
            if let Finding::Differs(difference) = finding {
                self.differ(*difference);
            }
        }
    }

    /// As [`Self::differ`], unless the same difference of the charge is listed.
    pub fn differ_once(&mut self, difference: Difference) {
        let is_same = |it: &Difference| {
            it.kind == difference.kind && it.pg_payment_id == difference.pg_payment_id
        };
        if !self.differences.iter().any(is_same) {
            self.differ(difference);
        }
    }

    pub fn differ(&mut self, difference: Difference) {
        *self.counts.of_mut(difference.kind) += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(difference);
        } else {
            self.left_out += 1;
        }
    }
}
