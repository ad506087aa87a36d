//! What a handled message leaves behind: its inbox mark; of one that was rejected, a dead letter.

use contract::{
    Timestamp,
    dead_letter::{DeadLetter, DeadLetterResolved},
};

use super::{Consumer, Worker};
use crate::{Commit, Message, Rejection, commit::Handled, dead_letters, message::Reissue};

impl<C: Consumer> Worker<C> {
    pub(super) fn mark(&self, message: &Message, commit: &mut Commit, now: Timestamp) {
        let was_rejected = commit
            .messages
            .iter()
            .any(|published| published.topic == <DeadLetter as contract::Payload>::TOPIC);
        let handled_at_last = message.reissue.as_ref().filter(|_| !was_rejected);
        commit.handled = Some(Handled {
            group: self.consumer.group().to_owned(),
            message_id: handled_at_last.map_or_else(|| message.id.clone(), Reissue::mark),
            key: message.key.clone(),
            at: now,
        });
        if let Some(reissue) = handled_at_last {
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

    /// A Commit that only says: this message could not be handled.
    pub(super) fn bury(&self, message: &Message, rejection: &Rejection, now: Timestamp) -> Commit {
        tracing::warn!(group = self.label.group, message.id, topic = message.topic, reason = %rejection, "a message was rejected");
        self.shell
            .metrics
            .messages_rejected
            .get_or_create(&self.label)
            .inc();
        let letter = self
            .shell
            .dead_letters
            .letter(self.consumer.group(), message, rejection, now);
        let mut commit = Commit::new();
        commit.publish(dead_letters::message(&letter, now));
        commit
    }
}
