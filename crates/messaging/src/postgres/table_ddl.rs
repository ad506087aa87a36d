//! The DDL of declared tables, and the changes that bring a stored table to its declaration. A declaration is a step of
//! the migration, named by its text: a step is taken only once, so that a program that is older than the schema changes
//! nothing.
//!
//! A column that is added later is nullable, or a number or a boolean that starts as 0, so that an older program can
//! still write rows. Constraints and indexes are named by their text, and are replaced if it changes.

use std::collections::HashSet;

use tokio_postgres::{Client, Error};

use crate::record::{Column, Kind, Table};

/// The name of the step that brings a table to its declaration.
pub(super) fn step(table: &Table) -> String {
    format!("table {} {}", table.name, named_by(&create(table)))
}

/// The statements that bring the stored table to its declaration.
pub(super) async fn changes(client: &Client, table: &Table) -> Result<Vec<String>, Error> {
    let name = table.name;
    let columns = "SELECT column_name::text FROM information_schema.columns
                   WHERE table_schema = current_schema() AND table_name = $1";
    let columns = names(client, columns, name).await?;
    if columns.is_empty() {
        return Ok(vec![create(table)]);
    }
    let mut changes = Vec::new();
    for column in table
        .columns
        .iter()
        .filter(|column| !columns.contains(column.name))
    {
        changes.push(format!(
            "ALTER TABLE \"{name}\" ADD COLUMN {}",
            added(column)
        ));
    }
    let rules = "SELECT constraint_name::text FROM information_schema.table_constraints
                 WHERE table_schema = current_schema() AND table_name = $1";
    let stored = names(client, rules, name).await?;
    let declared: Vec<_> = table
        .constraints
        .iter()
        .map(|text| (rule(table, text), text))
        .collect();
    for gone in undeclared(&stored, &format!("{name}_rule_"), &declared) {
        changes.push(format!("ALTER TABLE \"{name}\" DROP CONSTRAINT \"{gone}\""));
    }
    for (rule, text) in declared.iter().filter(|(rule, _)| !stored.contains(rule)) {
        changes.push(format!(
            "ALTER TABLE \"{name}\" ADD CONSTRAINT \"{rule}\" {text}"
        ));
    }
    let indexes = "SELECT indexname::text FROM pg_indexes
                   WHERE schemaname = current_schema() AND tablename = $1";
    let stored = names(client, indexes, name).await?;
    let declared: Vec<_> = table
        .indexes
        .iter()
        .map(|text| (index(table, text), text))
        .collect();
    for gone in undeclared(&stored, &format!("{name}_index_"), &declared) {
        changes.push(format!("DROP INDEX \"{gone}\""));
    }
    for (index, text) in declared.iter().filter(|(index, _)| !stored.contains(index)) {
        changes.push(format!("CREATE INDEX \"{index}\" ON \"{name}\" {text}"));
    }
    Ok(changes)
}

/// The constraints of a table with their names on the server.
pub(super) fn rules(table: &'static Table) -> impl Iterator<Item = (String, &'static str)> {
    table
        .constraints
        .iter()
        .map(|text| (rule(table, text), *text))
}

async fn names(client: &Client, text: &str, table: &str) -> Result<HashSet<String>, Error> {
    let rows = client.query(text, &[&table]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Names of stored objects that are no longer declared.
fn undeclared<'a>(
    stored: &'a HashSet<String>,
    prefix: &str,
    declared: &[(String, &&'static str)],
) -> Vec<&'a String> {
    let is_gone = |name: &&String| {
        name.starts_with(prefix) && !declared.iter().any(|(declared, _)| declared == *name)
    };
    stored.iter().filter(is_gone).collect()
}

/// The type of a column.
pub(super) fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "bigint",
        Kind::Text => "text",
        Kind::Boolean => "boolean",
        Kind::Json => "jsonb",
    }
}

/// Texts compare byte by byte, as in SQLite, whatever the database's collation is.
fn definition(column: &Column) -> String {
    let collation = match column.kind {
        Kind::Text => " COLLATE \"C\"",
        Kind::Integer | Kind::Boolean | Kind::Json => "",
    };
    let null = if column.nullable { "" } else { " NOT NULL" };
    format!(
        "\"{}\" {}{collation}{null}",
        column.name,
        type_of(column.kind)
    )
}

/// A column that older programs do not write.
fn added(column: &Column) -> String {
    let value = match column.kind {
        Kind::Integer if !column.nullable => " DEFAULT 0",
        Kind::Boolean if !column.nullable => " DEFAULT FALSE",
        // Existing rows have no value for it: the server rejects the change.
        Kind::Integer | Kind::Boolean | Kind::Text | Kind::Json => "",
    };
    format!("{}{value}", definition(column))
}

fn create(table: &Table) -> String {
    let name = table.name;
    let mut parts: Vec<String> = table.columns.iter().map(definition).collect();
    parts.push(format!("PRIMARY KEY (\"{}\")", table.key));
    let rules = table.constraints.iter();
    parts.extend(rules.map(|text| format!("CONSTRAINT \"{}\" {text}", rule(table, text))));
    let mut text = format!("CREATE TABLE \"{name}\" ({});", parts.join(", "));
    for index_text in table.indexes {
        let index = index(table, index_text);
        text.push_str(&format!(
            " CREATE INDEX \"{index}\" ON \"{name}\" {index_text};"
        ));
    }
    text
}

fn rule(table: &Table, text: &str) -> String {
    format!("{}_rule_{}", table.name, named_by(text))
}

fn index(table: &Table, text: &str) -> String {
    format!("{}_index_{}", table.name, named_by(text))
}

/// A name from a text, the same in every build of this program (FNV-1a, 64 bits).
fn named_by(text: &str) -> String {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
}
