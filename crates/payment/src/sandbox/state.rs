//! What the sandbox remembers, in one SQLite file with one connection: charges, cancellations, and first answers.
//! Requests under way are remembered only in memory: a restart ends them.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Row, Transaction, params};

use crate::gateway::ErrorCode;
use crate::gateway::protocol::{CancelEntry, PaymentBody};

/// Documented life of an idempotency key: 15 days.
const IDEMPOTENCY_SECS_MAX: i64 = 15 * 24 * 60 * 60;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS charge (
    payment_key TEXT PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    total_amount INTEGER NOT NULL CHECK (total_amount > 0),
    balance_amount INTEGER NOT NULL CHECK (balance_amount BETWEEN 0 AND total_amount),
    currency TEXT,
    method TEXT,
    requested_at TEXT,
    approved_at TEXT,
    last_transaction_key TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cancel (
    payment_key TEXT NOT NULL REFERENCES charge,
    number INTEGER NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    reason TEXT,
    canceled_at TEXT,
    transaction_key TEXT,
    PRIMARY KEY (payment_key, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS first_answer (
    path TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    answered_at_secs INTEGER NOT NULL,
    PRIMARY KEY (path, idempotency_key)
) STRICT, WITHOUT ROWID;
";

/// One POST as the sandbox tells it from another.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub path: String,
    pub idempotency_key: Option<String>,
    /// The body in one canonical form: the fingerprint of what was asked.
    pub body: String,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    pub body: String,
}

pub(super) struct State {
    connection: Mutex<Connection>,
    under_way: Mutex<HashSet<(String, String)>>,
}

/// Holds an idempotency key while its request is under way; dropping it lets the key go.
pub(super) struct UnderWay<'a> {
    state: &'a State,
    operation: Option<(String, String)>,
}

impl State {
    pub fn open(path: Option<&Path>, now: Timestamp) -> Result<Self> {
        let connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        connection.execute_batch(SCHEMA)?;
        connection.execute(
            "DELETE FROM first_answer WHERE answered_at_secs < ?1",
            [now.as_second().saturating_sub(IDEMPOTENCY_SECS_MAX)],
        )?;
        Ok(Self {
            connection: Mutex::new(connection),
            under_way: Mutex::new(HashSet::new()),
        })
    }

    /// Takes the request's idempotency key, until the guard is dropped.
    ///
    /// # Errors
    /// When a request with this key is under way.
    pub fn begin(&self, request: &Request) -> std::result::Result<UnderWay<'_>, ErrorCode> {
        let key = request.idempotency_key.clone();
        let operation = key.map(|key| (request.path.clone(), key));
        if let Some(operation) = &operation
            && !lock(&self.under_way).insert(operation.clone())
        {
            return Err(ErrorCode::IdempotentRequestProcessing);
        }
        Ok(UnderWay {
            state: self,
            operation,
        })
    }

    /// Answers a request: with the first answer if its key has one, else by `work`. What `work` changes and what is
    /// answered are one transaction.
    ///
    /// # Errors
    /// When the file cannot be read or written; then nothing has changed. The inner error: the key was used for
    /// another request.
    pub fn once(
        &self,
        request: &Request,
        now: Timestamp,
        work: impl FnOnce(&Transaction<'_>) -> Result<Answer>,
    ) -> Result<std::result::Result<Answer, ErrorCode>> {
        let mut connection = lock(&self.connection);
        let transaction = connection.transaction()?;
        if let Some((first_request, answer)) = first_answer(&transaction, request)? {
            let is_same = first_request == request.body;
            return Ok(if is_same {
                Ok(answer)
            } else {
                Err(ErrorCode::IdempotencyKeyReused)
            });
        }
        let answer = work(&transaction)?;
        keep_answer(&transaction, request, &answer, now)?;
        fail::fail_point!("sandbox.before_charge", |_| std::process::abort());
        transaction.commit()?;
        Ok(Ok(answer))
    }

    pub fn find_by_key(&self, payment_key: &str) -> Result<Option<PaymentBody>> {
        find_by_key(&lock(&self.connection), payment_key)
    }

    pub fn find_by_order(&self, order_id: &str) -> Result<Option<PaymentBody>> {
        find_by_order(&lock(&self.connection), order_id)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(operation) = &self.operation {
            lock(&self.state.under_way).remove(operation);
        }
    }
}

/// A panic elsewhere left nothing half done: every change is a transaction.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_answer(connection: &Connection, request: &Request) -> Result<Option<(String, Answer)>> {
    let Some(key) = &request.idempotency_key else {
        return Ok(None);
    };
    connection
        .prepare_cached("SELECT request, status, body FROM first_answer WHERE path = ?1 AND idempotency_key = ?2")?
        .query_row([&request.path, key], |row| {
            Ok((row.get(0)?, Answer { status: row.get(1)?, body: row.get(2)? }))
        })
        .optional()
}

fn keep_answer(
    connection: &Connection,
    request: &Request,
    answer: &Answer,
    now: Timestamp,
) -> Result<()> {
    let Some(key) = &request.idempotency_key else {
        return Ok(());
    };
    connection
        .prepare_cached("INSERT INTO first_answer VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![
            request.path,
            key,
            request.body,
            answer.status,
            answer.body,
            now.as_second()
        ])?;
    Ok(())
}

pub(super) fn find_by_key(
    connection: &Connection,
    payment_key: &str,
) -> Result<Option<PaymentBody>> {
    let payment = connection
        .prepare_cached("SELECT * FROM charge WHERE payment_key = ?1")?
        .query_row([payment_key], payment)
        .optional()?;
    payment
        .map(|payment| with_cancels(connection, payment))
        .transpose()
}

pub(super) fn find_by_order(
    connection: &Connection,
    order_id: &str,
) -> Result<Option<PaymentBody>> {
    let payment = connection
        .prepare_cached("SELECT * FROM charge WHERE order_id = ?1")?
        .query_row([order_id], payment)
        .optional()?;
    payment
        .map(|payment| with_cancels(connection, payment))
        .transpose()
}

/// Stores a payment as it is now. Cancellations are only ever added.
pub(super) fn put(connection: &Connection, payment: &PaymentBody) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO charge VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (payment_key) DO UPDATE SET status = excluded.status,
             balance_amount = excluded.balance_amount, last_transaction_key = excluded.last_transaction_key",
        )?
        .execute(params![
            payment.payment_key,
            payment.order_id,
            payment.status.as_str(),
            payment.total_amount,
            payment.balance_amount,
            payment.currency,
            payment.method,
            payment.requested_at,
            payment.approved_at,
            payment.last_transaction_key,
        ])?;
    for (number, entry) in (0_i64..).zip(payment.cancels.iter().flatten()) {
        connection
            .prepare_cached("INSERT OR IGNORE INTO cancel VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                payment.payment_key,
                number,
                entry.cancel_amount,
                entry.cancel_reason,
                entry.canceled_at,
                entry.transaction_key,
            ])?;
    }
    Ok(())
}

fn payment(row: &Row<'_>) -> Result<PaymentBody> {
    Ok(PaymentBody {
        payment_key: row.get("payment_key")?,
        order_id: row.get("order_id")?,
        status: row.get::<_, String>("status")?.into(),
        total_amount: row.get("total_amount")?,
        balance_amount: row.get("balance_amount")?,
        currency: row.get("currency")?,
        method: row.get("method")?,
        requested_at: row.get("requested_at")?,
        approved_at: row.get("approved_at")?,
        last_transaction_key: row.get("last_transaction_key")?,
        cancels: None,
        failure: None,
        secret: None,
        virtual_account: None,
    })
}

fn with_cancels(connection: &Connection, mut payment: PaymentBody) -> Result<PaymentBody> {
    let mut statement = connection.prepare_cached(
        "SELECT amount, reason, canceled_at, transaction_key FROM cancel WHERE payment_key = ?1 ORDER BY number",
    )?;
    let cancels = statement
        .query_map([&payment.payment_key], |row| {
            Ok(CancelEntry {
                cancel_amount: row.get(0)?,
                cancel_reason: row.get(1)?,
                canceled_at: row.get(2)?,
                transaction_key: row.get(3)?,
            })
        })?
        .collect::<Result<Vec<_>>>()?;
    payment.cancels = (!cancels.is_empty()).then_some(cancels);
    Ok(payment)
}
