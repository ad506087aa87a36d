//! What a statement's result must show for the batch to be as it was decided, and what a different result means.

use std::collections::HashSet;

use tokio_postgres::Row as ResultRow;

use super::batch_plan::{BatchFacts, Precondition};
use crate::{
    commit::{Fence, Handled},
    record::{Key, Table},
};

pub(super) enum Expectation<'a> {
    /// Any result will do.
    Nothing,
    /// These records met their preconditions.
    Changed(&'static Table, Vec<(&'a Key, Precondition)>),
    /// These of the removed records met their preconditions; the others have none.
    Removed(&'static Table, Vec<(&'a Key, Precondition)>),
    /// These entries were new.
    Appended(&'static Table, Vec<Key>),
    /// These messages were not handled before.
    Marked(Vec<&'a Handled>),
    /// These leases are held.
    Held(Vec<&'a Fence>),
    /// No row that was replaced within the batch breaks a rule of its table.
    NoBrokenRule(&'static Table),
    /// This writer still owns its row.
    OwnsWriterRow,
}

pub(super) enum StatementVerdict {
    Met,
    /// A stored row is not as the batch was decided on; the facts now say which.
    FactsChanged,
    ConstraintBroken(String),
    Fenced,
}

impl Expectation<'_> {
    /// Compares a result with the expectation, and adds what it contradicts to `facts`.
    pub(super) fn check(&self, result: &[ResultRow], facts: &mut BatchFacts) -> StatementVerdict {
        match self {
            Self::Nothing => return StatementVerdict::Met,
            Self::OwnsWriterRow if result.is_empty() => return StatementVerdict::Fenced,
            Self::OwnsWriterRow => return StatementVerdict::Met,
            Self::NoBrokenRule(table) => {
                return result.first().map_or(StatementVerdict::Met, |row| {
                    let key: String = row.get(0);
                    let detail =
                        format!("a row of {} breaks a rule of its table: {key}", table.name);
                    StatementVerdict::ConstraintBroken(detail)
                });
            }
            Self::Changed(_, keys) if result.len() == keys.len() => return StatementVerdict::Met,
            Self::Appended(_, keys) if result.len() == keys.len() => return StatementVerdict::Met,
            Self::Marked(marks) if result.len() == marks.len() => return StatementVerdict::Met,
            Self::Held(fences) if result.len() == fences.len() => return StatementVerdict::Met,
            Self::Changed(..)
            | Self::Removed(..)
            | Self::Appended(..)
            | Self::Marked(_)
            | Self::Held(_) => {}
        }
        let before = facts.len();
        self.add_missing(result, facts);
        match facts.len() > before {
            true => StatementVerdict::FactsChanged,
            false if matches!(self, Self::Removed(..)) => StatementVerdict::Met,
            // The plan respects every known fact, so that another try would end the same.
            false => StatementVerdict::ConstraintBroken(
                "a change was not applied, though its precondition holds".to_owned(),
            ),
        }
    }

    fn add_missing(&self, result: &[ResultRow], facts: &mut BatchFacts) {
        match self {
            Self::Nothing | Self::NoBrokenRule(_) | Self::OwnsWriterRow => {}
            Self::Changed(table, keys) | Self::Removed(table, keys) => {
                let done = keys_of(table, result);
                let missing = keys.iter().filter(|(key, _)| !done.contains(key));
                facts.mismatched.extend(
                    missing.map(|(key, precondition)| (table.name, Key::clone(key), *precondition)),
                );
            }
            Self::Appended(table, keys) => {
                let done = keys_of(table, result);
                let missing = keys.iter().filter(|key| !done.contains(key));
                let missing = missing.map(|key| (table.name, key.clone()));
                facts.existing_entries.extend(missing);
            }
            Self::Marked(marks) => {
                let done: HashSet<(String, String)> =
                    result.iter().map(|row| (row.get(0), row.get(1))).collect();
                let mark = |it: &&Handled| (it.group.clone(), it.message_id.clone());
                let missing = marks.iter().map(mark).filter(|mark| !done.contains(mark));
                facts.handled.extend(missing);
            }
            Self::Held(fences) => {
                let fence = |row: &ResultRow| Fence {
                    lease: row.get(0),
                    token: row.get(1),
                };
                let held: Vec<Fence> = result.iter().map(fence).collect();
                let lost = fences.iter().filter(|fence| !held.contains(fence));
                facts.lost_leases.extend(lost.copied().cloned());
            }
        }
    }
}

fn keys_of(table: &Table, result: &[ResultRow]) -> HashSet<Key> {
    let key = |row: &ResultRow| match table.is_keyed_by_text() {
        true => Key::Text(row.get(0)),
        false => Key::Integer(row.get(0)),
    };
    result.iter().map(key).collect()
}
