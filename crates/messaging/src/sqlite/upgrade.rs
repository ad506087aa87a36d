//! A file that an older program wrote: a table whose declaration has changed since is made anew and its rows are
//! copied, in the transaction that opens the file. A column that is added later is nullable, or a number that begins
//! with 0; anything else needs a program of its own.

use rusqlite::{Connection, OptionalExtension};

use super::schema::create_table;
use crate::{
    StoreError,
    record::{Column, Kind, Table},
};

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// The statements that add to the store's own tables what an older program did not know; it goes on without.
///
/// # Errors
/// Where the file cannot be read.
pub(super) fn own_tables(connection: &Connection) -> Result<String, StoreError> {
    let mut text = String::new();
    for table in ["message", "timer"] {
        let known = names(connection, "SELECT name FROM pragma_table_info(?1)", table)?;
        if !known.is_empty() && !known.iter().any(|name| name == "trace") {
            text.push_str(&format!("ALTER TABLE {table} ADD COLUMN trace TEXT;\n"));
        }
    }
    Ok(text)
}

/// The statements that bring `table` from what the file has to what is declared; none where it is missing or as it
/// should be.
///
/// # Errors
/// Where a row of the old table cannot become one of the new.
pub(super) fn statements(connection: &Connection, table: &Table) -> Result<String, StoreError> {
    let text = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let stored: Option<String> = connection
        .query_row(text, [table.name], |row| row.get(0))
        .optional()
        .map_err(unavailable)?;
    // SQLite keeps a declaration as it was written, without `IF NOT EXISTS`.
    let declared = create_table(table).replace(" IF NOT EXISTS", "");
    let declared: Vec<&str> = declared.split_terminator(";\n").collect();
    match stored {
        None => Ok(String::new()),
        Some(stored) if declared.first() == Some(&stored.as_str()) => {
            other_indexes(connection, table, &declared)
        }
        Some(_) => rebuild(connection, table),
    }
}

/// Drops the indexes that are declared otherwise now; they are made anew with the tables.
fn other_indexes(
    connection: &Connection,
    table: &Table,
    declared: &[&str],
) -> Result<String, StoreError> {
    let text = "SELECT name || char(10) || sql FROM sqlite_schema
        WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL";
    let mut drops = String::new();
    for index in names(connection, text, table.name)? {
        let (name, stored) = index.split_once('\n').unwrap_or_default();
        if !declared.contains(&stored) {
            drops.push_str(&format!("DROP INDEX {};\n", quoted(name)));
        }
    }
    Ok(drops)
}

/// What stands for each column of `table` in a file that may be an older program's; `None` where it has no such table.
///
/// # Errors
/// Where a row of the old table cannot be read as one of the new.
pub(super) fn columns(
    connection: &Connection,
    table: &Table,
) -> Result<Option<String>, StoreError> {
    let known = names(
        connection,
        "SELECT name FROM pragma_table_info(?1)",
        table.name,
    )?;
    if known.is_empty() {
        return Ok(None);
    }
    Ok(Some(values(table, &known)?.join(", ")))
}

fn values(table: &Table, known: &[String]) -> Result<Vec<String>, StoreError> {
    let columns = table.columns.iter();
    columns
        .map(|column| value(column, known).ok_or_else(|| lost(table, column)))
        .collect()
}

fn rebuild(connection: &Connection, table: &Table) -> Result<String, StoreError> {
    let name = table.name;
    let known = names(connection, "SELECT name FROM pragma_table_info(?1)", name)?;
    let columns = table.columns.iter().map(|column| quoted(column.name));
    let columns: Vec<String> = columns.collect();
    let values = values(table, &known)?;
    let indexes = names(
        connection,
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL",
        name,
    )?;
    let mut text = format!("ALTER TABLE \"{name}\" RENAME TO \"{name}__old\";\n");
    for index in indexes {
        text.push_str(&format!("DROP INDEX {};\n", quoted(&index)));
    }
    text.push_str(&create_table(table));
    text.push_str(&format!(
        "INSERT INTO \"{name}\" ({}) SELECT {} FROM \"{name}__old\";\nDROP TABLE \"{name}__old\";\n",
        columns.join(", "),
        values.join(", ")
    ));
    tracing::info!(
        table = name,
        "a table of an older program is brought up to date"
    );
    Ok(text)
}

fn value(column: &Column, known: &[String]) -> Option<String> {
    if known.iter().any(|name| name == column.name) {
        return Some(quoted(column.name));
    }
    if column.nullable {
        return Some("NULL".to_owned());
    }
    match column.kind {
        Kind::Integer | Kind::Boolean => Some("0".to_owned()),
        Kind::Text | Kind::Json => None,
    }
}

fn lost(table: &Table, column: &Column) -> StoreError {
    unavailable(format_args!(
        "the file was written by an older program, and the table {} has no {}",
        table.name, column.name
    ))
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn names(connection: &Connection, text: &str, table: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare(text).map_err(unavailable)?;
    let rows = statement
        .query_map([table], |row| row.get(0))
        .map_err(unavailable)?;
    rows.collect::<rusqlite::Result<_>>().map_err(unavailable)
}
