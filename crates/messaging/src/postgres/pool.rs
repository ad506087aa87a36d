//! The reading connections, and patience with them: a connection that died while nobody looked is replaced, a server
//! that is away is tried again for a moment.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};

use super::{
    connect::{Connector, describe, may_pass, unavailable},
    reader::{ReadError, Reader},
};
use crate::{Random, StoreError, backoff::Backoff};

const ATTEMPTS_MAX: u32 = 5;
const BACKOFF_MILLIS_MAX: u64 = 200;
/// How long a read waits for a connection that others hold, and for its answer.
const WAIT_SECS_MAX: u64 = 10;

pub(super) struct Readers {
    pool: Pool,
    random: Random,
}

impl Readers {
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

    /// Runs `read`, which must be one that may run twice.
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
                            (unavailable(&error), !may_pass(&error))
                        }
                        Err(_) => {
                            // Whatever hangs on this connection must not meet its next user.
                            if let Some(Reader::Pooled(client)) = Arc::into_inner(reader) {
                                drop(deadpool_postgres::Object::take(client));
                            }
                            (away("no answer in time"), true)
                        }
                    }
                }
                Err(PoolError::Backend(error)) => (away(&describe(&error)), !may_pass(&error)),
                Err(error) => (away(&error.to_string()), true),
            };
            if is_final || attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

fn away(reason: &str) -> StoreError {
    StoreError::Unavailable(reason.to_owned())
}
