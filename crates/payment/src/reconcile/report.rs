//! What a reconciliation found. Plain data.

use contract::{PaymentId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Differences that a report lists; further ones are only counted.
pub const LISTED_MAX: usize = 1_000;

/// What a reconciliation found, with what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    #[serde(flatten)]
    pub summary: Summary,
    /// The first 1000.
    pub differences: Vec<Difference>,
    /// Differences that were counted and are not listed.
    pub left_out: u64,
}

/// What was compared, and how much came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub id: String,
    pub from: Timestamp,
    /// Earlier than was asked for, where there was more than one reconciliation takes on: the next goes on from here.
    pub to: Timestamp,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    #[serde(flatten)]
    pub counts: Counts,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Payments of which both sides say the same.
    pub matched: u64,
    /// Payments that points paid for: the gateway was never asked.
    pub free_payments: u64,
    /// Payments of which the gateway knew more, and that were brought to it.
    pub settled: u64,
    /// Payments that are being settled anyway.
    pub under_way: u64,
    /// Charges whose order is no payment of ours: another shop of the same merchant, perhaps.
    pub missing_here: u64,
    /// Paid payments that the gateway does not know.
    pub missing_there: u64,
    pub different_amount: u64,
    pub different_status: u64,
    /// Refunds that the gateway refused: a person is needed.
    pub parked_refunds: u64,
    /// Payments that the gateway did not answer about.
    pub not_asked: u64,
    /// Rows of the gateway's list that could not be read, or are in another currency.
    pub unreadable: u64,
}

/// Where the two sides say different things and nobody could put it right, or one side says nothing.
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
    pub fn of(&self, kind: DifferenceKind) -> u64 {
        match kind {
            DifferenceKind::MissingHere => self.missing_here,
            DifferenceKind::MissingThere => self.missing_there,
            DifferenceKind::DifferentAmount => self.different_amount,
            DifferenceKind::DifferentStatus => self.different_status,
            DifferenceKind::ParkedRefund => self.parked_refunds,
            DifferenceKind::NotAsked => self.not_asked,
        }
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
    /// Whether nothing is left for a person to look at.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let counts = &self.summary.counts;
        counts.unreadable == 0 && DifferenceKind::ALL.iter().all(|kind| counts.of(*kind) == 0)
    }
}

/// What came of one payment, of one of its charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    Matched,
    Free,
    Settled,
    UnderWay,
    Differs(Box<Difference>),
}

impl Finding {
    /// Whether more came of it than that all is well, or soon will be.
    pub fn is_news(&self) -> bool {
        match self {
            Self::Settled | Self::Differs(_) => true,
            Self::Matched | Self::Free | Self::UnderWay => false,
        }
    }
}

/// Counts while it goes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub counts: Counts,
    pub differences: Vec<Difference>,
    pub left_out: u64,
}

impl Tally {
    /// What was found of all charges of one payment: it is counted once, unless it differs in several ways.
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

    /// As [`Self::differ`], unless the same charge is listed as the same.
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
