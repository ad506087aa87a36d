//! A stored table as SQLite describes it, compared with its declaration: by columns, constraints and indexes, whatever
//! the text of its DDL looks like.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use super::schema::{column_type, index_definition};
use crate::record::Table;

/// What decides whether a stored table is as declared, apart from its indexes.
#[derive(PartialEq, Eq)]
pub(super) struct TableShape {
    columns: BTreeSet<ColumnShape>,
    constraints: BTreeSet<String>,
    is_strict: bool,
    is_without_rowid: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ColumnShape {
    name: String,
    kind: String,
    is_nullable: bool,
    is_key: bool,
}

impl TableShape {
    pub(super) fn declared(table: &Table) -> Self {
        let column = |column: &crate::Column| ColumnShape {
            name: column.name.to_owned(),
            kind: column_type(column.kind).to_owned(),
            is_nullable: column.nullable,
            is_key: column.name == table.key,
        };
        Self {
            columns: table.columns.iter().map(column).collect(),
            constraints: table.constraints.iter().map(|it| normalized(it)).collect(),
            is_strict: true,
            is_without_rowid: table.is_keyed_by_text(),
        }
    }

    /// `None` if the file has no such table.
    pub(super) fn stored(connection: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let text = "SELECT sql, strict, wr FROM sqlite_schema AS s
                    JOIN pragma_table_list AS l ON l.name = s.name AND l.schema = 'main'
                    WHERE s.type = 'table' AND s.name = ?1";
        let shape = connection.query_row(text, [name], |row| {
            Ok(Self {
                columns: BTreeSet::new(),
                constraints: constraints(&row.get::<_, String>(0)?),
                is_strict: row.get(1)?,
                is_without_rowid: row.get(2)?,
            })
        });
        let Some(mut shape) = shape.optional()? else {
            return Ok(None);
        };
        let text = "SELECT name, type, NOT \"notnull\", pk > 0 FROM pragma_table_info(?1)";
        let mut statement = connection.prepare(text)?;
        let columns = statement.query_map([name], |row| {
            Ok(ColumnShape {
                name: row.get(0)?,
                kind: row.get(1)?,
                is_nullable: row.get(2)?,
                is_key: row.get(3)?,
            })
        })?;
        shape.columns = columns.collect::<rusqlite::Result<_>>()?;
        Ok(Some(shape))
    }
}

/// The stored indexes of a table that are not declared in this form.
pub(super) fn undeclared_indexes(
    connection: &Connection,
    table: &Table,
) -> rusqlite::Result<Vec<String>> {
    let declared: BTreeSet<String> = (0..table.indexes.len())
        .map(|number| normalized(&format!("CREATE INDEX {}", index_definition(table, number))))
        .collect();
    let text = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 AND sql IS NOT NULL";
    let mut statement = connection.prepare(text)?;
    let stored = statement.query_map([table.name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let stored: Vec<(String, String)> = stored.collect::<rusqlite::Result<_>>()?;
    let undeclared = stored
        .into_iter()
        .filter(|(_, sql)| !declared.contains(&normalized(sql)));
    Ok(undeclared.map(|(name, _)| name).collect())
}

/// The table constraints in a `CREATE TABLE` statement. Only this text holds the checks.
fn constraints(sql: &str) -> BTreeSet<String> {
    let (mut depth, mut part, mut parts) = (0, Vec::new(), Vec::new());
    for token in tokens(sql) {
        match token.as_str() {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        match (depth, token.as_str()) {
            (0, ")") | (1, ",") => parts.push(std::mem::take(&mut part)),
            (0, _) | (1, "(") => {}
            _ => part.push(token),
        }
    }
    let is_constraint = |part: &Vec<String>| {
        let first = part.first().map(String::as_str);
        matches!(first, Some("CHECK" | "UNIQUE"))
    };
    let constraints = parts.into_iter().filter(is_constraint);
    constraints.map(|part| part.join(" ")).collect()
}

/// The same text for SQL that differs only in spaces, in quotes of names and in upper and lower case.
fn normalized(sql: &str) -> String {
    tokens(sql).join(" ")
}

/// Names and keywords in upper case without quotes, texts with their quotes, and single other characters.
fn tokens(sql: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |it: char| it.is_alphanumeric() || it == '_';
        let (token, len) = match first {
            '\'' | '"' => {
                let len = rest[1..].find(first).map_or(rest.len(), |end| end + 2);
                match first {
                    '"' => (rest[..len].trim_matches('"').to_uppercase(), len),
                    _ => (rest[..len].to_owned(), len),
                }
            }
            _ if is_word(first) => {
                let len = rest.find(|it| !is_word(it)).unwrap_or(rest.len());
                (rest[..len].to_uppercase(), len)
            }
            _ => (first.to_string(), first.len_utf8()),
        };
        tokens.push(token);
        rest = rest[len..].trim_start();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constraint_is_the_same_however_it_is_written() {
        let sql = "create table \"seat\" (\n  id TEXT NOT NULL PRIMARY KEY, \"row\" INTEGER NOT NULL DEFAULT (1),
            check(row<100 and note <> 'a, (b'), UNIQUE ( \"row\" , id )) STRICT";
        let declared = ["CHECK (row < 100 AND note <> 'a, (b')", "UNIQUE (row, id)"];
        assert_eq!(constraints(sql), declared.map(normalized).into());
        assert_ne!(normalized("CHECK (a = 'x')"), normalized("CHECK (a = 'X')"));
    }
}
