//! A wave of a plan as statements: which there are, their rows as JSON, and what their answers mean. At most four
//! statements for each table that is touched, and ten for the store's own, however many commits there are.

use std::{collections::HashSet, sync::Arc};

use tokio_postgres::Row as Answer;

use super::{
    plan::{Before, Known, Plan, Published, Slot, TimerNow, TimerSlot},
    rows::{Firing, Given, Gone, Id, Mark, Timer, json},
    statements::{self, Statements},
};
use crate::{
    Message,
    commit::{Fence, Handled},
    record::{Key, Table},
};

/// A statement with its rows, and what its answer must be.
pub(super) struct Ask<'a> {
    pub(super) text: &'a str,
    pub(super) rows: String,
    pub(super) must: Must<'a>,
}

/// What an answer must tell for the batch to be as it was decided.
pub(super) enum Must<'a> {
    /// Nothing.
    Whatever,
    /// These records were what they had to be.
    Change(&'static Table, Vec<(&'a Key, Before)>),
    /// These among the removed records were what they had to be; of the others it does not matter.
    Remove(&'static Table, Vec<(&'a Key, Before)>),
    /// These entries were new.
    Append(&'static Table, Vec<Key>),
    /// These messages were not handled before.
    Mark(Vec<&'a Handled>),
    /// These leases are held.
    Hold(Vec<&'a Fence>),
    /// No row that was replaced within the batch breaks a rule of its table.
    BreakNothing(&'static Table),
    /// This writer is still the one.
    Write,
}

/// What an answer told.
pub(super) enum Told {
    AsDecided,
    /// Something was otherwise; it is known now.
    Otherwise,
    Broken(String),
    Fenced,
}

impl Must<'_> {
    pub(super) fn judge(&self, answers: &[Answer], known: &mut Known) -> Told {
        let before = known.len();
        match self {
            Self::Whatever => return Told::AsDecided,
            Self::Write if answers.is_empty() => return Told::Fenced,
            Self::BreakNothing(table) => {
                return match answers.first() {
                    None => Told::AsDecided,
                    Some(row) => Told::Broken(format!(
                        "a row of {} breaks a rule of its table: {}",
                        table.name,
                        row.get::<_, String>(0)
                    )),
                };
            }
            Self::Change(_, keys) if answers.len() == keys.len() => return Told::AsDecided,
            Self::Append(_, keys) if answers.len() == keys.len() => return Told::AsDecided,
            Self::Mark(marks) if answers.len() == marks.len() => return Told::AsDecided,
            Self::Hold(fences) if answers.len() == fences.len() => return Told::AsDecided,
            Self::Write => return Told::AsDecided,
            Self::Change(table, keys) | Self::Remove(table, keys) => {
                let done = keys_of(table, answers);
                let missing = keys.iter().filter(|(key, _)| !done.contains(key));
                known
                    .otherwise
                    .extend(missing.map(|(key, before)| (table.name, Key::clone(key), *before)));
            }
            Self::Append(table, keys) => {
                let done = keys_of(table, answers);
                let missing = keys.iter().filter(|key| !done.contains(key));
                known
                    .entries
                    .extend(missing.map(|key| (table.name, key.clone())));
            }
            Self::Mark(marks) => {
                let done = pairs_of(answers);
                let mark = |it: &&Handled| (it.group.clone(), it.message_id.clone());
                let missing = marks.iter().map(mark).filter(|mark| !done.contains(mark));
                known.handled.extend(missing);
            }
            Self::Hold(fences) => {
                let held: Vec<Fence> = answers
                    .iter()
                    .map(|row| Fence {
                        lease: row.get(0),
                        token: row.get(1),
                    })
                    .collect();
                let lost = fences.iter().filter(|fence| !held.contains(fence));
                known.lost.extend(lost.map(|fence| Fence::clone(fence)));
            }
        }
        if matches!(self, Self::Remove(..)) && known.len() == before {
            return Told::AsDecided;
        }
        if known.len() == before {
            // What was found missing was known to be: nothing would change by trying again.
            return Told::Broken("a change could not be applied, and nobody knows why".to_owned());
        }
        Told::Otherwise
    }
}

fn keys_of(table: &Table, answers: &[Answer]) -> HashSet<Key> {
    let key = |row: &Answer| {
        if table.is_keyed_by_text() {
            Key::Text(row.get(0))
        } else {
            Key::Integer(row.get(0))
        }
    };
    answers.iter().map(key).collect()
}

fn pairs_of(answers: &[Answer]) -> HashSet<(String, String)> {
    answers.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What comes before everything else: leases, and which timers fire.
pub(super) fn first_asks<'a>(plan: &Plan<'a>) -> (Vec<Ask<'a>>, Option<Ask<'a>>) {
    let mut asks = Vec::new();
    if !plan.fences.is_empty() {
        let mut fences: Vec<&'a Fence> = plan.fences.iter().copied().collect();
        fences.sort_unstable();
        let rows = json(&fences);
        asks.push(Ask {
            text: statements::FENCES,
            rows,
            must: Must::Hold(fences),
        });
    }
    let fire = |(id, slot): (&&'a str, &TimerSlot<'a>)| {
        let (due_at, message_id) = slot.fire?;
        Some(Firing {
            id,
            due_at: due_at.as_millis(),
            message_id,
        })
    };
    let firings: Vec<Firing<'_>> = plan.timers.iter().filter_map(fire).collect();
    let fired = (!firings.is_empty()).then(|| Ask {
        text: statements::FIRE,
        rows: json(&firings),
        must: Must::Whatever,
    });
    (asks, fired)
}

/// Timers, records, entries and inbox marks: everything but the messages.
pub(super) fn asks<'a>(plan: &Plan<'a>, statements: &'a Statements) -> Vec<Ask<'a>> {
    let mut asks = timer_asks(plan);
    let mut slots = plan
        .records
        .iter()
        .filter(|(_, slot)| slot.is_open)
        .peekable();
    while let Some(((name, _), slot)) = slots.peek() {
        let (name, table) = (*name, slot.table);
        let mut changes = Changes::default();
        while let Some(((_, key), slot)) = slots.next_if(|((next, _), _)| *next == name) {
            changes.add(key, slot);
        }
        changes.ask(table, statements, &mut asks);
    }
    let mut appends: Vec<_> = plan.appends.iter().collect();
    appends.sort_by(|a, b| (a.1.table.name, &a.0).cmp(&(b.1.table.name, &b.0)));
    for entries in appends.chunk_by(|a, b| a.1.table.name == b.1.table.name) {
        let table = entries[0].1.table;
        let rows = entries.iter().map(|(_, it)| Given::of(&it.row, None));
        asks.push(Ask {
            text: &statements.of(table).insert,
            rows: json(&rows.collect::<Vec<_>>()),
            must: Must::Append(table, entries.iter().map(|(key, _)| key.clone()).collect()),
        });
    }
    if !plan.handled.is_empty() {
        let mut marks = plan.handled.clone();
        marks.sort_unstable_by_key(|it| (&it.group, &it.message_id));
        let rows: Vec<_> = marks.iter().map(|it| Mark::of(it)).collect();
        asks.push(Ask {
            text: statements::INBOX,
            rows: json(&rows),
            must: Must::Mark(marks),
        });
    }
    asks
}

fn timer_asks<'a>(plan: &Plan<'a>) -> Vec<Ask<'a>> {
    let (mut set, mut cancelled) = (Vec::new(), Vec::new());
    for (id, slot) in &plan.timers {
        match &slot.now {
            TimerNow::AsStored => {}
            TimerNow::Set(due_at, message) => set.push(Timer::of(id, *due_at, message)),
            TimerNow::Absent => cancelled.push(Id { id }),
        }
    }
    let mut asks = Vec::new();
    if !set.is_empty() {
        asks.push(Ask {
            text: statements::SET_TIMER,
            rows: json(&set),
            must: Must::Whatever,
        });
    }
    if !cancelled.is_empty() {
        let rows = json(&cancelled);
        asks.push(Ask {
            text: statements::CANCEL_TIMER,
            rows,
            must: Must::Whatever,
        });
    }
    asks
}

/// The changes of one table's records.
#[derive(Default)]
struct Changes<'p, 'a> {
    replaced: Vec<Given<'p>>,
    updates: Vec<Given<'p>>,
    updated: Vec<(&'a Key, Before)>,
    inserts: Vec<Given<'p>>,
    inserted: Vec<(&'a Key, Before)>,
    deletes: Vec<Gone<'p>>,
    deleted: Vec<(&'a Key, Before)>,
}

impl<'p, 'a> Changes<'p, 'a> {
    fn add(&mut self, key: &'a Key, slot: &'p Slot<'a>) {
        let mut rows = slot.rows.as_slice();
        let expected = match slot.before {
            Before::Version(version) => Some(version),
            Before::Absent | Before::Anything => None,
        };
        if let (Before::Absent, Some((last, earlier))) = (slot.before, rows.split_last()) {
            self.inserts.push(Given::of(last, None));
            self.inserted.push((key, slot.before));
            rows = earlier;
        } else if let (Some(_), Some((last, earlier))) = (slot.version, rows.split_last()) {
            self.updates.push(Given::of(last, expected));
            self.updated.push((key, slot.before));
            rows = earlier;
        }
        if slot.version.is_none() {
            self.deletes.push(Gone {
                table: slot.table,
                key,
                expected,
            });
            // That a record is gone already is no conflict where any version would have done.
            if expected.is_some() {
                self.deleted.push((key, slot.before));
            }
        }
        self.replaced
            .extend(rows.iter().map(|row| Given::of(row, None)));
    }

    fn ask(self, table: &'static Table, statements: &'a Statements, asks: &mut Vec<Ask<'a>>) {
        let texts = statements.of(table);
        let mut ask = |text: &'a str, rows: String, must| {
            if rows != "[]" {
                asks.push(Ask { text, rows, must });
            }
        };
        ask(
            &texts.rules,
            json(&self.replaced),
            Must::BreakNothing(table),
        );
        ask(
            &texts.update,
            json(&self.updates),
            Must::Change(table, self.updated),
        );
        ask(
            &texts.insert,
            json(&self.inserts),
            Must::Change(table, self.inserted),
        );
        let must = match self.deletes.len() == self.deleted.len() {
            true => Must::Change(table, self.deleted),
            false => Must::Remove(table, self.deleted),
        };
        ask(&texts.delete, json(&self.deletes), must);
    }
}

/// The messages of a wave, where it is known which timers fired.
pub(super) fn messages(plan: &Plan<'_>, fired: &[String]) -> Vec<Arc<Message>> {
    let is_published = |published: &Published<'_>| match published {
        Published::Surely(message) => Some(Arc::clone(message)),
        Published::IfFired(id, message) => {
            fired.iter().any(|it| it == id).then(|| Arc::clone(message))
        }
    };
    plan.messages.iter().filter_map(is_published).collect()
}
