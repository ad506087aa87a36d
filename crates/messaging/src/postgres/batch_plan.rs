//! Merges the commits of a batch: one row for each record, one for each timer, and so on, however many commits change
//! it. Pure: no connection, no clock.
//!
//! A record that several commits put in turn is written once, as the last of them leaves it. The plan checks that each
//! version follows the one before; the server checks that the first follows the stored one. A commit that cannot be
//! merged goes to another *stage*, which is written later in the same transaction.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::sql::SqlTexts;
use crate::{
    Commit, CommitError, Message, Timestamp,
    commit::{Append, Fence, Handled, TimerChange},
    record::{Key, Record, Table},
    row::Row,
};

/// The stored state that a record's first change requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Precondition {
    Absent,
    Version(i64),
    Any,
}

/// What the server reported about stored rows while this batch was tried. The next try rejects the commits that
/// contradict it.
#[derive(Debug, Default)]
pub(super) struct BatchFacts {
    pub(super) mismatched: HashSet<(&'static str, Key, Precondition)>,
    pub(super) handled: HashSet<(String, String)>,
    pub(super) existing_entries: HashSet<(&'static str, Key)>,
    pub(super) lost_leases: HashSet<Fence>,
}

impl BatchFacts {
    pub(super) fn len(&self) -> usize {
        self.mismatched.len()
            + self.handled.len()
            + self.existing_entries.len()
            + self.lost_leases.len()
    }
}

/// Whether a commit could be merged into the current stage.
pub(super) enum AddOutcome {
    Added,
    Rejected(CommitError),
    /// The current stage must be written first.
    NextStage,
}

/// One record: its precondition, and every row that it becomes in turn.
#[derive(Debug, Clone)]
pub(super) struct RecordChange<'a> {
    pub(super) table: &'static Table,
    pub(super) precondition: Precondition,
    /// The version after the last change; `None` if that removes the record.
    pub(super) version: Option<i64>,
    pub(super) rows: Vec<&'a Row>,
    /// Whether it changes in the current stage, not only in one that was written.
    pub(super) in_stage: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct TimerPlan<'a> {
    /// Remove the stored timer if it has this due time and message id.
    pub(super) fire: Option<(Timestamp, &'a str)>,
    pub(super) state: TimerState<'a>,
}

#[derive(Debug, Clone, Default)]
pub(super) enum TimerState<'a> {
    #[default]
    AsStored,
    Set(Timestamp, &'a Message),
    Removed,
}

/// A message of the current stage.
#[derive(Debug, Clone)]
pub(super) enum PlannedMessage<'a> {
    Always(Arc<Message>),
    IfFired(&'a str, Arc<Message>),
}

/// The changes of one transaction. Keys are sorted, so that every process locks rows in one order.
#[derive(Clone, Default)]
pub(super) struct BatchPlan<'a> {
    pub(super) records: BTreeMap<(&'static str, &'a Key), RecordChange<'a>>,
    marks: HashSet<(&'a str, &'a str)>,
    entries: HashSet<(&'static str, Key)>,
    // ---- of the current stage only
    pub(super) fences: HashSet<&'a Fence>,
    pub(super) handled: Vec<&'a Handled>,
    pub(super) appends: Vec<(Key, &'a Append)>,
    pub(super) timers: BTreeMap<&'a str, TimerPlan<'a>>,
    pub(super) messages: Vec<PlannedMessage<'a>>,
}

/// A record's precondition and version, while it is not decided whether its commit is merged.
type RecordState = (Precondition, Option<i64>);

impl<'a> BatchPlan<'a> {
    /// Merges a commit into the stage, whole or not at all.
    pub(super) fn add(
        &mut self,
        commit: &'a Commit,
        facts: &BatchFacts,
        texts: &SqlTexts,
    ) -> AddOutcome {
        let entries = match self.check(commit, facts, texts) {
            Ok(entries) => entries,
            Err(not_added) => return not_added,
        };
        self.fences.extend(&commit.fences);
        if let Some(handled) = &commit.handled {
            self.marks.insert((&handled.group, &handled.message_id));
            self.handled.push(handled);
        }
        for put in &commit.puts {
            let change = self.record_mut(put.table, &put.key, precondition(Some(put.expected)));
            change.version = Some(put.expected + 1);
            change.rows.push(&put.row);
        }
        for delete in &commit.deletes {
            let first = delete
                .expected
                .map_or(Precondition::Any, Precondition::Version);
            self.record_mut(delete.table, &delete.key, first).version = None;
        }
        for (key, append) in entries.into_iter().zip(&commit.appends) {
            self.entries.insert((append.table.name, key.clone()));
            self.appends.push((key, append));
        }
        let always = |message: &Arc<Message>| PlannedMessage::Always(Arc::clone(message));
        self.messages.extend(commit.messages.iter().map(always));
        for change in &commit.timers {
            self.change_timer(change);
        }
        AddOutcome::Added
    }

    /// Begins the next stage after the current one is written.
    pub(super) fn finish_stage(&mut self) {
        for change in self.records.values_mut().filter(|change| change.in_stage) {
            change.in_stage = false;
            change.precondition = change
                .version
                .map_or(Precondition::Absent, Precondition::Version);
            change.rows.clear();
        }
        self.fences.clear();
        self.handled.clear();
        self.appends.clear();
        self.timers.clear();
        self.messages.clear();
    }

    fn record_mut(
        &mut self,
        table: &'static Table,
        key: &'a Key,
        first: Precondition,
    ) -> &mut RecordChange<'a> {
        let change = self
            .records
            .entry((table.name, key))
            .or_insert(RecordChange {
                table,
                precondition: first,
                version: None,
                rows: Vec::new(),
                in_stage: true,
            });
        change.in_stage = true;
        change
    }

    /// The keys of the commit's entries, if it can be merged.
    fn check(
        &self,
        commit: &'a Commit,
        facts: &BatchFacts,
        texts: &SqlTexts,
    ) -> Result<Vec<Key>, AddOutcome> {
        for fence in &commit.fences {
            if facts.lost_leases.contains(fence) {
                let lease = fence.lease.clone();
                return Err(AddOutcome::Rejected(CommitError::Fenced { lease }));
            }
            let lease = Key::Text(fence.lease.clone());
            let table = <crate::lease::LeaseRecord as Record>::TABLE.name;
            if self
                .records
                .get(&(table, &lease))
                .is_some_and(|change| change.in_stage)
            {
                return Err(AddOutcome::NextStage);
            }
        }
        if let Some(Handled {
            group, message_id, ..
        }) = &commit.handled
            && (self.marks.contains(&(group.as_str(), message_id.as_str()))
                || facts.handled.contains(&(group.clone(), message_id.clone())))
        {
            return Err(conflict("inbox", message_id));
        }
        self.check_records(commit, facts, texts)?;
        self.check_timers(commit)?;
        self.check_entries(commit, facts)
    }

    fn check_records(
        &self,
        commit: &'a Commit,
        facts: &BatchFacts,
        texts: &SqlTexts,
    ) -> Result<(), AddOutcome> {
        let mut states: HashMap<(&'static str, &'a Key), RecordState> = HashMap::new();
        for put in &commit.puts {
            let id = (put.table.name, &put.key);
            let state = states.get(&id).copied().or_else(|| self.state_of(&id));
            let change = self.records.get(&id).filter(|change| change.in_stage);
            if change.is_some_and(|change| !fits_in_stage(change, &put.row, texts)) {
                return Err(AddOutcome::NextStage);
            }
            let matches = match state {
                None => !facts.contradict(id, precondition(Some(put.expected))),
                Some((_, version)) => version.unwrap_or(0) == put.expected,
            };
            if !matches {
                return Err(conflict(put.table.name, &put.key));
            }
            let first = state.map_or(precondition(Some(put.expected)), |state| state.0);
            states.insert(id, (first, Some(put.expected + 1)));
        }
        for delete in &commit.deletes {
            let id = (delete.table.name, &delete.key);
            let state = states.get(&id).copied().or_else(|| self.state_of(&id));
            let first = delete
                .expected
                .map_or(Precondition::Any, Precondition::Version);
            let matches = match (state, delete.expected) {
                (_, None) => true,
                (None, Some(_)) => !facts.contradict(id, first),
                (Some((_, version)), Some(expected)) => version == Some(expected),
            };
            if !matches {
                return Err(conflict(delete.table.name, &delete.key));
            }
            states.insert(id, (state.map_or(first, |state| state.0), None));
        }
        Ok(())
    }

    fn state_of(&self, id: &(&'static str, &'a Key)) -> Option<RecordState> {
        let change = self.records.get(id)?;
        Some((change.precondition, change.version))
    }

    fn check_entries(&self, commit: &Commit, facts: &BatchFacts) -> Result<Vec<Key>, AddOutcome> {
        let mut keys = Vec::with_capacity(commit.appends.len());
        for Append { table, row } in &commit.appends {
            let Some(key) = Key::of(table, row) else {
                let detail = format!("an entry of {} has no key", table.name);
                return Err(AddOutcome::Rejected(CommitError::Constraint { detail }));
            };
            let entry = (table.name, key);
            if self.entries.contains(&entry) || facts.existing_entries.contains(&entry) {
                return Err(conflict(table.name, &entry.1));
            }
            keys.push(entry.1);
        }
        let tables = commit.appends.iter().map(|append| append.table.name);
        let mut distinct = HashSet::new();
        match tables.zip(&keys).find(|entry| !distinct.insert(*entry)) {
            Some((table, key)) => Err(conflict(table, key)),
            None => Ok(keys),
        }
    }

    /// A stage asks the server only once whether a stored timer is still the one that was due.
    fn check_timers(&self, commit: &Commit) -> Result<(), AddOutcome> {
        let is_asked = |change: &TimerChange| match change {
            TimerChange::Fire { id, .. } => self.timers.get(id.as_str()).is_some_and(|change| {
                change.fire.is_some() && matches!(change.state, TimerState::AsStored)
            }),
            TimerChange::Set { .. } | TimerChange::Cancel { .. } => false,
        };
        if commit.timers.iter().any(is_asked) {
            return Err(AddOutcome::NextStage);
        }
        Ok(())
    }

    fn change_timer(&mut self, change: &'a TimerChange) {
        match change {
            TimerChange::Set {
                id,
                due_at,
                message,
            } => {
                self.timers.entry(id).or_default().state = TimerState::Set(*due_at, message);
            }
            TimerChange::Cancel { id } => {
                self.timers.entry(id).or_default().state = TimerState::Removed;
            }
            TimerChange::Fire {
                id,
                due_at,
                message_id,
                message,
            } => {
                let change = self.timers.entry(id).or_default();
                match change.state {
                    // Firing a timer twice in one commit fires it once.
                    TimerState::AsStored if change.fire.is_some() => {}
                    TimerState::AsStored => {
                        change.fire = Some((*due_at, message_id));
                        let message = Arc::new(message.clone());
                        self.messages.push(PlannedMessage::IfFired(id, message));
                    }
                    TimerState::Set(set_for, set)
                        if set_for == *due_at && set.id == *message_id =>
                    {
                        change.state = TimerState::Removed;
                        self.messages
                            .push(PlannedMessage::Always(Arc::new(message.clone())));
                    }
                    TimerState::Set(..) | TimerState::Removed => {}
                }
            }
        }
    }
}

impl BatchFacts {
    fn contradict(&self, (table, key): (&'static str, &Key), precondition: Precondition) -> bool {
        !self.mismatched.is_empty()
            && self
                .mismatched
                .contains(&(table, key.clone(), precondition))
    }
}

/// Version 0 means that no record is stored.
fn precondition(expected: Option<i64>) -> Precondition {
    match expected {
        None => Precondition::Any,
        Some(0) => Precondition::Absent,
        Some(version) => Precondition::Version(version),
    }
}

/// Whether a further row of a record can replace the earlier ones: not if they differ in a unique column, which would
/// hide a broken rule, nor if the record was removed whatever its version.
fn fits_in_stage(change: &RecordChange<'_>, row: &Row, texts: &SqlTexts) -> bool {
    let unique = &texts.of(change.table).unique;
    let is_alike = |earlier: &&Row| {
        unique
            .iter()
            .all(|place| earlier.values()[*place] == row.values()[*place])
    };
    change.precondition != Precondition::Any && change.rows.last().is_none_or(is_alike)
}

fn conflict(table: &str, key: &impl std::fmt::Display) -> AddOutcome {
    AddOutcome::Rejected(CommitError::Conflict {
        table: table.to_owned(),
        key: key.to_string(),
    })
}
