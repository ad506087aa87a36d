//! The pool of reading connections. A read replaces a connection that died while idle, and tries again for a moment if
//! the server is unreachable.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};

use super::{
    connect::{Connector, describe, is_transient, unavailable},
    reader::{ReadError, Reader},
};
use crate::{Random, StoreError, backoff::Backoff};

const ATTEMPTS_MAX: u32 = 5;
const BACKOFF_MILLIS_MAX: u64 = 200;
/// How long a read waits for a free connection, and for its answer.
const WAIT_SECS_MAX: u64 = 10;

pub(super) struct ReaderPool {
    pool: Pool,
    random: Random,
}

impl ReaderPool {
    pub(super) fn new(
        connector: Connector,
        connections_max: usize,
        random: Random,
    ) -> Result<Self, StoreError> {
        let recycling_method = RecyclingMethod::Fast;
        let config = connector.config().clone();
        let manager = Manager::from_connect(config, connector, ManagerConfig { recycling_method });
        let wait = Some(Duration::from_secs(WAIT_SECS_MAX));
        let pool = Pool::builder(manager)
            .max_size(connections_max.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(wait)
            .create_timeout(wait)
            .build()
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { pool, random })
    }

    /// Runs `read`, which may run more than once.
    pub(super) async fn with<T, F: Future<Output = Result<T, ReadError>> + Send>(
        &self,
        read: impl Fn(Arc<Reader>) -> F,
    ) -> Result<T, StoreError> {
        let mut backoff = Backoff::new(&self.random, BACKOFF_MILLIS_MAX);
        let mut attempt = 1;
        loop {
            let (error, is_final) = match self.pool.get().await {
                Ok(client) => {
                    let reader = Arc::new(Reader::Pooled(client));
                    let answer = read(Arc::clone(&reader));
                    let in_time = Duration::from_secs(WAIT_SECS_MAX);
                    match tokio::time::timeout(in_time, answer).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(ReadError::Store(error))) => return Err(error),
                        Ok(Err(ReadError::Server(error))) => {
                            (unavailable(&error), !is_transient(&error))
                        }
                        Err(_) => {
                            // The next user must not get a connection with a statement under way.
                            if let Some(Reader::Pooled(client)) = Arc::into_inner(reader) {
                                drop(deadpool_postgres::Object::take(client));
                            }
                            (unreachable("PostgreSQL did not answer in time"), true)
                        }
                    }
                }
                Err(PoolError::Backend(error)) => {
                    (unreachable(&describe(&error)), !is_transient(&error))
                }
                Err(error) => (unreachable(&error.to_string()), true),
            };
            if is_final || attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

fn unreachable(reason: &str) -> StoreError {
    StoreError::Unavailable(reason.to_owned())
}
