//! A message: one record on the bus.

use contract::{Payload, Timestamp, dead_letter::DeadLetter};

use crate::TraceContext;

/// One record on the bus. Its id is stable: whoever decides the same thing again publishes the same id, and
/// consumers drop what they have already seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub topic: String,
    /// Messages of one key are handled in the order in which they were committed.
    pub key: String,
    /// The aggregate that it tells of, where the key stands for more than one: then only messages of one subject have
    /// an order of commits, and those of the others need not wait for each other before they are on the bus.
    pub subject: Option<String>,
    pub time: Timestamp,
    /// JSON.
    pub payload: String,
    /// Set on a message that is issued again: only that group sees it.
    pub reissue: Option<Reissue>,
    /// The request that it goes back to. The [`Commit`](crate::Commit) that publishes it sets it.
    pub trace: Option<TraceContext>,
}

/// Marks a message as a dead letter on its way back to the group that rejected it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reissue {
    pub group: String,
    pub dead_letter: contract::DeadLetterId,
    /// Which reissue this is, from 1.
    pub count: u32,
    /// The id of the message that was rejected first.
    pub message_id: String,
}

impl Reissue {
    /// The inbox mark that all reissues of a dead letter share: whichever is handled first is the only one.
    pub(crate) fn mark(&self) -> String {
        format!("{}:handled", self.dead_letter)
    }
}

/// A message that this consumer will never be able to handle as things stand: it becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    pub reason: String,
}

impl Rejection {
    pub fn new(reason: impl std::fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
        }
    }
}

impl Message {
    pub fn new<P: Payload>(id: impl Into<String>, payload: &P, now: Timestamp) -> Self {
        Self {
            id: id.into(),
            topic: P::TOPIC.to_owned(),
            key: payload.key(),
            subject: payload.subject(),
            time: now,
            payload: serde_json::to_string(payload).expect("a payload has string keys only"),
            reissue: None,
            trace: None,
        }
    }

    /// # Errors
    /// A [`Rejection`] naming topic and field where the payload is not what the topic promises.
    pub fn parse<P: Payload>(&self) -> Result<P, Rejection> {
        serde_json::from_str(&self.payload).map_err(|error| {
            Rejection::new(format_args!(
                "the payload of {} cannot be read: {error}",
                self.topic
            ))
        })
    }

    /// The message that goes back to the group that rejected it, as reissue number `count`. If no group has, it was
    /// never published, and is as it was to be: for every group, under its own id.
    #[must_use]
    pub fn reissued(letter: &DeadLetter, count: u32, now: Timestamp) -> Self {
        let reissue = (!letter.group.is_empty()).then(|| Reissue {
            group: letter.group.clone(),
            dead_letter: letter.event_id,
            count,
            message_id: letter.message_id.clone(),
        });
        let id = match reissue {
            None if !letter.message_id.is_empty() => letter.message_id.clone(),
            None | Some(_) => format!("{}:{count}", letter.event_id),
        };
        Self {
            id,
            topic: letter.reissued_topic.clone(),
            key: letter.reissued_key.clone(),
            subject: None,
            time: now,
            payload: letter.reissued_payload.clone(),
            reissue,
            trace: letter.traceparent.as_deref().and_then(TraceContext::parse),
        }
    }

    /// What orders it before it is on the bus: its subject, or its key where that says as much.
    #[cfg(feature = "kafka")]
    pub(crate) fn ordered_by(&self) -> &str {
        self.subject.as_ref().unwrap_or(&self.key)
    }

    /// Whether `group`, subscribed to `topics`, is to see this message.
    #[must_use]
    pub fn is_for(&self, group: &str, topics: &[&str]) -> bool {
        topics.contains(&self.topic.as_str())
            && self
                .reissue
                .as_ref()
                .is_none_or(|reissue| reissue.group == group)
    }
}
