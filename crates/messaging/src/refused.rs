//! What a refused commit takes with it: the later commits of its submission that were decided on it. The same on
//! every store.

use std::collections::HashSet;

use crate::{Commit, CommitError, record::Key};

/// What refused commits of a submission would have changed. A later one that was decided on it must not be applied,
/// even though another writer may have brought a record to the very version that it expects.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refused<'a> {
    changed: HashSet<(&'static str, &'a Key)>,
    /// Keys of messages whose commits were refused: a later message of the key waits for the earlier one.
    keys: HashSet<&'a str>,
}

impl<'a> Refused<'a> {
    pub(crate) fn note(&mut self, commit: &'a Commit) {
        self.changed.extend(commit.changed());
        self.keys
            .extend(commit.handled.as_ref().map(|handled| handled.key.as_str()));
    }

    pub(crate) fn check(&self, commit: &Commit) -> Option<CommitError> {
        let waits = commit
            .handled
            .as_ref()
            .filter(|handled| self.keys.contains(handled.key.as_str()));
        if let Some(handled) = waits {
            return Some(CommitError::Conflict {
                table: "message".to_owned(),
                key: handled.key.clone(),
            });
        }
        let required_records = commit
            .required_records
            .iter()
            .map(|it| (it.table.name, &it.key));
        let (table, key) = required_records
            .chain(commit.changed())
            .find(|changed| self.changed.contains(changed))?;
        Some(CommitError::Conflict {
            table: table.to_owned(),
            key: key.to_string(),
        })
    }
}
