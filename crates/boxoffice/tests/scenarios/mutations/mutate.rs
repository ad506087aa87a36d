//! Changes a table cell by cell and row by row.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params_from_iter, types::Value as Cell};

use super::undetected::{UNDETECTED, is_listed};

pub struct Table {
    pub name: String,
    columns: Vec<String>,
    nullable: Vec<bool>,
    keys: Vec<usize>,
    /// The table's DDL, which lists allowed values.
    sql: String,
}

type Row = Vec<Cell>;

pub fn tables(db: &Connection) -> Vec<Table> {
    let text = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut statement = db.prepare(text).unwrap();
    let tables = statement.query_map((), |row| {
        Ok(Table {
            name: row.get(0)?,
            sql: row.get(1)?,
            columns: Vec::new(),
            nullable: Vec::new(),
            keys: Vec::new(),
        })
    });
    let mut tables: Vec<Table> = tables.unwrap().map(Result::unwrap).collect();
    for table in &mut tables {
        let mut statement = db
            .prepare("SELECT name, \"notnull\", pk FROM pragma_table_info(?1)")
            .unwrap();
        let mut rows = statement.query([&table.name]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            if row.get::<_, i64>(2).unwrap() > 0 {
                table.keys.push(table.columns.len());
            }
            table.columns.push(row.get(0).unwrap());
            table.nullable.push(row.get::<_, i64>(1).unwrap() == 0);
        }
    }
    tables
}

impl Table {
    fn rows(&self, db: &Connection) -> Vec<Row> {
        let mut statement = db
            .prepare(&format!("SELECT * FROM \"{}\"", self.name))
            .unwrap();
        let count = self.columns.len();
        let rows = statement.query_map((), |row| (0..count).map(|at| row.get(at)).collect());
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// The values that the DDL allows for a column, if it lists them.
    fn allowed(&self, column: &str) -> Vec<Cell> {
        let Some((_, rest)) = self.sql.split_once(&format!("({column} IN (")) else {
            return Vec::new();
        };
        let list = rest.split(')').next().unwrap();
        let texts = list
            .split(',')
            .map(|it| it.trim().trim_matches('\'').to_owned());
        texts.map(Cell::Text).collect()
    }

    /// One row of each kind: kinds differ in their NULLs and in columns with few distinct values.
    fn samples(&self, rows: &[Row]) -> Vec<Row> {
        let is_kind: Vec<bool> = (0..self.columns.len())
            .map(|at| {
                rows.iter()
                    .map(|row| format!("{:?}", row[at]))
                    .collect::<BTreeSet<_>>()
                    .len()
                    <= 6
            })
            .collect();
        let mut kinds = BTreeMap::new();
        for row in rows {
            let kind: Vec<String> = row
                .iter()
                .enumerate()
                .map(|(at, cell)| match cell {
                    Cell::Null => "-".to_owned(),
                    cell if is_kind[at] && !self.keys.contains(&at) => format!("{cell:?}"),
                    _ => "+".to_owned(),
                })
                .collect();
            kinds.entry(kind).or_insert_with(|| row.clone());
        }
        kinds.into_values().collect()
    }

    /// Replaces a row by another one; `false` if a constraint rejects it.
    fn replace(&self, db: &Connection, out: Option<&Row>, new: Option<&Row>) -> bool {
        db.execute_batch("BEGIN").unwrap();
        if let Some(out) = out {
            let wheres: Vec<String> = self
                .keys
                .iter()
                .enumerate()
                .map(|(at, key)| format!("\"{}\" = ?{}", self.columns[*key], at + 1))
                .collect();
            let text = format!(
                "DELETE FROM \"{}\" WHERE {}",
                self.name,
                wheres.join(" AND ")
            );
            let keys = self.keys.iter().map(|key| out[*key].clone());
            assert_eq!(db.execute(&text, params_from_iter(keys)).unwrap(), 1);
        }
        let taken = new.is_none_or(|new| {
            let places: Vec<String> = (1..=new.len()).map(|at| format!("?{at}")).collect();
            let text = format!(
                "INSERT INTO \"{}\" VALUES ({})",
                self.name,
                places.join(", ")
            );
            db.execute(&text, params_from_iter(new.iter().cloned()))
                .is_ok()
        });
        db.execute_batch(if taken { "COMMIT" } else { "ROLLBACK" })
            .unwrap();
        taken
    }
}

/// Makes every change to a table, one at a time, and calls `check` after each.
pub fn mutate_table(db: &Connection, table: &Table, check: &mut dyn FnMut(&str, &str)) {
    let rows = table.rows(db);
    assert!(!rows.is_empty(), "nothing has happened in {}", table.name);
    for (number, row) in table.samples(&rows).into_iter().enumerate() {
        let name = format!(
            "{:?}",
            table.keys.iter().map(|key| &row[*key]).collect::<Vec<_>>()
        );
        let mut attempt = |column: &str, out: Option<&Row>, new: Option<&Row>| {
            // A constraint makes some changes impossible.
            if table.replace(db, out, new) {
                let at = table.columns.iter().position(|it| it == column);
                let (from, to) = (at.map(|at| &row[at]), at.and_then(|at| Some(&new?[at])));
                check(column, &format!("{name}: {from:?} to {to:?}"));
                assert!(table.replace(db, new, out));
            }
        };
        attempt("(deleted)", Some(&row), None);
        let mut twin = row.clone();
        for key in &table.keys {
            twin[*key] = fresh(&row[*key]);
        }
        attempt("(copied)", None, Some(&twin));
        for (at, column) in table.columns.iter().enumerate() {
            // One row is enough for a column whose changes are never detected.
            if number > 0 && is_listed(UNDETECTED, &table.name, column) {
                continue;
            }
            for cell in others(table, &rows, &row, at) {
                let mut broken = row.clone();
                broken[at] = cell;
                attempt(column, Some(&row), Some(&broken));
            }
        }
    }
}

/// A value of the same form that occurs nowhere.
fn fresh(cell: &Cell) -> Cell {
    match cell {
        Cell::Integer(number) => Cell::Integer(number + 1_000_000),
        Cell::Text(text) if uuid::Uuid::parse_str(text).is_ok() => {
            Cell::Text(uuid::Uuid::now_v7().to_string())
        }
        Cell::Text(text) => Cell::Text(format!("{text}x")),
        other => other.clone(),
    }
}

/// Plausible other values of a cell: off by one, NULL, or the value of another row.
fn others(table: &Table, rows: &[Row], row: &Row, at: usize) -> Vec<Cell> {
    let mut others = table.allowed(&table.columns[at]);
    match &row[at] {
        Cell::Null => {}
        Cell::Integer(number) => {
            others.extend([Cell::Integer(number + 1), Cell::Integer(number - 1)])
        }
        Cell::Text(text) => {
            if let Some(rest) = text.strip_prefix("2027-") {
                others.extend(["2026-", "2028-"].map(|year| Cell::Text(format!("{year}{rest}"))));
            } else if others.is_empty() && !text.starts_with(['[', '{']) {
                others.push(fresh(&row[at]));
            }
        }
        _ => {}
    }
    let is_other = |it: &&Row| it[at] != row[at] && it[at] != Cell::Null;
    others.extend(rows.iter().find(is_other).map(|it| it[at].clone()));
    if table.nullable[at] {
        others.push(Cell::Null);
    }
    let mut distinct: Vec<Cell> = Vec::new();
    for cell in others {
        if cell != row[at] && !distinct.contains(&cell) {
            distinct.push(cell);
        }
    }
    distinct
}
