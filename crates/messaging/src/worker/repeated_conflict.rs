//! Detects a conflict that would repeat for ever. Pure.

use crate::{Commit, CommitError, Message, Rejection};

/// A conflict of the first message of a round. No message of its batch was before it and its records were loaded afresh,
/// so if the same conflict over the same version comes a second time, it would repeat for ever.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RepeatedConflict {
    message_id: String,
    error: CommitError,
    expected: Option<i64>,
}

impl RepeatedConflict {
    pub(super) fn of(
        message: &Message,
        commits: &[Commit],
        outcomes: &[Result<(), CommitError>],
    ) -> Option<Self> {
        let Some(Err(error @ CommitError::Conflict { table, key })) = outcomes.first() else {
            return None;
        };
        let puts = &commits.first()?.puts;
        let put = puts
            .iter()
            .find(|put| put.table.name == table && put.key.to_string() == *key);
        Some(Self {
            message_id: message.id.clone(),
            error: error.clone(),
            expected: put.map(|put| put.expected),
        })
    }

    pub(super) fn rejection(&self) -> Rejection {
        Rejection::new(format_args!("it cannot be decided: {}", self.error))
    }
}
