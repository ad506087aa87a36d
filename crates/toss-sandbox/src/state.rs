//! The sandbox's state in one SQLite file with one connection: payments, money moved, first answers, webhooks. Requests
//! in flight are kept in memory only: a restart ends them.
//!
//! - [`schema`]: the tables; [`payments`], [`movements`], [`outbox`]: what is read from and written to them

pub(super) mod movements;
pub(super) mod outbox;
pub(super) mod payments;
mod schema;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Result, Transaction, params};

use toss::ErrorCode;

/// Documented life of an idempotency key: 15 days.
const IDEMPOTENCY_SECS_MAX: i64 = 15 * 24 * 60 * 60;

/// The identity of one POST.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub path: String,
    pub idempotency_key: Option<String>,
    /// The body in canonical form: the fingerprint of the request.
    pub body: String,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoredAnswer {
    pub status: u16,
    pub body: String,
}

/// The answer to a request, and whether its idempotency key keeps it.
pub(super) enum Reply {
    /// Repeated for the idempotency key.
    Stored(StoredAnswer),
    /// The request was not judged: a retry with the same key is judged anew.
    NotStored(StoredAnswer),
}

pub(super) struct State {
    connection: Mutex<Connection>,
    in_flight: Mutex<HashSet<(String, String)>>,
}

/// Reserves an idempotency key while its request is in flight; dropping it releases the key.
pub(super) struct InFlight<'a> {
    state: &'a State,
    operation: Option<(String, String)>,
}

impl State {
    /// `None` if the file has another schema.
    pub fn open(path: Option<&Path>, now: Timestamp) -> Result<Option<Self>> {
        let mut connection = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "OFF")?;
        if !schema::ensure(&mut connection)? {
            return Ok(None);
        }
        connection.execute(
            "DELETE FROM first_answer WHERE answered_at_millis < ?1",
            [now.as_millisecond() - IDEMPOTENCY_SECS_MAX * 1_000],
        )?;
        outbox::delete_old(&connection)?;
        Ok(Some(Self {
            connection: Mutex::new(connection),
            in_flight: Mutex::new(HashSet::new()),
        }))
    }

    /// Reserves the request's idempotency key until the guard is dropped.
    ///
    /// # Errors
    /// If a request with this key is in flight.
    pub fn begin(&self, request: &Request) -> std::result::Result<InFlight<'_>, ErrorCode> {
        let key = request.idempotency_key.clone();
        let operation = key.map(|key| (request.path.clone(), key));
        if let Some(operation) = &operation
            && !lock(&self.in_flight).insert(operation.clone())
        {
            return Err(ErrorCode::IDEMPOTENT_REQUEST_PROCESSING);
        }
        Ok(InFlight {
            state: self,
            operation,
        })
    }

    /// Returns the first answer of the request's key, or the answer of `work`, which is stored in the transaction of
    /// its changes.
    ///
    /// # Errors
    /// If the file cannot be read or written; nothing is changed. The inner error: the key was used for another request.
    pub fn once(
        &self,
        request: &Request,
        now: Timestamp,
        work: impl FnOnce(&Transaction<'_>) -> Result<Reply>,
    ) -> Result<std::result::Result<StoredAnswer, ErrorCode>> {
        let mut connection = lock(&self.connection);
        let transaction = connection.transaction()?;
        if let Some((first_request, answer)) = first_answer(&transaction, request)? {
            let is_same = first_request == request.body;
            return Ok(if is_same {
                Ok(answer)
            } else {
                Err(ErrorCode::IDEMPOTENCY_KEY_REUSED)
            });
        }
        let answer = match work(&transaction)? {
            Reply::Stored(answer) => {
                store_answer(&transaction, request, &answer, now)?;
                answer
            }
            Reply::NotStored(answer) => answer,
        };
        fail::fail_point!("sandbox.before_charge", |_| std::process::abort());
        transaction.commit()?;
        Ok(Ok(answer))
    }

    /// Runs `work` in one transaction.
    ///
    /// # Errors
    /// If the file cannot be read or written; nothing is changed.
    pub fn within<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = lock(&self.connection);
        let transaction = connection.transaction()?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let Some(operation) = &self.operation {
            lock(&self.state.in_flight).remove(operation);
        }
    }
}

/// A panic of another holder leaves no partial change: each one is a transaction or one assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A column of milliseconds since the Unix epoch.
pub(crate) fn instant(millis: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(millis)
        .map_err(|error| Error::FromSqlConversionFailure(0, Type::Integer, error.into()))
}

fn first_answer(
    connection: &Connection,
    request: &Request,
) -> Result<Option<(String, StoredAnswer)>> {
    let Some(key) = &request.idempotency_key else {
        return Ok(None);
    };
    connection
        .prepare_cached("SELECT request, status, body FROM first_answer WHERE path = ?1 AND idempotency_key = ?2")?
        .query_row([&request.path, key], |row| {
            Ok((row.get(0)?, StoredAnswer { status: row.get(1)?, body: row.get(2)? }))
        })
        .optional()
}

fn store_answer(
    connection: &Connection,
    request: &Request,
    answer: &StoredAnswer,
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
            now.as_millisecond()
        ])?;
    Ok(())
}
