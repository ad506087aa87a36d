//! The file, its lock, its settings and its tables.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::upgrade;
use crate::{
    DataFolder, StoreError,
    record::{Kind, Table},
};

/// The version of the layout below; a file with a newer one is rejected.
const FORMAT_VERSION: i64 = 1;
/// Pages of the write-ahead log (4 KiB each) after which the writer copies them into the file.
const CHECKPOINT_PAGES: u32 = 8192;

const OWN_TABLES: &str = "
CREATE TABLE IF NOT EXISTS message (
    offset INTEGER PRIMARY KEY, id TEXT NOT NULL, topic TEXT NOT NULL, key TEXT NOT NULL,
    time INTEGER NOT NULL, payload TEXT NOT NULL, reissue TEXT, trace TEXT);
CREATE TABLE IF NOT EXISTS consumer (name TEXT PRIMARY KEY, position INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inbox (
    consumer TEXT NOT NULL, message_id TEXT NOT NULL, seen_at INTEGER NOT NULL,
    PRIMARY KEY (consumer, message_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timer (
    id TEXT PRIMARY KEY, due_at INTEGER NOT NULL, message_id TEXT NOT NULL, topic TEXT NOT NULL,
    key TEXT NOT NULL, payload TEXT NOT NULL, reissue TEXT, trace TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS timer_due ON timer (due_at);
";

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// The file of the store.
pub(super) fn file(folder: &DataFolder) -> PathBuf {
    folder.path.join(format!("{}.db", folder.program.name))
}

/// Why a data folder cannot be created, and what to do.
#[must_use]
pub fn no_folder(folder: &DataFolder, error: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    let why = match error.kind() {
        K::AlreadyExists | K::NotADirectory => "it, or what it is to be in, is a file".to_owned(),
        K::PermissionDenied => "this user may not make it there".to_owned(),
        K::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        K::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    };
    format!(
        "the data folder {} cannot be made: {why}; {}",
        folder.path.display(),
        folder.program.folder_advice
    )
}

/// Creates the folder if it is missing, and locks it until the file is dropped or the process ends.
pub(super) fn lock_folder(folder: &DataFolder) -> Result<File, StoreError> {
    fs::create_dir_all(&folder.path).map_err(|error| unavailable(no_folder(folder, &error)))?;
    let path = folder.path.join(format!("{}.lock", folder.program.name));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| unavailable(format_args!("cannot open {}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(unavailable(format_args!(
            "another process has the data folder {} open",
            folder.path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unavailable(error)),
    }
}

pub(super) fn open_writer(
    path: &Path,
    tables: &[&'static Table],
) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    let format: i64 = connection.query_row("PRAGMA user_version", (), |row| row.get(0))?;
    if format > FORMAT_VERSION {
        return Err(unavailable(format_args!(
            "cannot open {}: a newer program wrote it (format {format}; this program supports {FORMAT_VERSION}): use that program",
            path.display()
        )));
    }
    configure(&connection)?;
    let mut statements = upgrade::own_tables(&connection)?;
    statements.push_str(OWN_TABLES);
    for table in tables {
        statements.push_str(&upgrade::statements(&connection, table)?);
        statements.push_str(&create_table(table));
    }
    statements.push_str(&format!("PRAGMA user_version = {FORMAT_VERSION};"));
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {statements} COMMIT;"))?;
    Ok(connection)
}

/// Write-ahead log, and an fsync at every commit.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(256);
    connection.busy_timeout(std::time::Duration::from_secs(5))
}

pub(super) fn create_table(table: &Table) -> String {
    let mut parts: Vec<String> = table
        .columns
        .iter()
        .map(|column| {
            let kind = column_type(column.kind);
            let key = if column.name == table.key {
                " PRIMARY KEY"
            } else {
                ""
            };
            let null = if column.nullable { "" } else { " NOT NULL" };
            format!("\"{}\" {kind}{null}{key}", column.name)
        })
        .collect();
    parts.extend(
        table
            .constraints
            .iter()
            .map(|constraint| (*constraint).to_owned()),
    );
    // With a rowid, a text key would need a second tree.
    let layout = if table.is_keyed_by_text() {
        "STRICT, WITHOUT ROWID"
    } else {
        "STRICT"
    };
    let mut text = format!(
        "CREATE TABLE IF NOT EXISTS \"{}\" ({}) {layout};\n",
        table.name,
        parts.join(", ")
    );
    for number in 0..table.indexes.len() {
        let definition = index_definition(table, number);
        text.push_str(&format!("CREATE INDEX IF NOT EXISTS {definition};\n"));
    }
    text
}

pub(super) fn column_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer | Kind::Boolean => "INTEGER",
        Kind::Text | Kind::Json => "TEXT",
    }
}

pub(super) fn index_definition(table: &Table, number: usize) -> String {
    let (name, index) = (table.name, table.indexes[number]);
    format!("\"{name}_{number}\" ON \"{name}\" {index}")
}

/// The highest offset ever given. Cleanup removes only messages before a position, so that positions cover offsets that
/// the log no longer holds.
pub(super) fn last_offset(connection: &Connection) -> Result<i64, StoreError> {
    let text = "SELECT max(coalesce((SELECT max(offset) FROM message), 0),
                           coalesce((SELECT max(position) FROM consumer), 0))";
    Ok(connection.query_row(text, (), |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_folder_that_cannot_be_created_names_reason_and_remedy() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        for folder in [file.clone(), file.join("below")] {
            let text = lock_folder(&(&folder).into()).unwrap_err().to_string();
            assert!(text.contains("is a file; choose another one"), "{text}");
        }
    }
}
