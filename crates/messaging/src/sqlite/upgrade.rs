//! Upgrades a file that an older program wrote: if a table's declaration has changed, the transaction that opens the file
//! creates the table anew and copies its rows. A column that is added later is nullable, or a number that starts as 0;
//! anything else needs a program of its own.

use rusqlite::Connection;

use super::{
    schema::create_table,
    stored_table::{TableShape, undeclared_indexes},
};
use crate::{
    StoreError,
    record::{Column, Kind, Table},
};

/// The statements that add new columns to the store's own tables; an older program can still use them.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn own_tables(connection: &Connection) -> Result<String, StoreError> {
    let tables = without_trace(connection)?.into_iter();
    Ok(tables
        .map(|table| format!("ALTER TABLE {table} ADD COLUMN trace TEXT;\n"))
        .collect())
}

/// The statements that make the store's own tables readable, for this connection only, as [`own_tables`] would leave them.
///
/// # Errors
/// If the file cannot be read.
pub(super) fn own_views(connection: &Connection) -> Result<String, StoreError> {
    let tables = without_trace(connection)?.into_iter();
    Ok(tables
        .map(|table| {
            format!("CREATE TEMP VIEW {table} AS SELECT *, NULL AS trace FROM main.{table};\n")
        })
        .collect())
}

fn without_trace(connection: &Connection) -> Result<Vec<&'static str>, StoreError> {
    let mut tables = Vec::new();
    for table in ["message", "timer"] {
        let known = column_names(connection, table)?;
        if !known.is_empty() && !known.iter().any(|name| name == "trace") {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// The statements that bring the stored table to its declaration; none if it is missing or as declared.
///
/// # Errors
/// If a row of the stored table cannot become one of the declared table.
pub(super) fn statements(connection: &Connection, table: &Table) -> Result<String, StoreError> {
    match TableShape::stored(connection, table.name)? {
        None => Ok(String::new()),
        Some(stored) if stored == TableShape::declared(table) => {
            Ok(drop_indexes(&undeclared_indexes(connection, table)?))
        }
        Some(_) => rebuild(connection, table),
    }
}

/// `CREATE INDEX IF NOT EXISTS` then creates the declared ones.
fn drop_indexes(indexes: &[String]) -> String {
    let drops = indexes.iter();
    drops
        .map(|it| format!("DROP INDEX {};\n", quoted(it)))
        .collect()
}

/// The expression for each column of `table` in a file that an older program may have written; `None` if it has no such
/// table.
///
/// # Errors
/// If a row of the stored table cannot be read as one of the declared table.
pub(super) fn columns(
    connection: &Connection,
    table: &Table,
) -> Result<Option<String>, StoreError> {
    let known = column_names(connection, table.name)?;
    if known.is_empty() {
        return Ok(None);
    }
    Ok(Some(values(table, &known)?.join(", ")))
}

fn values(table: &Table, known: &[String]) -> Result<Vec<String>, StoreError> {
    let columns = table.columns.iter();
    columns
        .map(|column| value(column, known).ok_or_else(|| cannot_fill(table, column)))
        .collect()
}

fn rebuild(connection: &Connection, table: &Table) -> Result<String, StoreError> {
    let name = table.name;
    let known = column_names(connection, name)?;
    let columns = table.columns.iter().map(|column| quoted(column.name));
    let columns: Vec<String> = columns.collect();
    let values = values(table, &known)?;
    let indexes =
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL";
    let indexes: Vec<_> = names(connection, indexes, [name])?;
    let mut text = format!("ALTER TABLE \"{name}\" RENAME TO \"{name}__old\";\n");
    text.push_str(&drop_indexes(&indexes));
    text.push_str(&create_table(table));
    text.push_str(&format!(
        "INSERT INTO \"{name}\" ({}) SELECT {} FROM \"{name}__old\";\nDROP TABLE \"{name}__old\";\n",
        columns.join(", "),
        values.join(", ")
    ));
    tracing::info!(
        table = name,
        "upgrading a table that an older program wrote"
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

fn cannot_fill(table: &Table, column: &Column) -> StoreError {
    StoreError::Unavailable(format!(
        "cannot upgrade the file of an older program: its table {} has no column {}",
        table.name, column.name
    ))
}

fn column_names(connection: &Connection, table: &str) -> Result<Vec<String>, StoreError> {
    names(
        connection,
        "SELECT name FROM pragma_table_info(?1)",
        [table],
    )
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// The rows of a query of one column.
pub(super) fn names<C: FromIterator<String>>(
    connection: &Connection,
    text: &str,
    parameters: impl rusqlite::Params,
) -> Result<C, StoreError> {
    let mut statement = connection.prepare(text)?;
    let rows = statement.query_and_then(parameters, |row| Ok(row.get(0)?))?;
    rows.collect()
}
