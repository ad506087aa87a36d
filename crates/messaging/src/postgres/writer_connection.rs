//! The writer's connection: prepares each statement once, and sends several without waiting for the first result.

use std::{collections::HashMap, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Error, Row, Statement as PreparedStatement,
    error::{DbError, SqlState},
};

use super::{
    batch_plan::Fact,
    connect::{Connector, SHARED_SESSIONS, describe, is_contention},
    stage::Statement,
};
use crate::StoreError;

/// A server that does not answer for this long counts as failed.
const ANSWER_SECS_MAX: u64 = 20;

/// Why a transaction was not committed.
pub(super) enum TxError {
    /// Stored rows are not as the batch was decided on.
    Stale(Vec<Fact>),
    /// A commit breaks a rule of a table, or holds a value that the database rejects.
    Constraint(String),
    /// Something that the program needs is missing in the schema or not permitted; every commit would fail.
    UnusableSchema(String),
    /// Another program has written to the store's own tables; every commit would fail.
    ForeignRows(String),
    /// A deadlock, a serialization failure or a lock that was not available.
    Contention(String),
    /// The connection or the server failed.
    ConnectionLost(String),
    /// Another process has taken over the log.
    Fenced,
}

impl From<Error> for TxError {
    fn from(error: Error) -> Self {
        let reason = describe(&error);
        if is_contention(&error) {
            return Self::Contention(reason);
        }
        if is_offset_taken(&error) {
            return Self::ForeignRows(format!(
                "another program has written to the message table: {reason}"
            ));
        }
        // 42: a name in a statement is unknown or not permitted; 3F: so is the schema.
        let is_schema_error = error
            .code()
            .is_some_and(|code| ["42", "3F"].contains(&&code.code()[..2]));
        if is_schema_error {
            return Self::UnusableSchema(reason);
        }
        // 22: a value; 23: a constraint; 54: a limit; 21: the number of rows.
        let is_commit_error = error
            .code()
            .is_some_and(|code| ["21", "22", "23", "54"].contains(&&code.code()[..2]));
        if is_commit_error {
            Self::Constraint(reason)
        } else {
            Self::ConnectionLost(reason)
        }
    }
}

impl TxError {
    pub(super) fn reason(self) -> String {
        match self {
            Self::Constraint(reason)
            | Self::UnusableSchema(reason)
            | Self::ForeignRows(reason)
            | Self::Contention(reason)
            | Self::ConnectionLost(reason) => reason,
            Self::Stale(_) => "the batch could not be put together".to_owned(),
            Self::Fenced => "another process has opened the store".to_owned(),
        }
    }
}

impl From<TxError> for StoreError {
    fn from(error: TxError) -> Self {
        Self::Unavailable(error.reason())
    }
}

/// Whether another program has taken an offset of the log.
fn is_offset_taken(error: &Error) -> bool {
    let of_message = |error: &&DbError| error.table() == Some("message");
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
        && error.as_db_error().as_ref().is_some_and(of_message)
}

pub(super) struct WriterConnection {
    client: Client,
    prepared: HashMap<String, PreparedStatement>,
    driver: JoinHandle<()>,
}

impl WriterConnection {
    pub(super) async fn open(connector: &Connector) -> Result<Self, TxError> {
        let (client, driver) = in_time(connector.session()).await?;
        if in_time(connector.is_shared(&client)).await? {
            return Err(TxError::ConnectionLost(SHARED_SESSIONS.to_owned()));
        }
        Ok(Self {
            client,
            prepared: HashMap::new(),
            driver,
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Sends all statements at once, after `BEGIN` if `begins`, and returns the result of each. Every statement after a
    /// failed one fails too; only the first error has the reason.
    pub(super) async fn execute(
        &mut self,
        begins: bool,
        statements: &[Statement<'_>],
    ) -> Result<impl Iterator<Item = Result<Vec<Row>, TxError>>, TxError> {
        let mut prepared = Vec::with_capacity(statements.len());
        for statement in statements {
            prepared.push(self.prepare(statement.text).await?);
        }
        let client = &self.client;
        let begin = async {
            if begins {
                client.batch_execute("BEGIN").await?;
            }
            Ok(Vec::new())
        };
        // Boxed because the futures have different types; polled in the order in which they are sent.
        let mut sent: Vec<futures::future::BoxFuture<'_, Result<Vec<Row>, Error>>> =
            vec![Box::pin(begin)];
        for (prepared, statement) in prepared.iter().zip(statements) {
            sent.push(Box::pin(async move {
                client.query(prepared, &[&statement.rows]).await
            }));
        }
        let answers = in_time(async { Ok(futures::future::join_all(sent).await) }).await?;
        let mut answers = answers
            .into_iter()
            .map(|answer| answer.map_err(TxError::from));
        answers.next().transpose()?;
        Ok(answers)
    }

    async fn prepare(&mut self, text: &str) -> Result<PreparedStatement, TxError> {
        if let Some(statement) = self.prepared.get(text) {
            return Ok(statement.clone());
        }
        let statement = in_time(self.client.prepare(text)).await?;
        self.prepared.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, text: &str) -> Result<(), TxError> {
        in_time(self.client.batch_execute(text)).await
    }

    /// Ends the session and waits for its end, so that its locks are free when this returns.
    pub(super) async fn close(self) {
        drop(self.client);
        let _ = self.driver.await;
    }
}

/// Fails with [`TxError::ConnectionLost`] after [`ANSWER_SECS_MAX`].
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, TxError> {
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECS_MAX), answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(TxError::ConnectionLost(format!(
            "no answer for {ANSWER_SECS_MAX} seconds"
        ))),
    }
}
