//! Creates and checks the schema. Migrations only go forward: a step that was taken is never taken back, so that an
//! older program can run on a newer schema while it is replaced.

use std::collections::HashSet;

use tokio_postgres::{Client, Error, error::SqlState};

use super::{
    connect::{Connector, unavailable},
    table_ddl,
};
use crate::{StoreError, record::Table};

/// Attempts of a migration while another process creates the same objects.
const ATTEMPTS_MAX: u32 = 5;

/// The steps that make the store's own tables, oldest first. A released step never changes.
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
     CREATE TABLE next_id (name text COLLATE \"C\" PRIMARY KEY, next bigint NOT NULL);",
    ),
    // For a publisher that looks for an earlier row of another process.
    (
        "pending messages by subject",
        "ALTER TABLE message ADD COLUMN subject text;
         CREATE INDEX message_subject ON message ((coalesce(subject, key)), \"offset\");",
    ),
    (
        "traces of messages",
        "ALTER TABLE message ADD COLUMN trace text; ALTER TABLE timer ADD COLUMN trace text;",
    ),
    // The dead letter of a message that the brokers reject; later messages of its subject have it too.
    (
        "parked messages",
        "ALTER TABLE message ADD COLUMN parked text COLLATE \"C\";
         CREATE INDEX message_parked ON message (parked, \"offset\") WHERE parked IS NOT NULL;",
    ),
];

/// Creates what is missing: the schema, the store's own tables, the declared tables, and their new columns. Safe to run
/// in several processes at once.
pub(super) async fn migrate(
    connector: &Connector,
    tables: &[&'static Table],
) -> Result<Vec<String>, StoreError> {
    let (client, _driver) = connector.own_session().await?;
    let mut attempt = 1;
    loop {
        let taken = match client.batch_execute("BEGIN").await {
            Ok(()) => take_steps(&client, connector, tables).await,
            Err(error) => Err(error),
        };
        match taken {
            Ok(steps) => return Ok(steps),
            Err(error) if attempt < ATTEMPTS_MAX && is_made_by_another(&error) => {
                attempt += 1;
                let rolled_back = client.batch_execute("ROLLBACK").await;
                rolled_back.map_err(|error| unavailable(&error))?;
            }
            Err(error) => return Err(unavailable(&error)),
        }
    }
}

/// Without advisory locks (CockroachDB ignores them) two processes may create the same object.
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
    connector: &Connector,
    tables: &[&'static Table],
) -> Result<Vec<String>, Error> {
    let (schema, program) = (connector.schema(), connector.program().name);
    let prepare = format!(
        "SELECT pg_advisory_xact_lock(hashtext('{program} migrate'), hashtext('{schema}'));
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
    for table in tables {
        let step = table_ddl::step(table);
        if !known.contains(&step) {
            for sql in table_ddl::changes(client, table).await? {
                client.batch_execute(&sql).await?;
            }
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

/// Fails if the schema lacks anything that the program needs; ignores what a newer program has added.
pub(super) async fn check(
    client: &Client,
    connector: &Connector,
    tables: &[&'static Table],
) -> Result<(), StoreError> {
    let (schema, advice) = (connector.schema(), connector.program().migrate_advice);
    let behind = |what: &str| {
        Err(StoreError::Unavailable(format!(
            "schema {schema} lacks {what}: {advice}"
        )))
    };
    let known = match client.query("SELECT step FROM migration", &[]).await {
        Ok(known) => known,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            return behind("the store's tables");
        }
        Err(error) => return Err(unavailable(&error)),
    };
    let known: HashSet<String> = known.iter().map(|row| row.get(0)).collect();
    if let Some((step, _)) = STEPS.iter().find(|(step, _)| !known.contains(*step)) {
        return behind(step);
    }
    let is_behind = |table: &&&Table| !known.contains(&table_ddl::step(table));
    match tables.iter().find(is_behind) {
        Some(table) => behind(&format!("the table {} as it is declared", table.name)),
        None => Ok(()),
    }
}
