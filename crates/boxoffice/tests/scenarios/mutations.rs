//! The audit detects every change of a healthy folder. The test changes a folder with every kind of record cell by cell
//! and row by row; changes that no check detects are listed with their reasons.

mod breaches;
mod folder;
mod mutate;
mod undetected;

use std::collections::BTreeMap;

use boxoffice::audit;
use rusqlite::Connection;

use folder::healthy_folder;
use mutate::{mutate_table, tables};
use undetected::{IGNORED_TABLES, PARTLY_DETECTED, UNDETECTED, is_listed};

#[tokio::test]
async fn the_audit_detects_every_change_of_a_healthy_folder() {
    let (folder, now) = healthy_folder().await;
    assert_eq!(audit::audit_at(folder.path(), now).unwrap().violations, []);
    let db = Connection::open(folder.path().join("boxoffice.db")).unwrap();
    db.pragma_update(None, "synchronous", "OFF").unwrap();
    let mut seen = Detections::default();
    for table in tables(&db) {
        if IGNORED_TABLES.iter().all(|(apart, _)| *apart != table.name) {
            mutate_table(&db, &table, &mut |column, what| {
                let is_noticed = audit::audit_at(folder.path(), now)
                    .map_or(true, |report| !report.violations.is_empty());
                seen.note(&table.name, column, what, is_noticed);
            });
        }
    }
    assert_eq!(
        audit::audit_at(folder.path(), now).unwrap().violations,
        [],
        "every change was taken back"
    );
    seen.is_as_listed();
}

/// The changes of each column, detected or not.
#[derive(Default)]
struct Detections(BTreeMap<(String, String), Outcome>);

#[derive(Default)]
struct Outcome {
    noticed: usize,
    missed: Vec<String>,
}

impl Detections {
    fn note(&mut self, table: &str, column: &str, what: &str, is_noticed: bool) {
        let place = (table.to_owned(), column.to_owned());
        let outcome = self.0.entry(place).or_default();
        if is_noticed {
            outcome.noticed += 1;
        } else {
            outcome.missed.push(what.to_owned());
        }
    }
}

impl Detections {
    fn is_as_listed(&self) {
        let mut wrong = Vec::new();
        for ((table, column), Outcome { noticed, missed }) in &self.0 {
            let is_never = is_listed(UNDETECTED, table, column);
            let is_in_some = is_listed(PARTLY_DETECTED, table, column);
            let expected = match (*noticed, missed.is_empty()) {
                (_, true) => (false, false),
                (0, false) => (true, false),
                (_, false) => (false, true),
            };
            if (is_never, is_in_some) != expected {
                let listed = if is_never {
                    "never"
                } else if is_in_some {
                    "not in all"
                } else {
                    "always"
                };
                wrong.push(format!(
                    "{table}.{column}, listed as {listed}: {noticed} noticed, missed {missed:?}"
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for (table, column, _) in UNDETECTED.iter().chain(PARTLY_DETECTED) {
            let is_there =
                |(name, of): &(String, String)| (*table == "*" || table == name) && column == of;
            assert!(self.0.keys().any(is_there), "{table}.{column} is no column");
        }
    }
}
