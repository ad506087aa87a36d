//! The texts of the statements, made once when the store is opened. Every statement of a batch takes its rows as one
//! JSON parameter, so that its text is the same for any number of rows. Statements lock rows in the order of their keys,
//! so that two processes cannot deadlock.

use std::collections::HashMap;

use super::table_ddl::{rules, type_of};
use crate::{
    record::Table,
    sql::{Dialect, columns},
};

/// The name of the expected version beside the row's own columns. No column has this name.
pub(super) const EXPECTED: &str = "~expected";

pub(super) const FENCES: &str = "SELECT l.name, l.token
    FROM jsonb_to_recordset($1::text::jsonb) AS x(lease text, token bigint)
    JOIN lease l ON l.name = x.lease AND l.token = x.token ORDER BY l.name FOR SHARE OF l";
pub(super) const INBOX: &str = "INSERT INTO inbox (consumer, message_id, seen_at)
    SELECT consumer, message_id, seen_at
    FROM jsonb_to_recordset($1::text::jsonb) AS x(consumer text, message_id text, seen_at bigint)
    ON CONFLICT (consumer, message_id) DO NOTHING RETURNING consumer, message_id";
pub(super) const LOG: &str = "INSERT INTO message (\"offset\", id, topic, key, subject, time, payload, reissue, trace)
    SELECT \"offset\", id, topic, key, subject, time, payload, reissue, trace
    FROM jsonb_to_recordset($1::text::jsonb)
    AS x(\"offset\" bigint, id text, topic text, key text, subject text, time bigint, payload text, reissue text, trace text)";
/// The sequence gives the offsets, in the order of the rows.
pub(super) const OUTBOX: &str = "INSERT INTO message (id, topic, key, subject, time, payload, reissue, trace)
    SELECT id, topic, key, subject, time, payload, reissue, trace
    FROM jsonb_to_recordset($1::text::jsonb)
    AS x(id text, topic text, key text, subject text, time bigint, payload text, reissue text, trace text) RETURNING \"offset\"";
pub(super) const FIRE: &str = "DELETE FROM timer USING jsonb_to_recordset($1::text::jsonb)
    AS x(id text, due_at bigint, message_id text)
    WHERE timer.id = x.id AND timer.due_at = x.due_at AND timer.message_id = x.message_id RETURNING timer.id";
pub(super) const SET_TIMER: &str = "INSERT INTO timer (id, due_at, message_id, topic, key, payload, reissue, trace)
    SELECT id, due_at, message_id, topic, key, payload, reissue, trace
    FROM jsonb_to_recordset($1::text::jsonb)
    AS x(id text, due_at bigint, message_id text, topic text, key text, payload text, reissue text, trace text)
    ON CONFLICT (id) DO UPDATE SET due_at = excluded.due_at, message_id = excluded.message_id,
    topic = excluded.topic, key = excluded.key, payload = excluded.payload, reissue = excluded.reissue,
    trace = excluded.trace";
pub(super) const CANCEL_TIMER: &str = "DELETE FROM timer
    USING jsonb_to_recordset($1::text::jsonb) AS x(id text) WHERE timer.id = x.id";
pub(super) const POSITIONS: &str = "INSERT INTO consumer (name, position) SELECT name, position
    FROM jsonb_to_recordset($1::text::jsonb) AS x(name text, position bigint)
    ON CONFLICT (name) DO UPDATE SET position = excluded.position WHERE excluded.position > consumer.position";
/// Part of every batch's transaction: a later connection reads from it whether the batch was committed, and a writer
/// whose log was taken over finds another epoch.
pub(super) const WRITER: &str = "UPDATE writer SET batch = x.batch, seen_at = now()
    FROM jsonb_to_recordset($1::text::jsonb) AS x(name text, epoch bigint, batch bigint)
    WHERE writer.name = x.name AND writer.epoch = x.epoch RETURNING writer.batch";

pub(super) struct SqlTexts {
    tables: HashMap<&'static str, TableSql>,
    /// Every declared constraint by its name on the server.
    rules: Vec<(String, &'static str)>,
}

pub(super) struct TableSql {
    pub(super) load: String,
    pub(super) insert: String,
    pub(super) update: String,
    pub(super) delete: String,
    /// Finds rows that break a rule, among those that a later row of the same batch replaces.
    pub(super) rules: String,
    /// Places of the columns that are unique by themselves or together.
    pub(super) unique: Vec<usize>,
}

impl SqlTexts {
    pub(super) fn new(tables: &[&'static Table]) -> Self {
        let texts = |table: &&'static Table| (table.name, TableSql::new(table));
        Self {
            tables: tables.iter().map(texts).collect(),
            rules: tables.iter().flat_map(|table| rules(table)).collect(),
        }
    }

    /// The server's error text with the constraint in place of its name.
    pub(super) fn name_rule(&self, detail: String) -> String {
        let broken = self.rules.iter().find(|(name, _)| detail.contains(name));
        match broken {
            Some((name, rule)) => detail.replace(name, rule),
            None => detail,
        }
    }

    pub(super) fn of(&self, table: &Table) -> &TableSql {
        self.tables
            .get(table.name)
            .expect("the store is opened with every table")
    }
}

impl TableSql {
    fn new(table: &Table) -> Self {
        let (name, key) = (table.name, table.key);
        let columns = columns(table);
        let given = parameter_rows(table);
        let sets: Vec<_> = table
            .columns
            .iter()
            .filter(|column| column.name != key)
            .map(|column| format!("\"{0}\" = x.\"{0}\"", column.name))
            .collect();
        let expected = EXPECTED;
        let array = if table.is_keyed_by_text() {
            "text"
        } else {
            "bigint"
        };
        Self {
            load: format!("SELECT {columns} FROM \"{name}\" WHERE \"{key}\" = ANY($1::{array}[])"),
            // An existing row of this key is another writer's change: a conflict. Any other broken rule is the commit's fault.
            insert: format!(
                "INSERT INTO \"{name}\" ({columns}) SELECT {columns} FROM {given} \
                 ON CONFLICT (\"{key}\") DO NOTHING RETURNING \"{key}\""
            ),
            update: format!(
                "WITH x AS MATERIALIZED (SELECT x.* FROM {given} JOIN \"{name}\" t \
                 ON t.\"{key}\" = x.\"{key}\" AND t.version = x.\"{expected}\" ORDER BY t.\"{key}\" FOR UPDATE OF t) \
                 UPDATE \"{name}\" t SET {} FROM x WHERE t.\"{key}\" = x.\"{key}\" RETURNING t.\"{key}\"",
                sets.join(", ")
            ),
            delete: format!(
                "WITH x AS MATERIALIZED (SELECT t.\"{key}\" FROM {given} JOIN \"{name}\" t \
                 ON t.\"{key}\" = x.\"{key}\" AND t.version = coalesce(x.\"{expected}\", t.version) \
                 ORDER BY t.\"{key}\" FOR UPDATE OF t) \
                 DELETE FROM \"{name}\" t USING x WHERE t.\"{key}\" = x.\"{key}\" RETURNING t.\"{key}\""
            ),
            rules: format!(
                "SELECT \"{key}\"::text FROM {given} WHERE {} LIMIT 1",
                broken_rules(table)
            ),
            unique: unique_columns(table),
        }
    }
}

/// The parameter as rows of a table.
fn parameter_rows(table: &Table) -> String {
    let columns: Vec<_> = table
        .columns
        .iter()
        .map(|column| format!("\"{}\" {}", column.name, type_of(column.kind)))
        .collect();
    format!(
        "jsonb_to_recordset($1::text::jsonb) AS x({}, \"{EXPECTED}\" bigint)",
        columns.join(", ")
    )
}

/// True for a row that breaks a rule of the table by itself.
fn broken_rules(table: &Table) -> String {
    let checks = table
        .constraints
        .iter()
        .filter_map(|rule| rule.strip_prefix("CHECK"))
        .map(|rule| format!("({rule}) IS FALSE"));
    let absent = table
        .columns
        .iter()
        .filter(|column| !column.nullable)
        .map(|column| format!("\"{}\" IS NULL", column.name));
    let broken: Vec<_> = checks.chain(absent).collect();
    broken.join(" OR ")
}

fn unique_columns(table: &Table) -> Vec<usize> {
    let unique = |rule: &&'static str| rule.strip_prefix("UNIQUE");
    let named: Vec<&str> = table
        .constraints
        .iter()
        .filter_map(unique)
        .flat_map(|names| names.trim().trim_matches(['(', ')']).split(','))
        .map(|name| name.trim().trim_matches('"'))
        .collect();
    let places = table.columns.iter().enumerate();
    places
        .filter(|(_, column)| named.contains(&column.name))
        .map(|(place, _)| place)
        .collect()
}

/// Parameters are texts: the server converts them to the type of the column.
pub(super) const DIALECT: Dialect = Dialect {
    parameter: |kind, number| format!("${number}::text::{}", type_of(kind)),
    no_index: "",
};
