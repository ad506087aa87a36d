//! What a statement's result must show for the batch to be as it was decided.

use std::collections::HashSet;

use tokio_postgres::Row as ResultRow;

use super::{
    batch_plan::{Fact, Precondition},
    writer_connection::TxError,
};
use crate::{
    commit::{Fence, Handled},
    record::{Key, Table},
};

pub(super) enum Expectation<'a> {
    /// Any result will do.
    Nothing,
    /// These records met their preconditions.
    Changed(&'static Table, Vec<(&'a Key, Precondition)>),
    /// These messages were not handled before.
    Marked(Vec<&'a Handled>),
    /// These leases are held.
    Held(Vec<&'a Fence>),
    /// No row that was replaced within the batch breaks a rule of its table.
    NoBrokenRule(&'static Table),
    /// This writer still owns its row.
    OwnsWriterRow,
}

impl Expectation<'_> {
    /// The facts that the commits of the batch contradict; none if the expectation is met.
    pub(super) fn contradictions(&self, result: &[ResultRow]) -> Result<Vec<Fact>, TxError> {
        match self {
            Self::OwnsWriterRow if result.is_empty() => Err(TxError::Fenced),
            Self::NoBrokenRule(table) => result.first().map_or(Ok(Vec::new()), |row| {
                let (name, key) = (table.name, row.get::<_, String>(0));
                let detail = format!("a row of {name} breaks a rule of its table: {key}");
                Err(TxError::Constraint(detail))
            }),
            Self::Changed(table, keys) if result.len() != keys.len() => {
                let done: HashSet<Key> = result.iter().map(|row| key_of(table, row)).collect();
                // Removing a record whatever its version is done if there is none.
                let missing = keys.iter().filter(|(key, precondition)| {
                    *precondition != Precondition::Any && !done.contains(key)
                });
                let fact = |(key, precondition): &(&Key, Precondition)| {
                    Fact::Mismatched(table.name, Key::clone(key), *precondition)
                };
                Ok(missing.map(fact).collect())
            }
            Self::Marked(marks) if result.len() != marks.len() => {
                let done = result
                    .iter()
                    .map(|row| Fact::Handled(row.get(0), row.get(1)));
                let done: HashSet<Fact> = done.collect();
                let facts = marks.iter().map(|mark| Fact::handled(mark));
                Ok(facts.filter(|fact| !done.contains(fact)).collect())
            }
            Self::Held(fences) if result.len() != fences.len() => {
                let fence = |row: &ResultRow| Fence {
                    lease: row.get(0),
                    token: row.get(1),
                };
                let held: Vec<Fence> = result.iter().map(fence).collect();
                let lost = fences.iter().filter(|fence| !held.contains(fence));
                Ok(lost
                    .map(|fence| Fact::LeaseLost((*fence).clone()))
                    .collect())
            }
            Self::Nothing
            | Self::OwnsWriterRow
            | Self::Changed(..)
            | Self::Marked(_)
            | Self::Held(_) => Ok(Vec::new()),
        }
    }
}

fn key_of(table: &Table, row: &ResultRow) -> Key {
    match table.is_keyed_by_text() {
        true => Key::Text(row.get(0)),
        false => Key::Integer(row.get(0)),
    }
}
