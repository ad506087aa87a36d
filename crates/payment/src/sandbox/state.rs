//! What the sandbox remembers, in one SQLite file with one connection: payments, money moved, first answers, webhooks.
//! Requests under way are remembered only in memory: a restart ends them.
//!
//! - [`schema`]: the tables; [`payments`], [`movements`], [`outbox`]: what is read from and written to them

pub(super) mod movements;
pub(super) mod outbox;
pub(super) mod payments;
mod schema;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use contract::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};

use crate::gateway::ErrorCode;

/// Documented life of an idempotency key: 15 days.
const IDEMPOTENCY_SECS_MAX: i64 = 15 * 24 * 60 * 60;

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

/// What a request came to.
pub(super) enum Settled {
    /// Repeated for its idempotency key.
    Kept(Answer),
    /// The request was not judged: the same key may ask again.
    Passing(Answer),
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
    /// `None`: the file has another shape.
    pub fn open(path: Option<&Path>, now: Timestamp) -> Result<Option<Self>> {
        let mut connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        if !schema::settle(&mut connection)? {
            return Ok(None);
        }
        connection.execute(
            "DELETE FROM first_answer WHERE answered_at_millis < ?1",
            [now.plus_secs(-IDEMPOTENCY_SECS_MAX).as_millis()],
        )?;
        outbox::forget_old(&connection)?;
        Ok(Some(Self {
            connection: Mutex::new(connection),
            under_way: Mutex::new(HashSet::new()),
        }))
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
        work: impl FnOnce(&Transaction<'_>) -> Result<Settled>,
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
        let answer = match work(&transaction)? {
            Settled::Kept(answer) => {
                keep_answer(&transaction, request, &answer, now)?;
                answer
            }
            Settled::Passing(answer) => answer,
        };
        fail::fail_point!("sandbox.before_charge", |_| std::process::abort());
        transaction.commit()?;
        Ok(Ok(answer))
    }

    /// Everything that `work` reads and changes is one transaction.
    ///
    /// # Errors
    /// When the file cannot be read or written; then nothing has changed.
    pub fn within<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = lock(&self.connection);
        let transaction = connection.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(operation) = &self.operation {
            lock(&self.state.under_way).remove(operation);
        }
    }
}

/// A panic elsewhere left nothing half done: every change is a transaction, or one assignment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
            now.as_millis()
        ])?;
    Ok(())
}
