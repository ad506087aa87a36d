//! Rows that the brokers refuse whenever they are sent: each is parked in the outbox as a dead letter, which a person
//! lists, replays or discards like any other. The row stays until that is done, and what stands behind it of its topic and
//! subject stays with it. State: in the store alone.

use super::{ROWS_MAX, Relay};
use crate::{
    Commit, CommitError, StoreError,
    dead_letters::{self, DeadLetterRecord, DeadLetterState, OUTBOX},
    kafka::producer::Refusal,
    tail::Stored,
};

impl Relay {
    /// Parks a row. Where this ends between its two steps, the row is sent, refused and parked again.
    pub(super) async fn park(&mut self, row: &Stored, reason: &str) -> Result<(), StoreError> {
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
        self.known.remove(&row.offset);
        self.metrics.messages_parked.inc();
        tracing::error!(dead_letter = %id, message.id, topic = message.topic, reason, "the brokers refuse a message; it is parked with what is behind it");
        Ok(())
    }

    /// Does what people have said about parked rows; returns how many the brokers took after all.
    pub(super) async fn follow_decisions(&mut self) -> Result<usize, StoreError> {
        self.kafka.outbox().park_followers().await?;
        let unparked = self.kafka.outbox().unparked(ROWS_MAX).await?;
        if unparked.is_empty() || !self.still_leads().await? {
            return Ok(0);
        }
        let mut published = 0;
        for row in unparked {
            let id = row.dead_letter.as_str();
            let known: Option<DeadLetterRecord> = self.store.load(id).await?;
            match known.map(|known| (known.state, known)) {
                // It was removed by hand: the row is tried again like any other.
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

    /// Sends a row again; whether the brokers have it.
    async fn replay(&mut self, row: &Stored, known: DeadLetterRecord) -> Result<bool, StoreError> {
        match self.try_alone(row).await? {
            Ok(()) => {}
            Err(Refusal::Message(reason)) => {
                self.park(row, &reason).await?;
                return Ok(false);
            }
            // It is tried again with the next look.
            Err(Refusal::Topic(_)) => return Ok(false),
            Err(Refusal::Passing(reason)) => return Err(StoreError::Unavailable(reason)),
        }
        // Where this ends before the row is removed, it is removed as one that is done with.
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

    /// Removes a row, and lets those go on that stood behind it.
    async fn remove(&mut self, row: &Stored, dead_letter: &str) -> Result<(), StoreError> {
        self.kafka.outbox().published(&[row.offset]).await?;
        self.kafka.outbox().unpark(dead_letter).await
    }

    /// Saves a dead letter, as long as this leads.
    async fn write(&mut self, record: &DeadLetterRecord) -> Result<(), StoreError> {
        let mut commit = Commit::new();
        commit.put(record);
        commit
            .fences
            .extend(self.lease.as_ref().map(|it| it.fence()));
        match self.store.commit(commit).await {
            Ok(()) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
            Err(error) => Err(StoreError::Unavailable(format!(
                "a dead letter of {OUTBOX} is written later: {error}"
            ))),
        }
    }
}
