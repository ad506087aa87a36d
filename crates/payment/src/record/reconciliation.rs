//! Reports of reconciliations.

use contract::Timestamp;
use messaging::{Column, Record, Table};
use serde::{Deserialize, Serialize};

use crate::reconcile::{Counts, Difference, Report, Summary};

/// One comparison of the payments with the gateway's transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconciliationRecord {
    /// A UUID of version 7, so that the newest sorts last.
    pub reconciliation_id: String,
    /// Whether it was scheduled: the next scheduled one starts at the end of the last.
    pub scheduled: bool,
    pub period_from: Timestamp,
    pub period_to: Timestamp,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub matched: u64,
    pub free_payments: u64,
    pub settled: u64,
    pub under_way: u64,
    pub missing_here: u64,
    pub missing_there: u64,
    pub different_amount: u64,
    pub different_status: u64,
    pub parked_refunds: u64,
    pub not_asked: u64,
    pub unreadable: u64,
    pub differences: Vec<Difference>,
    /// Differences that are counted but not listed.
    pub left_out: u64,
    pub version: i64,
}

impl ReconciliationRecord {
    #[must_use]
    pub fn new(report: &Report, scheduled: bool) -> Self {
        let Report {
            summary,
            differences,
            left_out,
        } = report.clone();
        let counts = summary.counts;
        Self {
            reconciliation_id: summary.id,
            scheduled,
            period_from: summary.from,
            period_to: summary.to,
            started_at: summary.started_at,
            finished_at: summary.finished_at,
            matched: counts.matched,
            free_payments: counts.free_payments,
            settled: counts.settled,
            under_way: counts.under_way,
            missing_here: counts.missing_here,
            missing_there: counts.missing_there,
            different_amount: counts.different_amount,
            different_status: counts.different_status,
            parked_refunds: counts.parked_refunds,
            not_asked: counts.not_asked,
            unreadable: counts.unreadable,
            differences,
            left_out,
            version: 0,
        }
    }
}

impl From<ReconciliationRecord> for Report {
    fn from(record: ReconciliationRecord) -> Self {
        let counts = Counts {
            matched: record.matched,
            free_payments: record.free_payments,
            settled: record.settled,
            under_way: record.under_way,
            missing_here: record.missing_here,
            missing_there: record.missing_there,
            different_amount: record.different_amount,
            different_status: record.different_status,
            parked_refunds: record.parked_refunds,
            not_asked: record.not_asked,
            unreadable: record.unreadable,
        };
        Self {
            summary: Summary {
                id: record.reconciliation_id,
                from: record.period_from,
                to: record.period_to,
                started_at: record.started_at,
                finished_at: record.finished_at,
                counts,
            },
            differences: record.differences,
            left_out: record.left_out,
        }
    }
}

impl Record for ReconciliationRecord {
    const TABLE: &'static Table = &Table {
        name: "payment_reconciliation",
        columns: &[
            Column::text("reconciliation_id"),
            Column::boolean("scheduled"),
            Column::text("period_from"),
            Column::text("period_to"),
            Column::text("started_at"),
            Column::text("finished_at"),
            Column::integer("matched"),
            Column::integer("free_payments"),
            Column::integer("settled"),
            Column::integer("under_way"),
            Column::integer("missing_here"),
            Column::integer("missing_there"),
            Column::integer("different_amount"),
            Column::integer("different_status"),
            Column::integer("parked_refunds"),
            Column::integer("not_asked"),
            Column::integer("unreadable"),
            Column::json("differences"),
            Column::integer("left_out"),
            Column::VERSION,
        ],
        key: "reconciliation_id",
        constraints: &["CHECK (period_from < period_to)"],
        indexes: &["(finished_at)"],
    };
}
