//! Commits put together: what a whole batch of them writes, as one row for each record, one for each timer, and so
//! on, however many commits touched it. Pure: no connection, no clock.
//!
//! A record that several commits put one after another is written once, as the last of them leaves it; that each
//! version builds on the one before is checked here, and that the first builds on what is stored is checked by the
//! server. What cannot be put together is written in another *wave*, later in the same transaction.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::Timestamp;

use super::statements::Statements;
use crate::{
    Commit, CommitError, Message,
    commit::{Append, Fence, Handled, TimerChange},
    record::{Key, Record, Table},
    row::Row,
};

/// What a record must be like for its first change to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Before {
    Absent,
    Version(i64),
    Anything,
}

/// What the server has told of what is stored, while this batch was tried. Tried again with it, the batch leaves out
/// what cannot be applied.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) otherwise: HashSet<(&'static str, Key, Before)>,
    pub(super) handled: HashSet<(String, String)>,
    pub(super) entries: HashSet<(&'static str, Key)>,
    pub(super) lost: HashSet<Fence>,
}

impl Known {
    pub(super) fn len(&self) -> usize {
        self.otherwise.len() + self.handled.len() + self.entries.len() + self.lost.len()
    }
}

/// Whether a commit could be put to the others.
pub(super) enum Taken {
    Wholly,
    Refused(CommitError),
    /// Only after the wave has been written.
    Later,
}

/// One record: what it must have been, and every row that it is to be in turn.
#[derive(Debug, Clone)]
pub(super) struct Slot<'a> {
    pub(super) table: &'static Table,
    pub(super) before: Before,
    /// The version that the last change leaves; `None` where it removes the record.
    pub(super) version: Option<i64>,
    pub(super) rows: Vec<&'a Row>,
    /// Whether it is part of the wave, not of one that was written.
    pub(super) is_open: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct TimerSlot<'a> {
    /// To be removed where it is still this one: due time and message id.
    pub(super) fire: Option<(Timestamp, &'a str)>,
    pub(super) now: TimerNow<'a>,
}

#[derive(Debug, Clone, Default)]
pub(super) enum TimerNow<'a> {
    #[default]
    AsStored,
    Set(Timestamp, &'a Message),
    Absent,
}

/// A message of the wave.
#[derive(Debug, Clone)]
pub(super) enum Published<'a> {
    Surely(Arc<Message>),
    IfFired(&'a str, Arc<Message>),
}

/// The transaction as it is put together. Keys are in order, so that rows are locked in one order by everybody.
#[derive(Clone, Default)]
pub(super) struct Plan<'a> {
    pub(super) records: BTreeMap<(&'static str, &'a Key), Slot<'a>>,
    marks: HashSet<(&'a str, &'a str)>,
    entries: HashSet<(&'static str, Key)>,
    // ---- of the wave alone
    pub(super) fences: HashSet<&'a Fence>,
    pub(super) handled: Vec<&'a Handled>,
    pub(super) appends: Vec<(Key, &'a Append)>,
    pub(super) timers: BTreeMap<&'a str, TimerSlot<'a>>,
    pub(super) messages: Vec<Published<'a>>,
}

/// What a change makes of a record, while it is not decided whether the whole commit is taken.
type State = (Before, Option<i64>);

impl<'a> Plan<'a> {
    /// Puts a commit to the others, whole or not at all.
    pub(super) fn take(
        &mut self,
        commit: &'a Commit,
        known: &Known,
        statements: &Statements,
    ) -> Taken {
        let entries = match self.check(commit, known, statements) {
            Ok(entries) => entries,
            Err(otherwise) => return otherwise,
        };
        self.fences.extend(&commit.fences);
        if let Some(handled) = &commit.handled {
            self.marks.insert((&handled.group, &handled.message_id));
            self.handled.push(handled);
        }
        for put in &commit.puts {
            let slot = self.slot(put.table, &put.key, before(Some(put.expected)));
            slot.version = Some(put.expected + 1);
            slot.rows.push(&put.row);
        }
        for delete in &commit.deletes {
            let first = delete.expected.map_or(Before::Anything, Before::Version);
            self.slot(delete.table, &delete.key, first).version = None;
        }
        for (key, append) in entries.into_iter().zip(&commit.appends) {
            self.entries.insert((append.table.name, key.clone()));
            self.appends.push((key, append));
        }
        let surely = |message: &Arc<Message>| Published::Surely(Arc::clone(message));
        self.messages.extend(commit.messages.iter().map(surely));
        for change in &commit.timers {
            self.change_timer(change);
        }
        Taken::Wholly
    }

    /// The wave is written: what comes next builds on it.
    pub(super) fn close_wave(&mut self) {
        for slot in self.records.values_mut().filter(|slot| slot.is_open) {
            slot.is_open = false;
            slot.before = slot.version.map_or(Before::Absent, Before::Version);
            slot.rows.clear();
        }
        self.fences.clear();
        self.handled.clear();
        self.appends.clear();
        self.timers.clear();
        self.messages.clear();
    }

    fn slot(&mut self, table: &'static Table, key: &'a Key, first: Before) -> &mut Slot<'a> {
        let slot = self.records.entry((table.name, key)).or_insert(Slot {
            table,
            before: first,
            version: None,
            rows: Vec::new(),
            is_open: true,
        });
        slot.is_open = true;
        slot
    }

    /// The keys of the commit's entries, where it can be taken.
    fn check(
        &self,
        commit: &'a Commit,
        known: &Known,
        statements: &Statements,
    ) -> Result<Vec<Key>, Taken> {
        for fence in &commit.fences {
            if known.lost.contains(fence) {
                let lease = fence.lease.clone();
                return Err(Taken::Refused(CommitError::Fenced { lease }));
            }
            let lease = Key::Text(fence.lease.clone());
            let table = <crate::lease::LeaseRecord as Record>::TABLE.name;
            if self
                .records
                .get(&(table, &lease))
                .is_some_and(|slot| slot.is_open)
            {
                return Err(Taken::Later);
            }
        }
        if let Some(Handled {
            group, message_id, ..
        }) = &commit.handled
            && (self.marks.contains(&(group.as_str(), message_id.as_str()))
                || known.handled.contains(&(group.clone(), message_id.clone())))
        {
            return Err(conflict("inbox", message_id));
        }
        self.check_records(commit, known, statements)?;
        self.check_timers(commit)?;
        self.check_entries(commit, known)
    }

    fn check_records(
        &self,
        commit: &'a Commit,
        known: &Known,
        statements: &Statements,
    ) -> Result<(), Taken> {
        let mut states: HashMap<(&'static str, &Key), State> = HashMap::new();
        for put in &commit.puts {
            let id = (put.table.name, &put.key);
            let state = match states.get(&id) {
                Some(state) => Some(*state),
                None => self
                    .records
                    .get(&id)
                    .map(|slot| (slot.before, slot.version)),
            };
            let slot = self.records.get(&id).filter(|slot| slot.is_open);
            if slot.is_some_and(|slot| !fits_in_wave(slot, &put.row, statements)) {
                return Err(Taken::Later);
            }
            let is_at = match state {
                None => !known.knows_otherwise(id, before(Some(put.expected))),
                Some((_, version)) => version.unwrap_or(0) == put.expected,
            };
            if !is_at {
                return Err(conflict(put.table.name, &put.key));
            }
            let first = state.map_or(before(Some(put.expected)), |state| state.0);
            states.insert(id, (first, Some(put.expected + 1)));
        }
        for delete in &commit.deletes {
            let id = (delete.table.name, &delete.key);
            let state = match states.get(&id) {
                Some(state) => Some(*state),
                None => self
                    .records
                    .get(&id)
                    .map(|slot| (slot.before, slot.version)),
            };
            let first = delete.expected.map_or(Before::Anything, Before::Version);
            let is_at = match (state, delete.expected) {
                (_, None) => true,
                (None, Some(_)) => !known.knows_otherwise(id, first),
                (Some((_, version)), Some(expected)) => version == Some(expected),
            };
            if !is_at {
                return Err(conflict(delete.table.name, &delete.key));
            }
            states.insert(id, (state.map_or(first, |state| state.0), None));
        }
        Ok(())
    }

    fn check_entries(&self, commit: &Commit, known: &Known) -> Result<Vec<Key>, Taken> {
        let mut keys = Vec::with_capacity(commit.appends.len());
        for Append { table, row } in &commit.appends {
            let Some(key) = Key::of(table, row) else {
                let detail = format!("an entry of {} has no key", table.name);
                return Err(Taken::Refused(CommitError::Constraint { detail }));
            };
            let entry = (table.name, key);
            if self.entries.contains(&entry) || known.entries.contains(&entry) {
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

    /// The server is asked only once in a wave whether a timer is still the one that was due.
    fn check_timers(&self, commit: &Commit) -> Result<(), Taken> {
        let is_asked = |change: &TimerChange| match change {
            TimerChange::Fire { id, .. } => self
                .timers
                .get(id.as_str())
                .is_some_and(|slot| slot.fire.is_some() && matches!(slot.now, TimerNow::AsStored)),
            TimerChange::Set { .. } | TimerChange::Cancel { .. } => false,
        };
        if commit.timers.iter().any(is_asked) {
            return Err(Taken::Later);
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
                self.timers.entry(id).or_default().now = TimerNow::Set(*due_at, message);
            }
            TimerChange::Cancel { id } => {
                self.timers.entry(id).or_default().now = TimerNow::Absent;
            }
            TimerChange::Fire {
                id,
                due_at,
                message_id,
                message,
            } => {
                let slot = self.timers.entry(id).or_default();
                match slot.now {
                    // A commit that fires a timer twice has fired it once.
                    TimerNow::AsStored if slot.fire.is_some() => {}
                    TimerNow::AsStored => {
                        slot.fire = Some((*due_at, message_id));
                        let message = Arc::new(message.clone());
                        self.messages.push(Published::IfFired(id, message));
                    }
                    TimerNow::Set(set_for, set) if set_for == *due_at && set.id == *message_id => {
                        slot.now = TimerNow::Absent;
                        self.messages
                            .push(Published::Surely(Arc::new(message.clone())));
                    }
                    TimerNow::Set(..) | TimerNow::Absent => {}
                }
            }
        }
    }
}

impl Known {
    fn knows_otherwise(&self, (table, key): (&'static str, &Key), before: Before) -> bool {
        !self.otherwise.is_empty() && self.otherwise.contains(&(table, key.clone(), before))
    }
}

/// Version 0 is that of a record which is not stored.
fn before(expected: Option<i64>) -> Before {
    match expected {
        None => Before::Anything,
        Some(0) => Before::Absent,
        Some(version) => Before::Version(version),
    }
}

/// Whether a further row of a record can stand for the earlier ones: not where it would hide that one of those was
/// unique in another way, nor where the record was removed unseen.
fn fits_in_wave(slot: &Slot<'_>, row: &Row, statements: &Statements) -> bool {
    let unique = &statements.of(slot.table).unique;
    let is_alike = |earlier: &&Row| {
        unique
            .iter()
            .all(|place| earlier.values()[*place] == row.values()[*place])
    };
    slot.before != Before::Anything && slot.rows.last().is_none_or(is_alike)
}

fn conflict(table: &str, key: &impl std::fmt::Display) -> Taken {
    Taken::Refused(CommitError::Conflict {
        table: table.to_owned(),
        key: key.to_string(),
    })
}
