//! Rows that the brokers reject whenever they are sent. Each is parked in the outbox and gets a dead letter, which an
//! operator lists, replays or discards like any other. Until then the row stays, with the later rows of its topic and
//! subject. State: in the store alone.

use super::{ROWS_MAX, Relay};
use crate::{
    Commit, CommitError, StoreError,
    dead_letters::{self, DeadLetterRecord, DeadLetterState, OUTBOX},
    kafka::producer::SendError,
    log_cache::StoredMessage,
};

impl Relay {
    /// Parks a row. After a crash between the two steps, the row is sent, rejected and parked again.
    pub(super) async fn park(
        &mut self,
        row: &StoredMessage,
        reason: &str,
    ) -> Result<(), StoreError> {
        let message = &row.message;
        let id = dead_letters::id_of_refused(message);
        let known: Option<DeadLetterRecord> = self.store.load(id).await?;
        let now = self.clock.now();
        let record = dead_letters::refused_by_brokers(message, known, reason, now);
        self.write(&record).await?;
        self.kafka
            .outbox()
            .park(row.offset, &id.to_string())
            .await?;
        self.first_seen.remove(&row.offset);
        self.metrics.messages_parked.inc();
        tracing::error!(dead_letter = %id, message.id, topic = message.topic, reason, "the brokers reject a message; it is parked with the later ones of its subject");
        Ok(())
    }

    /// Applies what operators decided about parked rows; returns how many rows the brokers acknowledged.
    pub(super) async fn apply_decisions(&mut self) -> Result<usize, StoreError> {
        self.kafka.outbox().park_followers().await?;
        let unparked = self.kafka.outbox().unparked(ROWS_MAX).await?;
        if unparked.is_empty() || !self.verify_lease().await? {
            return Ok(0);
        }
        let mut published = 0;
        for row in unparked {
            let id = row.dead_letter.as_str();
            let known: Option<DeadLetterRecord> = self.store.load(id).await?;
            match known.map(|known| (known.state, known)) {
                // The dead letter was deleted by hand: the row is published like any other.
                None => self.kafka.outbox().unpark(id).await?,
                Some((DeadLetterState::Parked, _)) => {}
                Some((DeadLetterState::Waiting | DeadLetterState::Replayed, known)) => {
                    if self.replay(&row.stored, known).await? {
                        published += 1;
                    }
                }
                Some((DeadLetterState::Resolved | DeadLetterState::Discarded, _)) => {
                    self.remove(&row.stored, id).await?;
                }
            }
        }
        Ok(published)
    }

    /// Sends a parked row again; returns whether the brokers acknowledged it.
    async fn replay(
        &mut self,
        row: &StoredMessage,
        known: DeadLetterRecord,
    ) -> Result<bool, StoreError> {
        match self.send_one(row).await? {
            Ok(()) => {}
            Err(SendError::Message(reason)) => {
                self.park(row, &reason).await?;
                return Ok(false);
            }
            // The next round retries it.
            Err(SendError::Topic(_)) => return Ok(false),
            Err(SendError::Transient(reason)) => return Err(StoreError::Unavailable(reason)),
        }
        // After a crash before the removal, the resolved dead letter lets the next round remove the row.
        let id = known.id.to_string();
        self.write(&DeadLetterRecord {
            state: DeadLetterState::Resolved,
            updated_at: self.clock.now(),
            ..known
        })
        .await?;
        self.remove(row, &id).await?;
        Ok(true)
    }

    /// Deletes a row, and unparks the later rows of its subject.
    async fn remove(&mut self, row: &StoredMessage, dead_letter: &str) -> Result<(), StoreError> {
        self.kafka.outbox().published(&[row.offset]).await?;
        self.kafka.outbox().unpark(dead_letter).await
    }

    /// Saves a dead letter under the lease's fence.
    async fn write(&mut self, record: &DeadLetterRecord) -> Result<(), StoreError> {
        let mut commit = Commit::new();
        commit.put(record).fenced_by(self.fence.clone());
        match self.store.commit(commit).await {
            Ok(()) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Unavailable(format!(
                "cannot save a dead letter of {OUTBOX}; it is retried: {error}"
            ))),
        }
    }
}
