//! The schema of a data folder, and a folder that an older program wrote: `older_folder.sql` is the dump of one after a
//! small sale, from before messages had traces.

use std::{collections::BTreeMap, path::Path};

use messaging::{Metrics, Store};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::program::{boxoffice, text};

const FILE: &str = "boxoffice.db";
/// Tables whose declaration has changed since.
const UPGRADED: [&str; 0] = [];

fn older_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = Connection::open(folder.path().join(FILE)).unwrap();
    file.execute_batch(include_str!("older_folder.sql"))
        .unwrap();
    folder
}

/// Opens the folder as a start of the program does.
fn open(folder: &Path) {
    let tables = boxoffice::app::tables();
    drop(
        Store::open_embedded(
            boxoffice::backends::data_folder(folder),
            &tables,
            Metrics::unregistered(),
        )
        .unwrap(),
    );
}

#[track_caller]
fn assert_audit_is_clean(folder: &Path) {
    let audit = ["audit", "--data", folder.to_str().unwrap()];
    let audit = boxoffice(&audit).output().unwrap();
    let report = text(&audit.stdout);
    assert_eq!(
        audit.status.code(),
        Some(0),
        "{report}{}",
        text(&audit.stderr)
    );
    let has_tickets = report
        .lines()
        .any(|line| line.contains(" tickets ") && line.contains(" 2 "));
    assert!(has_tickets, "{report}");
}

/// The first page of each table: another one after the table was created anew.
fn root_pages(folder: &Path) -> BTreeMap<String, i64> {
    let file = Connection::open(folder.join(FILE)).unwrap();
    let text = "SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'";
    let mut statement = file.prepare(text).unwrap();
    let pages = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
    pages.unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_audit_of_an_older_programs_folder_finds_no_violation_before_and_after_its_upgrade() {
    let folder = older_folder();
    assert_audit_is_clean(folder.path());
    open(folder.path());
    assert_audit_is_clean(folder.path());
}

#[test]
fn opening_an_older_programs_folder_rewrites_only_tables_whose_declaration_has_changed() {
    let folder = older_folder();
    let before = root_pages(folder.path());
    open(folder.path());
    let after = root_pages(folder.path());
    let rewritten: Vec<_> = before
        .iter()
        .filter(|(name, page)| after.get(*name) != Some(page))
        .collect();
    assert!(
        rewritten.iter().map(|(name, _)| name.as_str()).eq(UPGRADED),
        "{rewritten:?}"
    );
}

/// A change here reaches the files of all users: see `messaging::sqlite`'s upgrade.
#[test]
fn a_new_folder_has_the_schema_of_schema_sql() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    let file = Connection::open(folder.path().join(FILE)).unwrap();
    let text = "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid";
    let mut statement = file.prepare(text).unwrap();
    let schema = statement.query_map((), |row| row.get(0)).unwrap();
    let schema: Vec<String> = schema.map(Result::unwrap).collect();
    let schema = schema.join("\n");
    assert_eq!(schema.trim(), include_str!("schema.sql").trim());
}
