//! The writer's connection: statements prepared once, several sent without waiting for the answer to the first.

use std::{collections::HashMap, time::Duration};

use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Error, Row, Statement,
    error::{DbError, SqlState},
};

use super::{
    connect::{Connector, SHARED_SESSIONS, describe, is_collision},
    wave::Ask,
};

/// A server that says nothing for so long is taken to be gone.
const ANSWER_SECS_MAX: u64 = 20;

/// Why a transaction did not come to its end.
pub(super) enum Trouble {
    /// Something was otherwise than the batch was decided on; what, is known now.
    Otherwise,
    /// A commit breaks a rule of a table, or holds what the database cannot take.
    Broken(String),
    /// The schema is not as this program needs it, and every commit would meet that: something is missing or not
    /// permitted.
    Unfit(String),
    /// Another program has written to the store's own tables, and every commit would meet that.
    Foreign(String),
    /// Another transaction stood in the way.
    Collision(String),
    /// The connection, or the server, is of no use now.
    Lost(String),
    /// Another process has taken over: nothing may be written any more.
    Fenced,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let told = describe(&error);
        if is_collision(&error) {
            return Self::Collision(told);
        }
        if is_taken(&error) {
            return Self::Foreign(format!(
                "another program has written to the messages: {told}"
            ));
        }
        // 42: what a statement names is missing or not permitted, 3F: the schema is.
        let is_schemas_fault = error
            .code()
            .is_some_and(|code| ["42", "3F"].contains(&&code.code()[..2]));
        if is_schemas_fault {
            return Self::Unfit(told);
        }
        // 22: the value, 23: a rule, 54: too large, 21: the number of rows.
        let is_commits_fault = error
            .code()
            .is_some_and(|code| ["21", "22", "23", "54"].contains(&&code.code()[..2]));
        if is_commits_fault {
            Self::Broken(told)
        } else {
            Self::Lost(told)
        }
    }
}

/// Whether an offset is taken that this program is the only one to give.
fn is_taken(error: &Error) -> bool {
    let of_message = |told: &&DbError| told.table() == Some("message");
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
        && error.as_db_error().as_ref().is_some_and(of_message)
}

pub(super) struct Link {
    client: Client,
    prepared: HashMap<String, Statement>,
    driver: JoinHandle<()>,
}

impl Link {
    pub(super) async fn open(connector: &Connector) -> Result<Self, Trouble> {
        let (client, driver) = in_time(connector.session()).await?;
        if in_time(connector.is_shared(&client)).await? {
            return Err(Trouble::Lost(SHARED_SESSIONS.to_owned()));
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

    /// Sends statements at once, behind `BEGIN` where `begins`, and returns the answer of each.
    pub(super) async fn ask(
        &mut self,
        begins: bool,
        asks: &[Ask<'_>],
    ) -> Result<Vec<Vec<Row>>, Trouble> {
        let mut statements = Vec::with_capacity(asks.len());
        for ask in asks {
            statements.push(self.prepare(ask.text).await?);
        }
        let client = &self.client;
        let begin = async {
            if begins {
                client.batch_execute("BEGIN").await?;
            }
            Ok(Vec::new())
        };
        // Futures of different types, in the order in which they are sent.
        let mut sent: Vec<futures::future::BoxFuture<'_, Result<Vec<Row>, Error>>> =
            vec![Box::pin(begin)];
        for (statement, ask) in statements.iter().zip(asks) {
            sent.push(Box::pin(async move {
                client.query(statement, &[&ask.rows]).await
            }));
        }
        let answers = in_time(async { Ok(futures::future::join_all(sent).await) }).await?;
        // Behind the first that failed all others fail too, and only the first says why.
        let mut told = Vec::with_capacity(answers.len());
        for answer in answers {
            told.push(answer?);
        }
        told.remove(0);
        Ok(told)
    }

    async fn prepare(&mut self, text: &str) -> Result<Statement, Trouble> {
        if let Some(statement) = self.prepared.get(text) {
            return Ok(statement.clone());
        }
        let statement = in_time(self.client.prepare(text)).await?;
        self.prepared.insert(text.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs statements without parameters.
    pub(super) async fn run(&self, text: &str) -> Result<(), Trouble> {
        in_time(self.client.batch_execute(text)).await
    }

    /// Ends the session in order, so that what it held is free when this returns.
    pub(super) async fn close(self) {
        drop(self.client);
        let _ = self.driver.await;
    }
}

/// An answer in time, or none.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(Duration::from_secs(ANSWER_SECS_MAX), answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Lost(format!(
            "no answer for {ANSWER_SECS_MAX} seconds"
        ))),
    }
}
