//! Files that an older program wrote with other declarations of its tables.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

use messaging::{
    Column, Commit, CommitError, Find, Metrics, Record, Snapshot, Store, StoreError, Table,
};
use serde::{Deserialize, Serialize};

/// A seat in the older program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Old {
    id: String,
    row: i64,
    version: i64,
}

impl Record for Old {
    const TABLE: &'static Table = &Table {
        name: "seat",
        columns: &[Column::text("id"), Column::integer("row"), Column::VERSION],
        key: "id",
        constraints: &["CHECK (row < 100)"],
        indexes: &["(row)"],
    };
}

/// A seat in the newer program: two more columns, another constraint, other indexes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct New {
    id: String,
    row: i64,
    sold: i64,
    note: Option<String>,
    version: i64,
}

impl Record for New {
    const TABLE: &'static Table = &Table {
        name: "seat",
        columns: &[
            Column::text("id"),
            Column::integer("row"),
            Column::integer("sold"),
            Column::text("note").null(),
            Column::VERSION,
        ],
        key: "id",
        constraints: &["CHECK (row < 1000)"],
        indexes: &["(sold, row)", "(note)"],
    };
}

const WITH_A_TEXT: &Table = &Table {
    name: "seat",
    columns: &[Column::text("id"), Column::text("colour"), Column::VERSION],
    key: "id",
    constraints: &[],
    indexes: &[],
};

fn open(folder: &tempfile::TempDir, table: &'static Table) -> Result<Store, StoreError> {
    let tables = [messaging::TABLES, &[table]].concat();
    Store::open_embedded(folder.path(), &tables, Metrics::unregistered())
}

async fn seats(count: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder, Old::TABLE).unwrap();
    let mut commit = Commit::new();
    for row in 0..count {
        let id = format!("seat {row}");
        commit.put(&Old {
            id,
            row,
            version: 0,
        });
    }
    store.commit(commit).await.unwrap();
    folder
}

#[tokio::test]
async fn an_upgraded_table_keeps_its_rows_and_accepts_new_ones() {
    let folder = seats(50).await;
    // Twice: the second opening finds an upgraded table.
    for opening in 0..2 {
        let store = open(&folder, New::TABLE).unwrap();
        let all: Vec<New> = store.find(Find::all(New::TABLE, 100)).await.unwrap();
        assert_eq!(all.len(), 50 + opening);
        let seat = all.iter().find(|seat| seat.id == "seat 7").unwrap();
        assert_eq!((seat.row, seat.sold, &seat.note), (7, 0, &None));
        let mut commit = Commit::new();
        commit.put(&New {
            id: format!("new {opening}"),
            row: 500,
            sold: 1,
            note: Some("box".to_owned()),
            version: 0,
        });
        store.commit(commit).await.unwrap();
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_upgraded_is_rejected_and_not_changed() {
    let folder = seats(3).await;
    let rejected = open(&folder, WITH_A_TEXT).err();
    assert!(
        matches!(&rejected, Some(StoreError::Unavailable(reason)) if reason.contains("older program") && reason.contains("colour")),
        "{rejected:?}"
    );
    let store = open(&folder, Old::TABLE).unwrap();
    let all: Vec<Old> = store.find(Find::all(Old::TABLE, 10)).await.unwrap();
    assert_eq!(all.len(), 3);
}

#[tokio::test]
async fn a_snapshot_reads_an_older_programs_folder_as_its_upgrade_would() {
    let folder = seats(3).await;
    let mut seats = Vec::new();
    let snapshot = Snapshot::open(folder.path()).unwrap();
    snapshot.each(|seat: New| seats.push(seat)).unwrap();
    let read: Vec<_> = seats.iter().map(|it| (it.row, it.sold, &it.note)).collect();
    assert_eq!(read, [(0, 0, &None), (1, 0, &None), (2, 0, &None)]);
}

fn raw(folder: &tempfile::TempDir) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.path().join("messaging.db")).unwrap()
}

/// The first page of the table of seats: another one after it was created anew.
fn root_page(folder: &tempfile::TempDir) -> i64 {
    let text = "SELECT rootpage FROM sqlite_schema WHERE name = 'seat'";
    raw(folder).query_row(text, (), |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_table_that_is_only_written_differently_is_not_rewritten() {
    let folder = tempfile::tempdir().unwrap();
    let text = "create table seat (
            version integer not null,
            id text primary key not null, \"row\" integer not null, check(row<100)
        ) without rowid, strict;
        create index \"seat_0\" on seat(row)";
    raw(&folder).execute_batch(text).unwrap();
    let before = root_page(&folder);
    drop(open(&folder, Old::TABLE).unwrap());
    assert_eq!(root_page(&folder), before);
    let store = open(&folder, Old::TABLE).unwrap();
    let mut commit = Commit::new();
    commit.put(&Old {
        id: "a".to_owned(),
        row: 100,
        version: 0,
    });
    let broken = store.commit(commit).await;
    assert!(matches!(broken, Err(CommitError::Constraint { .. })));
}

const OTHER_INDEX: &Table = &Table {
    name: "seat",
    columns: Old::TABLE.columns,
    key: "id",
    constraints: &["CHECK (row < 100)"],
    indexes: &["(row, id)", "(version)"],
};

#[tokio::test]
async fn an_index_that_is_declared_differently_is_replaced_without_rewriting_its_table() {
    let folder = seats(3).await;
    let before = root_page(&folder);
    drop(open(&folder, OTHER_INDEX).unwrap());
    assert_eq!(root_page(&folder), before);
    let file = raw(&folder);
    let text =
        "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'seat' ORDER BY name";
    let mut statement = file.prepare(text).unwrap();
    let indexes = statement.query_map((), |row| row.get(0)).unwrap();
    let indexes: Vec<String> = indexes.map(Result::unwrap).collect();
    assert_eq!(
        indexes,
        [
            "CREATE INDEX \"seat_0\" ON \"seat\" (row, id)",
            "CREATE INDEX \"seat_1\" ON \"seat\" (version)"
        ]
    );
}
