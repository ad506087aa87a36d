//! A stage of a plan as statements with their rows as JSON. At most four statements for each table that the stage
//! changes, and ten for the store's own, however many commits there are.

use std::sync::Arc;

use super::{
    batch_plan::{BatchPlan, PlannedMessage, Precondition, RecordChange, TimerPlan, TimerState},
    expectation::Expectation,
    rows::{FireRow, InboxRow, KeyParameter, RowParameter, TimerIdRow, TimerRow, json},
    sql::{self, SqlTexts},
};
use crate::{
    Message,
    commit::Fence,
    record::{Key, Table},
};

/// A statement with its rows, and what its result must show.
pub(super) struct Statement<'a> {
    pub(super) text: &'a str,
    pub(super) rows: String,
    pub(super) expectation: Expectation<'a>,
}

/// Checks the leases; before every other statement.
pub(super) fn fence_statement<'a>(plan: &BatchPlan<'a>) -> Option<Statement<'a>> {
    let mut fences: Vec<&'a Fence> = plan.fences.iter().copied().collect();
    fences.sort_unstable();
    (!fences.is_empty()).then(|| Statement {
        text: sql::FENCES,
        rows: json(&fences),
        expectation: Expectation::Held(fences),
    })
}

/// Fires timers. Its result decides which messages the stage publishes.
pub(super) fn fire_statement<'a>(plan: &BatchPlan<'a>) -> Option<Statement<'a>> {
    let fire = |(id, timer): (&&'a str, &TimerPlan<'a>)| {
        let (due_at, message_id) = timer.fire?;
        Some(FireRow {
            id,
            due_at: due_at.as_millis(),
            message_id,
        })
    };
    let rows: Vec<FireRow<'_>> = plan.timers.iter().filter_map(fire).collect();
    (!rows.is_empty()).then(|| Statement {
        text: sql::FIRE,
        rows: json(&rows),
        expectation: Expectation::Nothing,
    })
}

/// Writes timers, records, entries and inbox marks: everything but the messages.
pub(super) fn change_statements<'a>(
    plan: &BatchPlan<'a>,
    texts: &'a SqlTexts,
) -> Vec<Statement<'a>> {
    let mut statements = timer_statements(plan);
    add_record_statements(plan, texts, &mut statements);
    add_entry_statements(plan, texts, &mut statements);
    if !plan.handled.is_empty() {
        let mut marks = plan.handled.clone();
        marks.sort_unstable_by_key(|it| (&it.group, &it.message_id));
        let rows: Vec<_> = marks.iter().map(|it| InboxRow::of(it)).collect();
        statements.push(Statement {
            text: sql::INBOX,
            rows: json(&rows),
            expectation: Expectation::Marked(marks),
        });
    }
    statements
}

fn timer_statements<'a>(plan: &BatchPlan<'a>) -> Vec<Statement<'a>> {
    let (mut set, mut cancelled) = (Vec::new(), Vec::new());
    for (id, timer) in &plan.timers {
        match &timer.state {
            TimerState::AsStored => {}
            TimerState::Set(due_at, message) => set.push(TimerRow::of(id, *due_at, message)),
            TimerState::Removed => cancelled.push(TimerIdRow { id }),
        }
    }
    let texts = [
        (sql::SET_TIMER, json(&set)),
        (sql::CANCEL_TIMER, json(&cancelled)),
    ];
    let changes = texts.into_iter().filter(|(_, rows)| rows != "[]");
    let statement = |(text, rows)| Statement {
        text,
        rows,
        expectation: Expectation::Nothing,
    };
    changes.map(statement).collect()
}

fn add_record_statements<'a>(
    plan: &BatchPlan<'a>,
    texts: &'a SqlTexts,
    statements: &mut Vec<Statement<'a>>,
) {
    let records = plan.records.iter();
    let mut records = records.filter(|(_, change)| change.in_stage).peekable();
    while let Some(((name, _), change)) = records.peek() {
        let (name, table) = (*name, change.table);
        let mut changes = TableChanges::default();
        while let Some(((_, key), change)) = records.next_if(|((next, _), _)| *next == name) {
            changes.add(key, change);
        }
        changes.add_statements(table, texts, statements);
    }
}

fn add_entry_statements<'a>(
    plan: &BatchPlan<'a>,
    texts: &'a SqlTexts,
    statements: &mut Vec<Statement<'a>>,
) {
    let mut appends: Vec<_> = plan.appends.iter().collect();
    appends.sort_by(|a, b| (a.1.table.name, &a.0).cmp(&(b.1.table.name, &b.0)));
    for entries in appends.chunk_by(|a, b| a.1.table.name == b.1.table.name) {
        let table = entries[0].1.table;
        let rows = entries
            .iter()
            .map(|(_, it)| RowParameter::of(&it.row, None));
        let keys = entries.iter().map(|(key, _)| key.clone());
        statements.push(Statement {
            text: &texts.of(table).insert,
            rows: json(&rows.collect::<Vec<_>>()),
            expectation: Expectation::Appended(table, keys.collect()),
        });
    }
}

/// The changes of one table's records.
#[derive(Default)]
struct TableChanges<'p, 'a> {
    replaced: Vec<RowParameter<'p>>,
    updates: Vec<RowParameter<'p>>,
    updated: Vec<(&'a Key, Precondition)>,
    inserts: Vec<RowParameter<'p>>,
    inserted: Vec<(&'a Key, Precondition)>,
    deletes: Vec<KeyParameter<'p>>,
    deleted: Vec<(&'a Key, Precondition)>,
}

impl<'p, 'a> TableChanges<'p, 'a> {
    fn add(&mut self, key: &'a Key, change: &'p RecordChange<'a>) {
        let mut rows = change.rows.as_slice();
        let precondition = change.precondition;
        let expected = match precondition {
            Precondition::Version(version) => Some(version),
            Precondition::Absent | Precondition::Any => None,
        };
        if let (Precondition::Absent, Some((last, earlier))) = (precondition, rows.split_last()) {
            self.inserts.push(RowParameter::of(last, None));
            self.inserted.push((key, precondition));
            rows = earlier;
        } else if let (Some(_), Some((last, earlier))) = (change.version, rows.split_last()) {
            self.updates.push(RowParameter::of(last, expected));
            self.updated.push((key, precondition));
            rows = earlier;
        }
        if change.version.is_none() {
            self.deletes.push(KeyParameter {
                table: change.table,
                key,
                expected,
            });
            // A removal of any version does not conflict if the record is gone already.
            if expected.is_some() {
                self.deleted.push((key, precondition));
            }
        }
        let replaced = rows.iter().map(|row| RowParameter::of(row, None));
        self.replaced.extend(replaced);
    }

    fn add_statements(
        self,
        table: &'static Table,
        texts: &'a SqlTexts,
        statements: &mut Vec<Statement<'a>>,
    ) {
        let texts = texts.of(table);
        let deleted = match self.deletes.len() == self.deleted.len() {
            true => Expectation::Changed(table, self.deleted),
            false => Expectation::Removed(table, self.deleted),
        };
        let all = [
            (
                &texts.rules,
                json(&self.replaced),
                Expectation::NoBrokenRule(table),
            ),
            (
                &texts.update,
                json(&self.updates),
                Expectation::Changed(table, self.updated),
            ),
            (
                &texts.insert,
                json(&self.inserts),
                Expectation::Changed(table, self.inserted),
            ),
            (&texts.delete, json(&self.deletes), deleted),
        ];
        let all = all.into_iter().filter(|(_, rows, _)| rows != "[]");
        statements.extend(all.map(|(text, rows, expectation)| Statement {
            text,
            rows,
            expectation,
        }));
    }
}

/// The messages of a stage, once it is known which timers fired.
pub(super) fn messages(plan: &BatchPlan<'_>, fired: &[String]) -> Vec<Arc<Message>> {
    let published = |planned: &PlannedMessage<'_>| match planned {
        PlannedMessage::Always(message) => Some(Arc::clone(message)),
        PlannedMessage::IfFired(id, message) => {
            fired.iter().any(|it| it == id).then(|| Arc::clone(message))
        }
    };
    plan.messages.iter().filter_map(published).collect()
}
