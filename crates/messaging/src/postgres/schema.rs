//! The schema: how it comes to be, and whether it is there. Migrations only go forward: a step that was taken is
//! never taken back, so an older program runs on a newer schema while it is replaced.

use std::collections::HashSet;

use tokio_postgres::{Client, Error, error::SqlState};

use super::connect::{Connector, unavailable};
use crate::{
    StoreError,
    record::{Column, Kind, Table},
};

/// Times that a migration is tried while another process makes the same things.
const ATTEMPTS_MAX: u32 = 5;

/// The store's own tables, in the order in which they were thought of. A step is never changed once it was released.
const STEPS: &[(&str, &str)] = &[
    (
    "messages, positions, inbox, timers, writers",
    "CREATE SEQUENCE message_offset;
     CREATE TABLE message (
         \"offset\" bigint PRIMARY KEY DEFAULT nextval('message_offset'), id text NOT NULL, topic text NOT NULL,
         key text NOT NULL, time bigint NOT NULL, payload text NOT NULL, reissue text);
     CREATE TABLE consumer (name text COLLATE \"C\" PRIMARY KEY, position bigint NOT NULL);
     CREATE TABLE inbox (
         consumer text COLLATE \"C\" NOT NULL, message_id text COLLATE \"C\" NOT NULL, seen_at bigint NOT NULL,
         PRIMARY KEY (consumer, message_id));
     CREATE TABLE timer (
         id text COLLATE \"C\" PRIMARY KEY, due_at bigint NOT NULL, message_id text NOT NULL, topic text NOT NULL,
         key text NOT NULL, payload text NOT NULL, reissue text);
     CREATE INDEX timer_due ON timer (due_at);
     CREATE TABLE writer (
         name text COLLATE \"C\" PRIMARY KEY, epoch bigint NOT NULL, batch bigint NOT NULL,
         seen_at timestamptz NOT NULL DEFAULT now()) WITH (fillfactor = 50);
     CREATE TABLE next_id (name text COLLATE \"C\" PRIMARY KEY, next bigint NOT NULL);",),
    // A publisher asks which keys have an earlier row of another process.
    ("pending messages by key", "CREATE INDEX message_key ON message (key, \"offset\")"),
];

/// Makes what is missing: the schema, the store's own tables, the declared tables, and columns that were added to
/// them. Any number of processes may do this at once.
pub(super) async fn migrate(
    connector: &Connector,
    tables: &[&'static Table],
) -> Result<Vec<String>, StoreError> {
    let (client, _driver) = connector
        .session()
        .await
        .map_err(|error| unavailable(&error))?;
    let mut attempt = 1;
    loop {
        let taken = match client.batch_execute("BEGIN").await {
            Ok(()) => take_steps(&client, connector.schema(), tables).await,
            Err(error) => Err(Trouble::Server(error)),
        };
        match taken {
            Ok(steps) => return Ok(steps),
            Err(Trouble::Server(error)) if attempt < ATTEMPTS_MAX && is_made_by_another(&error) => {
                attempt += 1;
                let rolled_back = client.batch_execute("ROLLBACK").await;
                rolled_back.map_err(|error| unavailable(&error))?;
            }
            Err(Trouble::Server(error)) => return Err(unavailable(&error)),
            Err(Trouble::Impossible(error)) => return Err(error),
        }
    }
}

enum Trouble {
    Server(Error),
    Impossible(StoreError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Without advisory locks (CockroachDB takes and ignores them) two processes may make the same thing.
fn is_made_by_another(error: &Error) -> bool {
    let codes = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_SCHEMA,
        SqlState::DUPLICATE_COLUMN,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}

async fn take_steps(
    client: &Client,
    schema: &str,
    tables: &[&'static Table],
) -> Result<Vec<String>, Trouble> {
    let prepare = format!(
        "SELECT pg_advisory_xact_lock(hashtext('boxoffice migrate'), hashtext('{schema}'));
         CREATE SCHEMA IF NOT EXISTS \"{schema}\";
         CREATE TABLE IF NOT EXISTS migration (
             version bigint PRIMARY KEY, step text COLLATE \"C\" NOT NULL UNIQUE,
             applied_at timestamptz NOT NULL DEFAULT now());"
    );
    client.batch_execute(&prepare).await?;
    let mut taken = Vec::new();
    let known: Vec<String> = client
        .query("SELECT step FROM migration ORDER BY version", &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    for (name, sql) in STEPS {
        if !known.iter().any(|step| step == name) {
            client.batch_execute(sql).await?;
            taken.push((*name).to_owned());
        }
    }
    let columns = stored_columns(client).await?;
    for table in tables {
        for (step, sql) in missing(table, &columns).map_err(Trouble::Impossible)? {
            client.batch_execute(&sql).await?;
            taken.push(step);
        }
    }
    for step in &taken {
        let text = "INSERT INTO migration (version, step)
                    SELECT coalesce(max(version), 0) + 1, $1 FROM migration
                    ON CONFLICT (step) DO NOTHING";
        client.execute(text, &[step]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(taken)
}

/// Every column in the schema, as (table, column).
async fn stored_columns(client: &Client) -> Result<HashSet<(String, String)>, Error> {
    let text = "SELECT table_name::text, column_name::text FROM information_schema.columns
                WHERE table_schema = current_schema()";
    let rows = client.query(text, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What a table lacks, as steps with their names.
fn missing(
    table: &Table,
    stored: &HashSet<(String, String)>,
) -> Result<Vec<(String, String)>, StoreError> {
    let is_stored =
        |column: &Column| stored.contains(&(table.name.to_owned(), column.name.to_owned()));
    if !table.columns.iter().any(is_stored) {
        return Ok(vec![(format!("table {}", table.name), create_table(table))]);
    }
    let lacking = table.columns.iter().filter(|column| !is_stored(column));
    lacking
        .map(|column| {
            if !column.nullable {
                return Err(StoreError::Unavailable(format!(
                    "column {} of {} cannot be added to rows that are there: let it be absent",
                    column.name, table.name
                )));
            }
            let step = format!("column {}.{}", table.name, column.name);
            let add = format!(
                "ALTER TABLE \"{}\" ADD COLUMN {}",
                table.name,
                definition(column)
            );
            Ok((step, add))
        })
        .collect()
}

/// Whether everything is there that the program needs; what a newer program has added does not disturb.
pub(super) async fn check(
    client: &Client,
    schema: &str,
    tables: &[&'static Table],
) -> Result<(), StoreError> {
    let stored = stored_columns(client)
        .await
        .map_err(|error| unavailable(&error))?;
    let behind = |what: String| {
        Err(StoreError::Unavailable(format!(
            "schema {schema} lacks {what}: run `boxoffice migrate`"
        )))
    };
    if !stored.contains(&("migration".to_owned(), "step".to_owned())) {
        return behind("the store's tables".to_owned());
    }
    let known = client
        .query("SELECT step FROM migration", &[])
        .await
        .map_err(|error| unavailable(&error))?;
    let known: HashSet<String> = known.iter().map(|row| row.get(0)).collect();
    if let Some((step, _)) = STEPS.iter().find(|(step, _)| !known.contains(*step)) {
        return behind((*step).to_owned());
    }
    for table in tables {
        for column in table.columns {
            if !stored.contains(&(table.name.to_owned(), column.name.to_owned())) {
                return behind(format!("column {} of {}", column.name, table.name));
            }
        }
    }
    Ok(())
}

/// The type of a column. Texts compare byte by byte, as SQLite's do, whatever the database's own collation is.
pub(super) fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "bigint",
        Kind::Text => "text",
        Kind::Boolean => "boolean",
        Kind::Json => "jsonb",
    }
}

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

fn create_table(table: &Table) -> String {
    let mut parts: Vec<String> = table.columns.iter().map(definition).collect();
    parts.push(format!("PRIMARY KEY (\"{}\")", table.key));
    parts.extend(table.constraints.iter().map(|rule| (*rule).to_owned()));
    let mut text = format!("CREATE TABLE \"{}\" ({});", table.name, parts.join(", "));
    for (number, index) in table.indexes.iter().enumerate() {
        let index = format!(
            "CREATE INDEX \"{0}_{number}\" ON \"{0}\" {index};",
            table.name
        );
        text.push_str(&index);
    }
    text
}
