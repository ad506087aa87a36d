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
    commit::{Fence, Handled, Put, TimerChange},
    lease::LeaseRecord,
    record::{Key, Record, Table},
    row::Row,
};

/// The stored state that a change of a record requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Precondition {
    Absent,
    Version(i64),
    Any,
}

/// A stored row that is not as a commit was decided on, as the server reported while this batch was tried. The next try
/// rejects the commits that contradict it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Fact {
    /// The record does not meet this precondition.
    Mismatched(&'static str, Key, Precondition),
    /// The group has handled the message.
    Handled(String, String),
    LeaseLost(Fence),
}

/// Whether a commit could be merged into the current stage.
pub(super) enum AddOutcome {
    Added,
    Rejected(CommitError),
    /// The current stage must be written first.
    NextStage,
}

/// One record: what its first change requires, and every row that it becomes in turn.
pub(super) struct RecordChange<'a> {
    pub(super) table: &'static Table,
    pub(super) precondition: Precondition,
    /// What the last change leaves: a version, or nothing.
    pub(super) state: Precondition,
    pub(super) rows: Vec<&'a Row>,
    /// Whether it changes in the current stage, not only in one that was written.
    pub(super) in_stage: bool,
}

#[derive(Default)]
pub(super) struct TimerPlan<'a> {
    /// Remove the stored timer if it has this due time and message id.
    pub(super) fire: Option<(Timestamp, &'a str)>,
    pub(super) state: TimerState<'a>,
}

#[derive(Default)]
pub(super) enum TimerState<'a> {
    #[default]
    AsStored,
    Set(Timestamp, &'a Message),
    Removed,
}

/// A message, and the timer that must have fired for it.
pub(super) type PlannedMessage<'a> = (Option<&'a str>, Arc<Message>);

/// The changes of one transaction. Keys are sorted, so that every process locks rows in one order.
#[derive(Default)]
pub(super) struct BatchPlan<'a> {
    pub(super) records: BTreeMap<(&'static str, &'a Key), RecordChange<'a>>,
    marks: HashSet<(&'a str, &'a str)>,
    // ---- of the current stage only
    pub(super) fences: HashSet<&'a Fence>,
    pub(super) handled: Vec<&'a Handled>,
    pub(super) timers: BTreeMap<&'a str, TimerPlan<'a>>,
    pub(super) messages: Vec<PlannedMessage<'a>>,
}

impl<'a> BatchPlan<'a> {
    /// Merges a commit into the stage, whole or not at all.
    pub(super) fn add(
        &mut self,
        commit: &'a Commit,
        facts: &HashSet<Fact>,
        texts: &SqlTexts,
    ) -> AddOutcome {
        if let Err(not_added) = self.check(commit, facts, texts) {
            return not_added;
        }
        self.fences.extend(&commit.fences);
        if let Some(handled) = &commit.handled {
            self.marks.insert((&handled.group, &handled.message_id));
            self.handled.push(handled);
        }
        for change in changes(commit) {
            let record = self.records.entry(change.id());
            let record = record.or_insert(RecordChange {
                table: change.table,
                precondition: change.precondition,
                state: Precondition::Absent,
                rows: Vec::new(),
                in_stage: true,
            });
            record.in_stage = true;
            record.state = change.state();
            record.rows.extend(change.row);
        }
        let always = commit.messages.iter().map(|it| (None, Arc::clone(it)));
        self.messages.extend(always);
        for change in &commit.timers {
            self.change_timer(change);
        }
        AddOutcome::Added
    }

    /// Begins the next stage after the current one is written.
    pub(super) fn finish_stage(&mut self) {
        for change in self.records.values_mut().filter(|change| change.in_stage) {
            change.in_stage = false;
            change.precondition = change.state;
            change.rows.clear();
        }
        self.fences.clear();
        self.handled.clear();
        self.timers.clear();
        self.messages.clear();
    }

    fn check(
        &self,
        commit: &'a Commit,
        facts: &HashSet<Fact>,
        texts: &SqlTexts,
    ) -> Result<(), AddOutcome> {
        for fence in &commit.fences {
            known(facts, || Fact::LeaseLost(fence.clone()))?;
            let lease = Key::Text(fence.lease.clone());
            let record = self.records.get(&(LeaseRecord::TABLE.name, &lease));
            if record.is_some_and(|change| change.in_stage) {
                return Err(AddOutcome::NextStage);
            }
        }
        if let Some(handled) = &commit.handled {
            let mark = (handled.group.as_str(), handled.message_id.as_str());
            let fact = || Fact::handled(handled);
            if self.marks.contains(&mark) {
                return Err(AddOutcome::Rejected(fact().error()));
            }
            known(facts, fact)?;
        }
        self.check_records(commit, facts, texts)?;
        self.check_timers(commit)
    }

    fn check_records(
        &self,
        commit: &'a Commit,
        facts: &HashSet<Fact>,
        texts: &SqlTexts,
    ) -> Result<(), AddOutcome> {
        let mut states = HashMap::new();
        for change in changes(commit) {
            let id = change.id();
            let planned = self.records.get(&id);
            let in_stage = planned.filter(|planned| planned.in_stage).zip(change.row);
            if in_stage.is_some_and(|(planned, row)| !fits_in_stage(planned, row, texts)) {
                return Err(AddOutcome::NextStage);
            }
            let state = states.get(&id).copied();
            let state = state.or(planned.map(|planned| planned.state));
            let fact = || Fact::Mismatched(id.0, id.1.clone(), change.precondition);
            match (state, change.precondition) {
                (_, Precondition::Any) => {}
                (None, _) => known(facts, fact)?,
                (Some(state), precondition) if state == precondition => {}
                (Some(_), _) => return Err(AddOutcome::Rejected(fact().error())),
            }
            states.insert(id, change.state());
        }
        Ok(())
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
                let message = || Arc::new(message.clone());
                match change.state {
                    // Firing a timer twice in one commit fires it once.
                    TimerState::AsStored if change.fire.is_some() => {}
                    TimerState::AsStored => {
                        change.fire = Some((*due_at, message_id));
                        self.messages.push((Some(id), message()));
                    }
                    TimerState::Set(set_for, set)
                        if set_for == *due_at && set.id == *message_id =>
                    {
                        change.state = TimerState::Removed;
                        self.messages.push((None, message()));
                    }
                    TimerState::Set(..) | TimerState::Removed => {}
                }
            }
        }
    }
}

/// What a commit does to one record or entry.
struct Change<'a> {
    table: &'static Table,
    key: &'a Key,
    precondition: Precondition,
    /// `None` if it removes the record.
    row: Option<&'a Row>,
}

fn changes(commit: &Commit) -> impl Iterator<Item = Change<'_>> {
    let deletes = commit.deletes.iter().map(|delete| Change {
        table: delete.table,
        key: &delete.key,
        precondition: (delete.expected).map_or(Precondition::Any, Precondition::Version),
        row: None,
    });
    let puts = commit.puts.iter().map(Change::of);
    puts.chain(deletes)
        .chain(commit.appends.iter().map(Change::of))
}

impl<'a> Change<'a> {
    fn of(put: &'a Put) -> Self {
        Self {
            table: put.table,
            key: &put.key,
            precondition: match put.expected {
                0 => Precondition::Absent,
                version => Precondition::Version(version),
            },
            row: Some(&put.row),
        }
    }

    fn id(&self) -> (&'static str, &'a Key) {
        (self.table.name, self.key)
    }

    /// What it leaves.
    fn state(&self) -> Precondition {
        match (self.row, self.precondition) {
            (None, _) => Precondition::Absent,
            (Some(_), Precondition::Version(version)) => Precondition::Version(version + 1),
            (Some(_), Precondition::Absent | Precondition::Any) => Precondition::Version(1),
        }
    }
}

impl Fact {
    pub(super) fn handled(handled: &Handled) -> Self {
        Self::Handled(handled.group.clone(), handled.message_id.clone())
    }

    /// The rejection of a commit that contradicts it.
    pub(super) fn error(&self) -> CommitError {
        let conflict = |table: &str, key: String| CommitError::Conflict {
            table: table.to_owned(),
            key,
        };
        match self {
            Self::Mismatched(table, key, _) => conflict(table, key.to_string()),
            Self::Handled(_, message_id) => conflict("inbox", message_id.clone()),
            Self::LeaseLost(fence) => CommitError::Fenced {
                lease: fence.lease.clone(),
            },
        }
    }
}

/// Rejects a commit that contradicts a known fact.
fn known(facts: &HashSet<Fact>, fact: impl Fn() -> Fact) -> Result<(), AddOutcome> {
    match !facts.is_empty() && facts.contains(&fact()) {
        true => Err(AddOutcome::Rejected(fact().error())),
        false => Ok(()),
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
