//! A schema at one moment, for the audit: one read-only transaction that sees the store as of its begin. It has a runtime
//! of its own, so that its caller may block.

use std::{
    collections::HashSet,
    sync::{Arc, mpsc},
};

use tokio::runtime::{Builder, Runtime};

use super::{
    PostgresSettings,
    connect::{Connector, unavailable},
    reader::{ReadError, Reader},
    schema,
};
use crate::{
    Message, StoreError,
    log_cache::{self, StoredMessage},
    row::Row,
    store::Find,
};

pub(crate) struct PostgresSnapshot {
    reader: Arc<Reader>,
    runtime: OwnRuntime,
}

/// `None` only while it is dropped.
struct OwnRuntime(Option<Runtime>);

impl PostgresSnapshot {
    pub(crate) fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let connector = Connector::new(settings)?;
        let runtime = OwnRuntime::start()?;
        let reader = runtime.run(async move { begin(&connector).await })?;
        Ok(Self {
            reader: Arc::new(reader),
            runtime,
        })
    }

    pub(crate) fn find(&self, find: Find) -> Result<Vec<Row>, StoreError> {
        self.query(|reader| async move { reader.find(&find).await })
    }

    pub(crate) fn sum_by(
        &self,
        table: &str,
        sum: &str,
        by: &str,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        let text =
            format!("SELECT \"{by}\", sum(\"{sum}\")::bigint FROM \"{table}\" GROUP BY \"{by}\"");
        self.query(|reader| async move {
            let sums = reader.query(&text, &[]).await?;
            Ok(sums.iter().map(|row| (row.get(0), row.get(1))).collect())
        })
    }

    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        let name = group.to_owned();
        self.query(|reader| async move {
            let text = "SELECT position FROM consumer WHERE name = $1";
            let position = reader.query(text, &[&name]).await?;
            Ok(position.first().map_or(0, |row| row.get(0)))
        })
    }

    pub(crate) fn seen(&self, group: &str, ids: &[&str]) -> Result<HashSet<String>, StoreError> {
        let name = group.to_owned();
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        self.query(|reader| async move {
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            reader.seen(&name, &ids).await
        })
    }

    pub(crate) fn messages(
        &self,
        offset: i64,
        wanted: &dyn Fn(&Message) -> bool,
    ) -> Result<(Vec<StoredMessage>, i64), StoreError> {
        let scanned = self.query(move |reader| async move { reader.messages(offset).await })?;
        log_cache::select(scanned.into_iter().map(Ok), offset, usize::MAX, wanted)
    }

    pub(crate) fn timers(&self) -> Result<HashSet<String>, StoreError> {
        self.query(|reader| async move {
            let timers = reader.query("SELECT id FROM timer", &[]).await?;
            Ok(timers.iter().map(|row| row.get(0)).collect())
        })
    }

    pub(crate) fn handled(&self, group: &str) -> Result<HashSet<String>, StoreError> {
        let name = group.to_owned();
        self.query(|reader| async move {
            let text = "SELECT message_id FROM inbox WHERE consumer = $1";
            let marks = reader.query(text, &[&name]).await?;
            Ok(marks.iter().map(|row| row.get(0)).collect())
        })
    }

    fn query<T: Send + 'static, F>(
        &self,
        request: impl FnOnce(Arc<Reader>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, ReadError>> + Send + 'static,
    {
        let answer = request(Arc::clone(&self.reader));
        self.runtime.run(async move { Ok(answer.await?) })
    }
}

impl OwnRuntime {
    fn start() -> Result<Self, StoreError> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("postgres-snapshot");
        let runtime = builder.enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self(Some(runtime)))
    }

    /// Waits for an answer; also on a thread of another runtime.
    fn run<T: Send + 'static>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answered) = mpsc::channel();
        if let Some(runtime) = &self.0 {
            runtime.spawn(async move { _ = reply.send(answer.await) });
        }
        let ended = |_| StoreError::Unavailable("the snapshot has ended".to_owned());
        answered.recv().map_err(ended)?
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for its thread would panic on a thread of another runtime.
            runtime.shutdown_background();
        }
    }
}

async fn begin(connector: &Connector) -> Result<Reader, StoreError> {
    let (client, _driver) = connector.own_session().await?;
    schema::check(&client, connector, &[]).await?;
    // An audit may pause for longer than a writer.
    let begin = "SET idle_in_transaction_session_timeout = 0;
                 BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM consumer";
    client
        .batch_execute(begin)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(Reader::Plain(client))
}
