//! How the relay sends rows: in a batch, or one by one after a rejection; and how it handles the delivery reports. State:
//! that of the relay.

use std::{collections::HashSet, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{Producer, Relay, SENDS_PER_LEASE};
use crate::{
    StoreError,
    kafka::producer::{SendError, SendLimits},
    log_cache::StoredMessage,
};

/// How long to wait for further delivery reports after a send failed.
const FAILED_MILLIS_MAX: u64 = 1_000;

/// Delivery reports of some rows. A row in neither list has none: its result is unknown.
#[derive(Default)]
struct SendResults {
    acknowledged: Vec<i64>,
    rejected: Vec<(i64, SendError)>,
}

impl Relay {
    /// Publishes rows in a batch; returns how many were acknowledged.
    pub(super) async fn publish(&mut self, rows: &[StoredMessage]) -> Result<usize, StoreError> {
        let SendResults {
            acknowledged,
            rejected,
        } = self.send(rows).await?;
        self.delete(rows, &acknowledged).await?;
        let topics_before = self.rejected_topics.len();
        let mut unreachable = Some("no acknowledgement in time".to_owned());
        for (offset, error) in rejected {
            match error {
                SendError::Message(_) => {
                    self.suspects.insert(offset);
                }
                SendError::Topic(reason) => self.pause_topic(rows, offset, &reason),
                // Usually aborted because another row was rejected.
                SendError::Transient(reason) => unreachable = unreachable.map(|_| reason),
            }
        }
        if !self.suspects.is_empty() || topics_before < self.rejected_topics.len() {
            unreachable = None;
        }
        match unreachable.filter(|_| acknowledged.is_empty()) {
            Some(reason) => Err(StoreError::Unavailable(format!("Kafka: {reason}"))),
            None => Ok(acknowledged.len()),
        }
    }

    /// Publishes the rows of the suspects' subjects one by one, for a fraction of the lease's time; parks those that are
    /// rejected. Returns how many were acknowledged.
    pub(super) async fn publish_one_by_one(
        &mut self,
        rows: &[StoredMessage],
    ) -> Result<usize, StoreError> {
        let until = Instant::now() + self.answer_timeout();
        let suspects = rows.iter().filter(|it| self.suspects.contains(&it.offset));
        let mut subjects: HashSet<_> = suspects.map(subject).collect();
        let mut published = 0;
        for row in rows {
            if Instant::now() >= until {
                break;
            }
            if !subjects.contains(&subject(row)) {
                continue;
            }
            let is_sent = match self.send_one(row).await? {
                Ok(()) => {
                    self.delete(std::slice::from_ref(row), &[row.offset])
                        .await?;
                    true
                }
                Err(SendError::Message(reason)) => {
                    self.park(row, &reason).await?;
                    false
                }
                Err(SendError::Topic(_)) => false,
                Err(SendError::Transient(reason)) => return Err(StoreError::Unavailable(reason)),
            };
            self.suspects.remove(&row.offset);
            if is_sent {
                published += 1;
            } else {
                // Later rows of the subject wait with it.
                subjects.remove(&subject(row));
            }
        }
        Ok(published)
    }

    /// Sends a row with no other in flight.
    pub(super) async fn send_one(
        &mut self,
        row: &StoredMessage,
    ) -> Result<Result<(), SendError>, StoreError> {
        let mut results = self.send(std::slice::from_ref(row)).await?;
        Ok(match (results.acknowledged.pop(), results.rejected.pop()) {
            (Some(_), _) => Ok(()),
            (None, Some((offset, error))) => {
                if let SendError::Topic(reason) = &error {
                    self.pause_topic(std::slice::from_ref(row), offset, reason);
                }
                Err(error)
            }
            (None, None) => Err(SendError::Transient(
                "no acknowledgement in time".to_owned(),
            )),
        })
    }

    /// Sends rows in their order, except those after a rejected row of their subject, and waits for the delivery reports.
    async fn send(&mut self, rows: &[StoredMessage]) -> Result<SendResults, StoreError> {
        let timeout = self.answer_timeout();
        let (producer, deliveries) = match &mut self.producer {
            Some(open) => open,
            closed => {
                let (reports, deliveries) = mpsc::unbounded_channel();
                let limits = SendLimits {
                    // No batch is in flight behind one that may be rejected.
                    requests_max: 1,
                    // A missing topic is reported before the timeout.
                    topic_millis_max: u64::try_from(timeout.as_millis() / 2).unwrap_or(1).max(1),
                };
                let producer = Producer::open(self.kafka.settings(), 0, &reports, limits)?;
                closed.insert((producer, deliveries))
            }
        };
        let (mut results, mut count, mut blocked) = (SendResults::default(), 0, HashSet::new());
        for row in rows {
            if blocked.contains(&subject(row)) {
                continue;
            }
            match producer.send(row).await {
                Ok(()) => count += 1,
                Err(error) => {
                    let is_over = matches!(error, SendError::Transient(_));
                    results.rejected.push((row.offset, error));
                    blocked.insert(subject(row));
                    if is_over {
                        break;
                    }
                }
            }
        }
        let mut until = Instant::now() + timeout;
        let mut is_whole = true;
        for _ in 0..count {
            let answer = tokio::time::timeout_at(until, deliveries.recv()).await;
            let Ok(Some(delivery)) = answer else {
                is_whole = false;
                break;
            };
            match delivery.outcome {
                Ok(()) => results.acknowledged.push(delivery.offset),
                Err(error) => {
                    is_whole = false;
                    results.rejected.push((delivery.offset, error));
                    // The producer sends nothing more, but reports of earlier sends may arrive.
                    let soon = Instant::now() + Duration::from_millis(FAILED_MILLIS_MAX);
                    until = until.min(soon);
                }
            }
        }
        let is_transient = |(_, error): &(i64, SendError)| matches!(error, SendError::Transient(_));
        if !is_whole || results.rejected.iter().any(is_transient) {
            // The producer has failed, or its late reports would be taken for those of later sends.
            self.producer = None;
        }
        Ok(results)
    }

    /// Deletes acknowledged rows. It needs no lease: an acknowledged row must be deleted in any case.
    async fn delete(&mut self, rows: &[StoredMessage], offsets: &[i64]) -> Result<(), StoreError> {
        self.kafka.outbox().published(offsets).await?;
        for offset in offsets {
            self.first_seen.remove(offset);
        }
        let is_taken = |topic: &String| {
            let mut taken = rows.iter().filter(|row| offsets.contains(&row.offset));
            taken.any(|row| row.message.topic == *topic)
        };
        self.rejected_topics.retain(|topic, _| !is_taken(topic));
        Ok(())
    }

    fn pause_topic(&mut self, rows: &[StoredMessage], offset: i64, reason: &str) {
        let Some(row) = rows.iter().find(|row| row.offset == offset) else {
            return;
        };
        let topic = &row.message.topic;
        if self
            .rejected_topics
            .insert(topic.clone(), self.clock.now())
            .is_none()
        {
            tracing::error!(
                topic,
                reason,
                "the brokers reject a topic; its messages wait in the outbox"
            );
        }
        self.metrics
            .topics_refused
            .set(self.rejected_topics.len() as i64);
    }

    /// How long to wait for delivery reports.
    fn answer_timeout(&self) -> Duration {
        let millis = self.kafka.settings().relay_lease_millis / SENDS_PER_LEASE;
        Duration::from_millis(u64::try_from(millis).unwrap_or(1))
    }
}

/// Rows of the same subject are sent in order.
fn subject(row: &StoredMessage) -> (String, String) {
    let message = &row.message;
    (message.topic.clone(), message.ordered_by().to_owned())
}
