//! How the relay sends rows: together, or where one of them is refused, alone; and what it makes of the answers. State:
//! that of the relay.

use std::{collections::HashSet, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::{Producer, RENEWALS_PER_LEASE, Relay};
use crate::{
    StoreError,
    kafka::producer::{Haste, Refusal},
    tail::Stored,
};

/// How long answers are waited for once a send has failed.
const FAILED_MILLIS_MAX: u64 = 1_000;

/// What became of some rows; of those in neither list nobody knows.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<i64>,
    refused: Vec<(i64, Refusal)>,
}

impl Relay {
    /// Publishes rows together; returns how many the brokers have.
    pub(super) async fn publish(&mut self, rows: &[Stored]) -> Result<usize, StoreError> {
        let Sent {
            acknowledged,
            refused,
        } = self.send(rows).await?;
        self.delete(rows, &acknowledged).await?;
        let refused_topics = self.refused.len();
        let mut away = Some("no answer in time".to_owned());
        for (offset, refusal) in refused {
            match refusal {
                Refusal::Message(_) => {
                    self.suspects.insert(offset);
                }
                Refusal::Topic(reason) => self.refuse_topic(rows, offset, &reason),
                // Mostly given up together with one of the others.
                Refusal::Passing(reason) => away = away.map(|_| reason),
            }
        }
        if !self.suspects.is_empty() || refused_topics < self.refused.len() {
            away = None;
        }
        match away.filter(|_| acknowledged.is_empty()) {
            Some(reason) => Err(StoreError::Unavailable(format!("Kafka: {reason}"))),
            None => Ok(acknowledged.len()),
        }
    }

    /// Publishes the subjects of suspects row by row, for a part of the lease's time; parks what is refused. Returns how
    /// many the brokers have.
    pub(super) async fn publish_alone(&mut self, rows: &[Stored]) -> Result<usize, StoreError> {
        let until = Instant::now() + self.patience();
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
            let is_sent = match self.try_alone(row).await? {
                Ok(()) => {
                    self.delete(std::slice::from_ref(row), &[row.offset])
                        .await?;
                    true
                }
                Err(Refusal::Message(reason)) => {
                    self.park(row, &reason).await?;
                    false
                }
                Err(Refusal::Topic(_)) => false,
                Err(Refusal::Passing(reason)) => return Err(StoreError::Unavailable(reason)),
            };
            self.suspects.remove(&row.offset);
            if is_sent {
                published += 1;
            } else {
                // What is behind it waits with it.
                subjects.remove(&subject(row));
            }
        }
        Ok(published)
    }

    pub(super) async fn try_alone(
        &mut self,
        row: &Stored,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let mut sent = self.send(std::slice::from_ref(row)).await?;
        Ok(match (sent.acknowledged.pop(), sent.refused.pop()) {
            (Some(_), _) => Ok(()),
            (None, Some((offset, refusal))) => {
                if let Refusal::Topic(reason) = &refusal {
                    self.refuse_topic(std::slice::from_ref(row), offset, reason);
                }
                Err(refusal)
            }
            (None, None) => Err(Refusal::Passing("no answer in time".to_owned())),
        })
    }

    /// Sends rows in their order, none behind one of its subject that was refused, and waits for the answers.
    async fn send(&mut self, rows: &[Stored]) -> Result<Sent, StoreError> {
        let patience = self.patience();
        let (producer, deliveries) = match &mut self.producer {
            Some(open) => open,
            closed => {
                let (told, deliveries) = mpsc::unbounded_channel();
                let haste = Haste {
                    // Nothing is under way behind what may be refused.
                    requests_max: 1,
                    // It is answered within the patience.
                    topic_millis_max: u64::try_from(patience.as_millis() / 2).unwrap_or(1).max(1),
                };
                let producer = Producer::open(self.kafka.settings(), 0, &told, haste)?;
                closed.insert((producer, deliveries))
            }
        };
        let (mut sent, mut count, mut behind) = (Sent::default(), 0, HashSet::new());
        for row in rows {
            if behind.contains(&subject(row)) {
                continue;
            }
            match producer.send(row).await {
                Ok(()) => count += 1,
                Err(refusal) => {
                    let is_over = matches!(refusal, Refusal::Passing(_));
                    sent.refused.push((row.offset, refusal));
                    behind.insert(subject(row));
                    if is_over {
                        break;
                    }
                }
            }
        }
        let mut until = Instant::now() + patience;
        let mut is_whole = true;
        for _ in 0..count {
            let answer = tokio::time::timeout_at(until, deliveries.recv()).await;
            let Ok(Some(delivery)) = answer else {
                is_whole = false;
                break;
            };
            match delivery.outcome {
                Ok(()) => sent.acknowledged.push(delivery.offset),
                Err(refusal) => {
                    is_whole = false;
                    sent.refused.push((delivery.offset, refusal));
                    // It sends nothing any more, but what it has sent may be answered.
                    let soon = Instant::now() + Duration::from_millis(FAILED_MILLIS_MAX);
                    until = until.min(soon);
                }
            }
        }
        let is_passing = |(_, refusal): &(i64, Refusal)| matches!(refusal, Refusal::Passing(_));
        if !is_whole || sent.refused.iter().any(is_passing) {
            // Its stream has ended, or answers that come later belong to nothing.
            self.producer = None;
        }
        Ok(sent)
    }

    /// What the brokers have is done with, whoever leads now.
    async fn delete(&mut self, rows: &[Stored], offsets: &[i64]) -> Result<(), StoreError> {
        self.kafka.outbox().published(offsets).await?;
        for offset in offsets {
            self.known.remove(offset);
        }
        let is_taken = |topic: &String| {
            let mut taken = rows.iter().filter(|row| offsets.contains(&row.offset));
            taken.any(|row| row.message.topic == *topic)
        };
        self.refused.retain(|topic, _| !is_taken(topic));
        Ok(())
    }

    fn refuse_topic(&mut self, rows: &[Stored], offset: i64, reason: &str) {
        let Some(row) = rows.iter().find(|row| row.offset == offset) else {
            return;
        };
        let topic = &row.message.topic;
        if self
            .refused
            .insert(topic.clone(), self.clock.now())
            .is_none()
        {
            tracing::error!(
                topic,
                reason,
                "the brokers take nothing of a topic; its messages wait"
            );
        }
        self.metrics.topics_refused.set(self.refused.len() as i64);
    }

    /// How long answers are waited for.
    fn patience(&self) -> Duration {
        let millis = self.kafka.settings().relay_lease_millis / RENEWALS_PER_LEASE;
        Duration::from_millis(u64::try_from(millis).unwrap_or(1))
    }
}

/// What orders a row.
fn subject(row: &Stored) -> (String, String) {
    let message = &row.message;
    (message.topic.clone(), message.ordered_by().to_owned())
}
