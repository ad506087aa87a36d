//! Dead letters: a message that a consumer rejected is reissued to that consumer alone, on schedule, and is then parked
//! for a person, who can list, inspect, replay and discard it ([`operations`]).
//!
//! State: one [`DeadLetterRecord`] each, and a timer for the next reissue.

pub mod operations;
mod payload;

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{
    Commit, Consumer, DeadLetterId, Decision, Group, Message, Payload, Records, Rejection,
    Timestamp,
    id::derive,
    log_limit::LogLimit,
    message::indexable,
    record::{Column, Record, Ref, Table},
};

pub use operations::{Error, discard, list, replay, show};
pub use payload::{DeadLetter, DeadLetterResolved};

/// The longest payload, in bytes, whose dead letter is published on the bus. There it is a text within JSON, up to six
/// times as long, and brokers refuse a record of a million bytes. That of a longer one is written into the store directly.
pub const PUBLISHED_PAYLOAD_BYTES_MAX: usize = 128 * 1_024;
/// How many characters are kept of a payload whose dead letter the store refuses.
const STRIPPED_PAYLOAD_CHARS_MAX: usize = 1_000;

/// How rejected messages are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterSettings {
    pub max_retry_count: u32,
    pub retry_interval_millis: u64,
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self {
            max_retry_count: 3,
            retry_interval_millis: 10_000,
        }
    }
}

impl DeadLetterSettings {
    /// The dead letter for a message that `group` rejected. A reissued message keeps the dead letter it came from.
    pub(crate) fn letter(
        &self,
        group: &str,
        message: &Message,
        rejection: &Rejection,
        now: Timestamp,
    ) -> DeadLetter {
        let (event_id, retry_count, message_id) = match &message.reissue {
            Some(reissue) => (
                reissue.dead_letter,
                reissue.count,
                reissue.message_id.clone(),
            ),
            None => (first_id(group, message), 0, message.inbox_id().into_owned()),
        };
        DeadLetter {
            event_id,
            retry_count,
            max_retry_count: self.max_retry_count,
            retry_interval_millis: self.retry_interval_millis,
            time_stamp: now,
            reason: rejection.reason.clone(),
            reissued_topic: message.topic.clone(),
            reissued_key: message.key.clone(),
            reissued_payload: message.payload.clone(),
            group: group.to_owned(),
            message_id,
            traceparent: message.trace.map(|trace| trace.to_string()),
        }
    }
}

/// The dead letter for a timer's message that cannot be published. A retry would fail in the same way, so it is parked at
/// once. No group has rejected it, unless the timer was to reissue a dead letter: then it is that one.
pub(crate) fn of_timer(message: &Message, rejection: &Rejection, now: Timestamp) -> DeadLetter {
    let group = message.reissue.as_ref().map_or("", |it| it.group.as_str());
    let letter = DeadLetterSettings::default().letter(group, message, rejection, now);
    DeadLetter {
        max_retry_count: letter.retry_count,
        ..letter
    }
}

/// The message that publishes a dead letter.
pub(crate) fn message(letter: &DeadLetter, now: Timestamp) -> Message {
    let id = format!("{}:{}", letter.event_id, letter.retry_count);
    Message::new(id, letter, now)
}

/// Whether the dead letter of this message would be too large for the bus.
pub(crate) fn is_large(message: &Message) -> bool {
    message.payload.len() > PUBLISHED_PAYLOAD_BYTES_MAX
}

/// The dead letter that this message is, or becomes if `group` rejects it.
pub(crate) fn id_of(group: &str, message: &Message) -> DeadLetterId {
    let reissue = message.reissue.as_ref();
    reissue.map_or_else(|| first_id(group, message), |it| it.dead_letter)
}

/// A Commit that sends the dead letter to the dead letters' group.
pub(crate) fn publish(letter: &DeadLetter, now: Timestamp) -> Commit {
    let mut commit = Commit::new();
    commit.publish(message(letter, now));
    commit
}

/// What the dead letters' group does on receipt; its outcome is the letter if it is parked.
pub(crate) fn record(
    letter: DeadLetter,
    known: Option<DeadLetterRecord>,
    now: Timestamp,
) -> Decision<Option<DeadLetter>> {
    if known.as_ref().is_some_and(|known| is_over(known, &letter)) {
        return Decision::default();
    }
    schedule(letter, known, now)
}

/// A Commit that closes it: its message was handled.
pub(crate) fn resolved(mut record: DeadLetterRecord, now: Timestamp) -> Commit {
    record.state = DeadLetterState::Resolved;
    record.updated_at = now;
    let mut commit = Commit::new();
    commit.cancel_timer(timer_id(record.id)).put(&record);
    commit
}

/// What every store takes of a dead letter. It cannot be reissued, so it is parked at once.
pub(crate) fn stripped(letter: DeadLetter) -> DeadLetter {
    let payload = letter.reissued_payload.chars();
    let is_plain = |it: &char| !it.is_control();
    DeadLetter {
        retry_count: letter.max_retry_count.max(letter.retry_count),
        reason: Rejection::new(format_args!(
            "the store refuses its dead letter, so only the beginning of its payload is kept: {}",
            letter.reason
        ))
        .reason,
        reissued_key: indexable(&letter.reissued_key).into_owned(),
        reissued_payload: payload
            .filter(is_plain)
            .take(STRIPPED_PAYLOAD_CHARS_MAX)
            .collect(),
        traceparent: None,
        ..letter
    }
}

/// Stable: the same message rejected by the same group is the same dead letter.
fn first_id(group: &str, message: &Message) -> DeadLetterId {
    let millis = u64::try_from(message.time.as_millis()).unwrap_or(0);
    let time = uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid();
    DeadLetterId(derive(time, &format!("{group}\n{}", message.id)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeadLetterState {
    /// Is reissued on schedule.
    Waiting,
    /// Needs a person.
    Parked,
    /// A person reissued it; it was not rejected since.
    Replayed,
    /// It was handled.
    Resolved,
    /// A person closed it without handling it.
    Discarded,
}

/// A dead letter as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetterRecord {
    pub id: DeadLetterId,
    pub state: DeadLetterState,
    pub letter: DeadLetter,
    pub reissues: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

impl Record for DeadLetterRecord {
    const TABLE: &'static Table = &Table {
        name: "dead_letter",
        columns: &[
            Column::text("id"),
            Column::text("state"),
            Column::json("letter"),
            Column::integer("reissues"),
            Column::text("created_at"),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "id",
        constraints: &[],
        indexes: &["(state)"],
    };
}

/// Stands for the group in the dead letter of a message that the brokers refuse. The message is still in the outbox: the
/// relay sends it again after a replay, and removes it after a discard.
pub const OUTBOX: &str = "outbox";

/// The consumer group of dead letters.
pub const GROUP: Group = Group {
    name: "dead-letter",
    topics: &[DeadLetter::TOPIC, DeadLetterResolved::TOPIC],
};

/// Schedules rejected messages, and closes those that were handled.
#[derive(Debug, Default)]
pub struct DeadLetterConsumer {
    log: LogLimit,
}

/// What the dead letters' group reads.
pub enum DeadLetterMessage {
    Rejected(Box<DeadLetter>),
    Resolved(DeadLetterResolved),
}

impl Consumer for DeadLetterConsumer {
    type Input = DeadLetterMessage;
    type Prefetched = ();
    /// The letter, if it is parked.
    type Outcome = Option<DeadLetter>;

    fn group(&self) -> Group {
        GROUP
    }

    fn read(&self, message: &Message) -> Result<DeadLetterMessage, Rejection> {
        if message.topic == DeadLetter::TOPIC {
            message.parse().map(DeadLetterMessage::Rejected)
        } else {
            message.parse().map(DeadLetterMessage::Resolved)
        }
    }

    fn required_records(&self, input: &DeadLetterMessage) -> Vec<Ref> {
        let id = match input {
            DeadLetterMessage::Rejected(letter) => letter.event_id,
            DeadLetterMessage::Resolved(resolved) => resolved.event_id,
        };
        vec![Ref::to::<DeadLetterRecord>(id)]
    }

    fn decide(
        &self,
        _message: &Message,
        input: &DeadLetterMessage,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Decision<Option<DeadLetter>>, Rejection> {
        match input {
            DeadLetterMessage::Rejected(letter) => {
                let known = records.get::<DeadLetterRecord>(letter.event_id)?;
                Ok(record(letter.as_ref().clone(), known, now))
            }
            DeadLetterMessage::Resolved(resolved) => {
                let known = records.get::<DeadLetterRecord>(resolved.event_id)?;
                let commit = known.map_or_else(Commit::new, |known| self::resolved(known, now));
                Ok(commit.into())
            }
        }
    }

    fn committed(&self, parked: Option<DeadLetter>) {
        if let Some(letter) = parked
            && let Some(suppressed) = self.log.admit(Instant::now())
        {
            tracing::error!(dead_letter = %letter.event_id, group = letter.group, reason = letter.reason, suppressed, "a dead letter is parked");
        }
    }
}

/// Whether a rejection is outdated: the dead letter is closed, or a newer reissue is on its way.
fn is_over(known: &DeadLetterRecord, letter: &DeadLetter) -> bool {
    match known.state {
        DeadLetterState::Resolved | DeadLetterState::Discarded => true,
        DeadLetterState::Waiting | DeadLetterState::Parked | DeadLetterState::Replayed => {
            letter.retry_count < known.reissues
        }
    }
}

/// Reissues after the interval, or parks. A letter that names no group, of another service, is parked at once: there is no
/// group to reissue it to, and its writer may retry by itself.
fn schedule(
    mut letter: DeadLetter,
    known: Option<DeadLetterRecord>,
    now: Timestamp,
) -> Decision<Option<DeadLetter>> {
    if letter.message_id.is_empty() {
        letter.message_id = letter.event_id.to_string();
    }
    let mut record = known.unwrap_or_else(|| DeadLetterRecord {
        id: letter.event_id,
        state: DeadLetterState::Waiting,
        letter: letter.clone(),
        reissues: 0,
        created_at: now,
        updated_at: now,
        version: 0,
    });
    record.updated_at = now;
    record.letter = letter;
    let mut commit = Commit::new();
    let is_exhausted = record.letter.retry_count >= record.letter.max_retry_count;
    if is_exhausted || record.letter.group.is_empty() {
        record.state = DeadLetterState::Parked;
    } else {
        record.state = DeadLetterState::Waiting;
        record.reissues = record.letter.retry_count + 1;
        let wait = i64::try_from(record.letter.retry_interval_millis).unwrap_or(i64::MAX);
        let message = Message::reissued(&record.letter, record.reissues, now);
        commit.set_timer(timer_id(record.id), now.plus_millis(wait), message);
    }
    commit.put(&record);
    let is_parked = record.state == DeadLetterState::Parked;
    Decision {
        commit,
        outcome: is_parked.then_some(record.letter),
    }
}

fn timer_id(id: DeadLetterId) -> String {
    format!("dead-letter/{id}")
}

/// The id of the dead letter of a message that the brokers refuse.
#[cfg(feature = "kafka")]
pub(crate) fn id_of_refused(message: &Message) -> DeadLetterId {
    first_id(OUTBOX, message)
}

/// The dead letter of a message that the brokers refuse, or refuse once more. It is parked.
#[cfg(feature = "kafka")]
pub(crate) fn refused_by_brokers(
    message: &Message,
    known: Option<DeadLetterRecord>,
    reason: &str,
    now: Timestamp,
) -> DeadLetterRecord {
    let once = DeadLetterSettings {
        max_retry_count: 0,
        retry_interval_millis: 0,
    };
    let reason = format_args!("the brokers refuse it: {reason}");
    // A reissued message too gets a dead letter of its own here.
    let message = Message {
        reissue: None,
        ..message.clone()
    };
    let letter = once.letter(OUTBOX, &message, &Rejection::new(reason), now);
    let (reissues, created_at, version) = known.map_or((0, now, 0), |known| {
        (known.reissues, known.created_at, known.version)
    });
    DeadLetterRecord {
        id: letter.event_id,
        state: DeadLetterState::Parked,
        letter,
        reissues,
        created_at,
        updated_at: now,
        version,
    }
}
