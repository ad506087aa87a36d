//! Whatever is broken in a healthy folder, the audit sees it. A folder in which everything has happened is broken cell by
//! cell and row by row; what no check notices is listed with its reason.

mod blind;
mod breaking;
mod folder;

use std::collections::BTreeMap;

use boxoffice::audit;
use rusqlite::Connection;

use blind::{APART, NEVER, NOT_IN_ALL, is_listed};
use breaking::{break_table, tables};
use folder::healthy_folder;

#[tokio::test]
async fn whatever_is_broken_in_a_healthy_folder_is_noticed() {
    let (folder, now) = healthy_folder().await;
    assert_eq!(audit::audit_at(folder.path(), now).unwrap().violations, []);
    let db = Connection::open(folder.path().join("boxoffice.db")).unwrap();
    db.pragma_update(None, "synchronous", "OFF").unwrap();
    let mut seen = Seen::default();
    for table in tables(&db) {
        if APART.iter().all(|(apart, _)| *apart != table.name) {
            break_table(&db, &table, &mut |column, what| {
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

/// What became of the changes of each column.
#[derive(Default)]
struct Seen(BTreeMap<(String, String), Outcome>);

#[derive(Default)]
struct Outcome {
    noticed: usize,
    missed: Vec<String>,
}

impl Seen {
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

impl Seen {
    fn is_as_listed(&self) {
        let mut wrong = Vec::new();
        for ((table, column), Outcome { noticed, missed }) in &self.0 {
            let is_never = is_listed(NEVER, table, column);
            let is_in_some = is_listed(NOT_IN_ALL, table, column);
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
        for (table, column, _) in NEVER.iter().chain(NOT_IN_ALL) {
            let is_there =
                |(name, of): &(String, String)| (*table == "*" || table == name) && column == of;
            assert!(self.0.keys().any(is_there), "{table}.{column} is no column");
        }
    }
}
