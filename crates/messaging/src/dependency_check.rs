//! Rejects the later commits of a submission that were decided on the result of a rejected one. The same on every store.

use std::collections::HashSet;

use crate::{Commit, CommitError, record::Key};

/// The changes of a submission's rejected commits. A later commit that was decided on one of them must not be applied,
/// even if another writer has brought the record to the version that it expects.
#[derive(Debug, Default)]
pub(crate) struct DependencyCheck<'a> {
    changed: HashSet<(&'static str, &'a Key)>,
    /// Keys of messages whose commits were rejected: a later message of the key must wait for the earlier one.
    keys: HashSet<&'a str>,
}

impl<'a> DependencyCheck<'a> {
    pub(crate) fn add_rejected(&mut self, commit: &'a Commit) {
        self.changed.extend(commit.changed());
        self.keys
            .extend(commit.handled.as_ref().map(|handled| handled.key.as_str()));
    }

    pub(crate) fn check(&self, commit: &Commit) -> Option<CommitError> {
        let must_wait = commit
            .handled
            .as_ref()
            .filter(|handled| self.keys.contains(handled.key.as_str()));
        if let Some(handled) = must_wait {
            return Some(CommitError::Conflict {
                table: "message".to_owned(),
                key: handled.key.clone(),
            });
        }
        let required = commit
            .required_records
            .iter()
            .map(|it| (it.table.name, &it.key));
        let (table, key) = required
            .chain(commit.changed())
            .find(|changed| self.changed.contains(changed))?;
        Some(CommitError::Conflict {
            table: table.to_owned(),
            key: key.to_string(),
        })
    }
}
