//! The schema of the sandbox's file, and how another schema is detected.

use rusqlite::{Connection, Result, TransactionBehavior};

/// Stored as `user_version`; a file of version 1 has none.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE payment (
    payment_key TEXT PRIMARY KEY,
    order_id TEXT NOT NULL,
    method TEXT NOT NULL,
    status TEXT NOT NULL,
    total_amount INTEGER NOT NULL CHECK (total_amount > 0),
    balance_amount INTEGER NOT NULL CHECK (balance_amount BETWEEN 0 AND total_amount),
    requested_at_millis INTEGER NOT NULL,
    approved_at_millis INTEGER,
    is_confirmed INTEGER NOT NULL,
    window_ends_at_millis INTEGER,
    due_secs INTEGER NOT NULL,
    due_at_millis INTEGER,
    secret TEXT,
    account_number TEXT,
    failure_code TEXT,
    next_transaction INTEGER NOT NULL,
    last_transaction_key TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX payment_by_order ON payment (order_id);
CREATE UNIQUE INDEX payment_confirmed ON payment (order_id) WHERE is_confirmed = 1;
CREATE INDEX payment_by_window ON payment (window_ends_at_millis) WHERE window_ends_at_millis IS NOT NULL;

CREATE TABLE cancel (
    payment_key TEXT NOT NULL REFERENCES payment,
    number INTEGER NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    reason TEXT,
    canceled_at TEXT,
    transaction_key TEXT,
    PRIMARY KEY (payment_key, number)
) STRICT, WITHOUT ROWID;

-- Money in (above zero) and out (below zero); rows are only ever added.
CREATE TABLE movement (
    transaction_key TEXT PRIMARY KEY,
    payment_key TEXT NOT NULL REFERENCES payment,
    order_id TEXT NOT NULL,
    method TEXT NOT NULL,
    status TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount <> 0),
    at_millis INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX movement_by_time ON movement (at_millis, transaction_key);
CREATE INDEX movement_by_payment ON movement (payment_key);

-- For whoever looks into the file: the payments that money was taken for at some time.
CREATE VIEW charge AS
    SELECT order_id, payment_key, status, total_amount, balance_amount FROM payment
    WHERE payment_key IN (SELECT payment_key FROM movement);

CREATE TABLE first_answer (
    path TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    answered_at_millis INTEGER NOT NULL,
    PRIMARY KEY (path, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    payment_key TEXT NOT NULL REFERENCES payment,
    order_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    payment_status TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'PENDING',
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at_millis INTEGER NOT NULL,
    repeats_left INTEGER NOT NULL DEFAULT 0,
    was_delivered INTEGER NOT NULL DEFAULT 0,
    was_put_off INTEGER NOT NULL DEFAULT 0,
    is_held INTEGER NOT NULL DEFAULT 0,
    last_outcome TEXT
) STRICT;
CREATE INDEX webhook_due ON webhook (next_at_millis) WHERE state = 'PENDING';
CREATE INDEX webhook_held ON webhook (payment_key) WHERE is_held = 1;
";

/// Creates the tables in an empty file; returns whether the file has this schema.
pub(super) fn ensure(connection: &mut Connection) -> Result<bool> {
    // Immediate: of two processes that open a new file, one waits for the other.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: i64 =
        transaction.query_row("SELECT COUNT(*) FROM sqlite_master", (), |row| row.get(0))?;
    if version == 0 && tables == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        return Ok(true);
    }
    Ok(version == VERSION)
}
