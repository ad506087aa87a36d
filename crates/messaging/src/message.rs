//! A message: one record on the bus.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

use crate::{DeadLetterId, Payload, Timestamp, TraceContext, dead_letters::DeadLetter, sha256};

/// The longest id or key, in bytes, that is kept as it is. An index of PostgreSQL takes rows of 2,704 bytes at most, and
/// ids that are derived from this one are longer.
pub const NAME_BYTES_MAX: usize = 1_024;
/// The longest reason of a rejection, in characters: one that quotes a payload would be as long as the payload.
pub const REASON_CHARS_MAX: usize = 1_000;

/// A name that every index and every text column takes: one that is long or has control characters becomes its digest.
pub(crate) fn indexable(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(sha256(&[name.as_bytes()]).name())
}

/// The topic of the reply to a request on this topic, which ends with `.request`.
pub(crate) fn response_topic(request: &str) -> Option<String> {
    let stem = request.strip_suffix(".request")?;
    Some(format!("{stem}.response"))
}

/// Whether a JSON text escapes U+0000. PostgreSQL cannot store that character, so no store may.
fn escapes_nul(json: &str) -> bool {
    json.match_indices("u0000").any(|(at, _)| {
        let before = json[..at].bytes().rev();
        before.take_while(|byte| *byte == b'\\').count() % 2 == 1
    })
}

/// One record on the bus. Its id is stable: a decision that is repeated publishes the same id, and consumers drop ids
/// that they have seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub topic: String,
    /// Messages of one key are handled in the order in which they were committed.
    pub key: String,
    /// The aggregate that it describes, if the key stands for several: then only messages of one subject keep the order
    /// of their commits, and those of different subjects do not wait for each other on their way to the bus.
    pub subject: Option<String>,
    pub time: Timestamp,
    /// JSON.
    pub payload: String,
    /// Set on a reissued message: only that group sees it.
    pub reissue: Option<Reissue>,
    /// The request that caused it. The [`Commit`](crate::Commit) that publishes it sets it.
    pub trace: Option<TraceContext>,
}

/// Marks a message as a dead letter on its way back to the group that rejected it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reissue {
    pub group: String,
    pub dead_letter: DeadLetterId,
    /// Which reissue this is, from 1.
    pub count: u32,
    /// The id of the message that was rejected first.
    pub message_id: String,
}

impl Reissue {
    /// The inbox mark that all reissues of a dead letter share, so that only one of them is handled.
    pub(crate) fn mark(&self) -> String {
        format!("{}:handled", self.dead_letter)
    }
}

/// Why a consumer cannot handle a message: it becomes a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    pub reason: String,
}

impl Rejection {
    /// The reason is cut at [`REASON_CHARS_MAX`] characters and cleared of those that a store refuses.
    pub fn new(reason: impl std::fmt::Display) -> Self {
        let mut reason = reason.to_string().replace('\0', "\u{FFFD}");
        if let Some((end, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
            reason.truncate(end);
            reason.push('…');
        }
        Self { reason }
    }
}

impl Message {
    /// An id that an index might refuse becomes its digest.
    pub fn new<P: Payload>(id: impl Into<String>, payload: &P, now: Timestamp) -> Self {
        Self {
            subject: payload.subject(),
            ..Self::on(P::TOPIC, payload.key(), id, payload, now)
        }
    }

    /// As [`Message::new`], for a payload whose topic is not fixed by its type.
    pub fn on(
        topic: impl Into<String>,
        key: String,
        id: impl Into<String>,
        payload: &impl Serialize,
        now: Timestamp,
    ) -> Self {
        let id = id.into();
        let digest = match indexable(&id) {
            Cow::Borrowed(_) => None,
            Cow::Owned(digest) => Some(digest),
        };
        Self {
            id: digest.unwrap_or(id),
            topic: topic.into(),
            key,
            subject: None,
            time: now,
            payload: serde_json::to_string(payload).expect("a payload has string keys only"),
            reissue: None,
            trace: None,
        }
    }

    /// The reply to this request. Its id derives from the request's, so that deciding again gives the same.
    #[must_use]
    pub fn reply<P: Payload>(&self, response: &P, now: Timestamp) -> Self {
        Self::new(format!("{}:response", self.id), response, now)
    }

    /// As [`Message::reply`], for a payload whose topic is not fixed by its type: with the request's key, and on its topic
    /// with `.response` for `.request`.
    #[must_use]
    pub fn reply_untyped(&self, response: &impl Serialize, now: Timestamp) -> Self {
        let topic = response_topic(&self.topic).unwrap_or_else(|| self.topic.clone());
        let id = format!("{}:response", self.id);
        Self::on(topic, self.key.clone(), id, response, now)
    }

    /// # Errors
    /// A [`Rejection`] naming topic and field if the payload does not have the topic's form.
    pub fn parse<P: DeserializeOwned>(&self) -> Result<P, Rejection> {
        if escapes_nul(&self.payload) {
            return Err(Rejection::new(format_args!(
                "the payload of {} has a text with U+0000",
                self.topic
            )));
        }
        serde_json::from_str(&self.payload).map_err(|error| {
            Rejection::new(format_args!(
                "the payload of {} cannot be read: {error}",
                self.topic
            ))
        })
    }

    /// The message that goes back to the group that rejected it, as reissue number `count`. If no group did, it was never
    /// published: it goes to every group, under its own id.
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
            // Not the id of a message about the dead letter: its group could be that of the dead letters.
            None | Some(_) => format!("{}:reissue:{count}", letter.event_id),
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

    /// Its id in the inbox.
    pub(crate) fn inbox_id(&self) -> Cow<'_, str> {
        indexable(&self.id)
    }

    /// What orders it on its way to the bus: its subject, or its key.
    #[cfg(feature = "kafka")]
    pub(crate) fn ordered_by(&self) -> &str {
        self.subject.as_ref().unwrap_or(&self.key)
    }

    /// Whether it is for `group`, which is subscribed to `topics`.
    #[must_use]
    pub fn is_for(&self, group: &str, topics: &[&str]) -> bool {
        topics.contains(&self.topic.as_str())
            && self
                .reissue
                .as_ref()
                .is_none_or(|reissue| reissue.group == group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_stays_and_any_other_becomes_a_digest_that_is_its_own() {
        let longest = "x".repeat(NAME_BYTES_MAX);
        for plain in ["", "a", "0192f0c1-2f00-7abc", "일 이", &longest] {
            assert_eq!(indexable(plain), plain);
        }
        let longer = "x".repeat(NAME_BYTES_MAX + 1);
        let odd = ["a\0", "a\0b", "a\nb", "\u{85}", &longer];
        let digests: std::collections::HashSet<_> = odd.map(indexable).into();
        assert_eq!(digests.len(), odd.len());
        for digest in &digests {
            assert!(
                digest.starts_with("sha256:") && digest.len() == 71,
                "{digest}"
            );
            assert_eq!(indexable(digest), *digest);
        }
    }

    #[test]
    fn an_escaped_nul_is_told_from_an_escaped_backslash_before_the_same_letters() {
        for (json, is_nul) in [
            (r#""\u0000""#, true),
            (r#""a\\\u0000""#, true),
            (r#""\\u0000""#, false),
            (r#""u0000""#, false),
            (r#""\u00001""#, true),
            (r#""\u0001""#, false),
        ] {
            assert_eq!(escapes_nul(json), is_nul, "{json}");
            let parsed: String = serde_json::from_str(json).unwrap();
            assert_eq!(parsed.contains('\0'), is_nul, "{json}");
        }
    }

    #[test]
    fn a_reason_is_short_and_has_nothing_that_a_store_refuses() {
        let reason = Rejection::new("\0é".repeat(REASON_CHARS_MAX)).reason;
        assert_eq!(reason.chars().count(), REASON_CHARS_MAX + 1);
        assert!(!reason.contains('\0') && reason.ends_with('…'));
    }
}
