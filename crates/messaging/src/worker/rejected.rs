//! What a handled message leaves in its Commit: its inbox mark and, if it was rejected, a dead letter.

use std::{collections::HashMap, time::Instant};

use super::{Consumer, Records, Worker};
use crate::{
    Commit, Message, Ref, Rejection, Timestamp,
    commit::Handled,
    dead_letters::{self, DeadLetterRecord, DeadLetterResolved},
    message::Reissue,
};

/// Messages whose decision violates a constraint: deciding again would violate it again.
pub(super) struct Rejected {
    messages: HashMap<String, RejectedMessage>,
    /// Whether a refused dead letter may be stripped to what every store takes.
    may_be_stripped: bool,
}

#[derive(Clone)]
pub(super) struct RejectedMessage {
    rejection: Rejection,
    /// The store refuses its dead letter too: only what every store takes is left of it.
    is_stripped: bool,
}

impl Rejected {
    pub(super) fn new(may_be_stripped: bool) -> Self {
        Self {
            messages: HashMap::new(),
            may_be_stripped,
        }
    }

    /// The second time, the store has refused the dead letter itself.
    pub(super) fn add(&mut self, message: &Message, rejection: Rejection) {
        let is_stripped = self.may_be_stripped && self.messages.contains_key(&message.id);
        let rejected_message = RejectedMessage {
            rejection,
            is_stripped,
        };
        self.messages.insert(message.id.clone(), rejected_message);
    }

    pub(super) fn check(&self, message: &Message) -> Result<(), RejectedMessage> {
        self.messages.get(&message.id).cloned().map_or(Ok(()), Err)
    }
}

impl From<&Rejection> for RejectedMessage {
    fn from(rejection: &Rejection) -> Self {
        rejection.clone().into()
    }
}

impl From<Rejection> for RejectedMessage {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            is_stripped: false,
        }
    }
}

impl<C: Consumer> Worker<C> {
    pub(super) fn mark(
        &self,
        message: &Message,
        was_rejected: bool,
        records: &Records,
        commit: &mut Commit,
        now: Timestamp,
    ) {
        let handled_at_last = message.reissue.as_ref().filter(|_| !was_rejected);
        commit.handled = Some(Handled {
            group: self.label.group.to_owned(),
            message_id: handled_at_last
                .map_or_else(|| message.inbox_id().into_owned(), Reissue::mark),
            key: message.key.clone(),
            at: now,
        });
        if let Some(reissue) = handled_at_last {
            // It may be stored here, apart from the store of the dead letters' group.
            let kept = records.get::<DeadLetterRecord>(reissue.dead_letter);
            if let Ok(Some(kept)) = kept {
                commit.merge(dead_letters::resolved(kept, now));
            }
            let resolved = DeadLetterResolved {
                event_id: reissue.dead_letter,
            };
            commit.publish(Message::new(
                format!("{}:resolved", message.id),
                &resolved,
                now,
            ));
        }
    }

    /// The dead letter of a message that is too large for a dead letter on the bus: the commit itself writes it.
    pub(super) fn stored_letter(&self, message: &Message) -> Option<Ref> {
        let group = self.label.group;
        dead_letters::is_large(message)
            .then(|| Ref::to::<DeadLetterRecord>(dead_letters::id_of(group, message)))
    }

    /// A Commit that does nothing but dead-letter this message.
    pub(super) fn dead_letter(
        &self,
        message: &Message,
        rejected_message: &RejectedMessage,
        records: &Records,
        now: Timestamp,
    ) -> Commit {
        let reason = &rejected_message.rejection.reason;
        if let Some(suppressed) = self.log.admit(Instant::now()) {
            tracing::warn!(
                group = self.label.group,
                message.id,
                topic = message.topic,
                reason,
                suppressed,
                "a message was rejected"
            );
        }
        let metrics = &self.context.metrics;
        metrics.messages_rejected.get_or_create(&self.label).inc();
        let settings = &self.context.dead_letters;
        let letter = settings.letter(self.label.group, message, &rejected_message.rejection, now);
        if rejected_message.is_stripped {
            return dead_letters::publish(&dead_letters::stripped(letter), now);
        }
        if dead_letters::is_large(message) {
            return match records.get::<DeadLetterRecord>(letter.event_id) {
                Ok(known) => dead_letters::record(letter, known, now).commit,
                // A row under this derived id that this program did not write.
                Err(_) => dead_letters::publish(&dead_letters::stripped(letter), now),
            };
        }
        dead_letters::publish(&letter, now)
    }
}
