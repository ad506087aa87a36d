//! The audit checks the promises against the stores. It reads a snapshot of each store, in use or not, and reports each
//! violation. Work in progress (an unhandled message, a dead letter that waits for a person) is counted, and is no
//! violation. State: none.
//!
//! - [`books`]: the records that the checks read
//! - [`checks`]: pure functions from the books to violations
//! - [`ledger`]: the points ledger, aggregated
//! - [`command`]: `boxoffice audit` over the stores of all services

pub mod books;
pub mod checks;
pub mod command;
pub mod ledger;

use std::path::Path;

use contract::Timestamp;
use messaging::{Clock, Snapshot, StoreError};
use serde::Serialize;

pub use books::Books;

/// What an audit found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub violations: Vec<Violation>,
    pub counts: Counts,
    /// Remarks on how reliable the violations are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    /// The promise's number in docs/promises.md.
    pub promise: u8,
    /// The record concerned, such as `payment 0192…`.
    pub subject: String,
    pub detail: String,
}

/// How many records there are.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub events: usize,
    pub waiting_reservations: usize,
    pub completed_reservations: usize,
    pub tickets: usize,
    pub payments: usize,
    pub users: usize,
    pub sagas: usize,
    pub open_sagas: usize,
    pub parked_sagas: usize,
    pub open_dead_letters: usize,
    pub parked_refunds: usize,
    #[serde(rename = "parkedStrays")]
    pub parked_orphan_charges: usize,
    pub messages_under_way: usize,
}

/// Audits a data folder.
///
/// # Errors
/// [`StoreError`] if it cannot be read.
pub fn audit(folder: &Path) -> Result<Report, StoreError> {
    audit_at(folder, Clock::System.now())
}

/// Audits a snapshot.
///
/// # Errors
/// [`StoreError`] if it cannot be read.
pub fn audit_snapshot(snapshot: &Snapshot) -> Result<Report, StoreError> {
    let books = Books::read(snapshot)?;
    Ok(Report::of(&books, Clock::System.now()))
}

/// Audits a data folder at this time, from which overdue attempts and refunds are computed.
///
/// # Errors
/// [`StoreError`] if it cannot be read.
pub fn audit_at(folder: &Path, now: Timestamp) -> Result<Report, StoreError> {
    let books = Books::read(&Snapshot::open(crate::backends::data_folder(folder))?)?;
    Ok(Report::of(&books, now))
}

impl Report {
    fn of(books: &Books, now: Timestamp) -> Self {
        Self {
            violations: checks::check(books, now),
            counts: books.counts(),
            notes: Vec::new(),
        }
    }

    /// The report as text.
    #[must_use]
    pub fn to_table(&self) -> String {
        let counts = &self.counts;
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header(["what", "how many"]);
        for (what, how_many) in [
            ("events", counts.events),
            (
                "reservations waiting for payment",
                counts.waiting_reservations,
            ),
            ("reservations completed", counts.completed_reservations),
            ("tickets", counts.tickets),
            ("payments", counts.payments),
            ("users", counts.users),
            ("sagas", counts.sagas),
            ("sagas in progress", counts.open_sagas),
            ("sagas that need a person", counts.parked_sagas),
            ("dead letters not closed", counts.open_dead_letters),
            ("refunds that need a person", counts.parked_refunds),
            (
                "orphan charges that need a person",
                counts.parked_orphan_charges,
            ),
            ("messages not handled yet", counts.messages_under_way),
        ] {
            table.add_row([what.to_owned(), how_many.to_string()]);
        }
        let mut text = table.to_string();
        for note in &self.notes {
            text.push_str(&format!("\n{note}"));
        }
        for it in &self.violations {
            let (promise, subject) = (it.promise, &it.subject);
            text.push_str(&format!(
                "\nVIOLATION of promise {promise}: {subject}: {}",
                it.detail
            ));
        }
        text.push_str(match self.violations.len() {
            0 => "\nNo violation found.",
            _ => "\nPromises are broken.",
        });
        text
    }
}
