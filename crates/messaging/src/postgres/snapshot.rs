//! A schema at one moment, for the audit: one read-only transaction that sees the store as of its begin. It has a thread
//! and a runtime of its own, so that its caller may block.

use std::{collections::HashSet, sync::mpsc};

use crate::Timestamp;
use futures::future::BoxFuture;

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

type Request = Box<dyn for<'a> FnOnce(&'a Reader) -> BoxFuture<'a, ()> + Send>;

pub(crate) struct PostgresSnapshot {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl PostgresSnapshot {
    pub(crate) fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let connector = Connector::new(settings)?;
        let (requests, received) = mpsc::channel::<Request>();
        let (opening, opened) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("postgres-snapshot".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let begun = runtime
                    .map_err(|error| StoreError::Unavailable(error.to_string()))
                    .and_then(|runtime| {
                        let reader = runtime.block_on(begin(&connector))?;
                        Ok((runtime, reader))
                    });
                match begun {
                    Err(error) => _ = opening.send(Err(error)),
                    Ok((runtime, reader)) => {
                        let _ = opening.send(Ok(()));
                        while let Ok(request) = received.recv() {
                            runtime.block_on(request(&reader));
                        }
                    }
                }
            })
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let snapshot = Self {
            requests: Some(requests),
            thread: Some(thread),
        };
        opened.recv().map_err(|_| ended())??;
        Ok(snapshot)
    }

    pub(crate) fn find(&self, find: Find) -> Result<Vec<Row>, StoreError> {
        self.query(move |reader| Box::pin(async move { reader.find(&find).await }))
    }

    pub(crate) fn sum_by(
        &self,
        table: &str,
        sum: &str,
        by: &str,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        let text =
            format!("SELECT \"{by}\", sum(\"{sum}\")::bigint FROM \"{table}\" GROUP BY \"{by}\"");
        self.query(move |reader| {
            Box::pin(async move {
                let sums = reader.query(&text, &[]).await?;
                Ok(sums.iter().map(|row| (row.get(0), row.get(1))).collect())
            })
        })
    }

    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        let name = group.to_owned();
        self.query(move |reader| {
            Box::pin(async move {
                let text = "SELECT position FROM consumer WHERE name = $1";
                let position = reader.query(text, &[&name]).await?;
                Ok(position.first().map_or(0, |row| row.get(0)))
            })
        })
    }

    pub(crate) fn seen(&self, group: &str, ids: &[&str]) -> Result<HashSet<String>, StoreError> {
        let name = group.to_owned();
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        self.query(move |reader| {
            Box::pin(async move {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                reader.seen(&name, &ids).await
            })
        })
    }

    pub(crate) fn messages(
        &self,
        offset: i64,
        wanted: &dyn Fn(&Message) -> bool,
    ) -> Result<(Vec<StoredMessage>, i64), StoreError> {
        let messages =
            self.query(move |reader| Box::pin(async move { reader.messages(offset).await }))?;
        log_cache::select(messages.into_iter().map(Ok), offset, usize::MAX, wanted)
    }

    pub(crate) fn timers(&self) -> Result<HashSet<String>, StoreError> {
        let ever = [i64::MIN, i64::MAX].map(Timestamp::from_millis);
        let timers = self.query(move |reader| {
            Box::pin(async move { reader.timers(ever.into(), u32::MAX).await })
        })?;
        Ok(timers.into_iter().map(|timer| timer.id).collect())
    }

    pub(crate) fn handled(&self, group: &str) -> Result<HashSet<String>, StoreError> {
        let name = group.to_owned();
        self.query(move |reader| {
            Box::pin(async move {
                let text = "SELECT message_id FROM inbox WHERE consumer = $1";
                let marks = reader.query(text, &[&name]).await?;
                Ok(marks.iter().map(|row| row.get(0)).collect())
            })
        })
    }

    /// Runs a request on the snapshot's thread and waits for its answer.
    fn query<T: Send + 'static>(
        &self,
        request: impl for<'a> FnOnce(&'a Reader) -> BoxFuture<'a, Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = mpsc::channel();
        let received: Request = Box::new(move |reader| {
            let received = request(reader);
            Box::pin(async move { _ = reply.send(received.await) })
        });
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(received).map_err(|_| ended())?;
        match answer.recv().map_err(|_| ended())? {
            Ok(answer) => Ok(answer),
            Err(ReadError::Store(error)) => Err(error),
            Err(ReadError::Server(error)) => Err(unavailable(&error)),
        }
    }
}

impl Drop for PostgresSnapshot {
    fn drop(&mut self) {
        self.requests.take();
        if let Some(thread) = self.thread.take() {
            // A panicked thread has already failed every request.
            let _ = thread.join();
        }
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("the snapshot has ended".to_owned())
}

async fn begin(connector: &Connector) -> Result<Reader, StoreError> {
    let (client, _driver) = connector.own_session().await?;
    schema::check(&client, connector.schema(), &[]).await?;
    // An audit may pause for longer than a writer.
    let begin = "SET idle_in_transaction_session_timeout = 0;
                 BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM consumer";
    client
        .batch_execute(begin)
        .await
        .map_err(|error| unavailable(&error))?;
    Ok(Reader::Plain(client))
}
