//! A stage of a plan as statements with their rows as JSON. At most four statements for each table that the stage
//! changes, and ten for the store's own, however many commits there are.

use std::sync::Arc;

use serde_json::json;

use super::{
    batch_plan::{BatchPlan, PlannedMessage, Precondition, RecordChange, TimerPlan, TimerState},
    expectation::Expectation,
    rows::{InboxRow, KeyParameter, RowParameter, TimerRow, rows_json},
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

impl<'a> Statement<'a> {
    pub(super) fn unchecked(text: &'a str, rows: String) -> Self {
        Self {
            text,
            rows,
            expectation: Expectation::Nothing,
        }
    }
}

/// Checks the leases; before every other statement.
pub(super) fn fence_statement<'a>(plan: &BatchPlan<'a>) -> Option<Statement<'a>> {
    let mut fences: Vec<&'a Fence> = plan.fences.iter().copied().collect();
    fences.sort_unstable();
    (!fences.is_empty()).then(|| Statement {
        text: sql::FENCES,
        rows: rows_json(&fences),
        expectation: Expectation::Held(fences),
    })
}

/// Fires timers. Its result decides which messages the stage publishes.
pub(super) fn fire_statement<'a>(plan: &BatchPlan<'a>) -> Option<Statement<'a>> {
    let fire = |(id, timer): (&&'a str, &TimerPlan<'a>)| {
        let (due_at, message_id) = timer.fire?;
        Some(json!({"id": id, "due_at": due_at.as_millis(), "message_id": message_id}))
    };
    let rows: Vec<_> = plan.timers.iter().filter_map(fire).collect();
    (!rows.is_empty()).then(|| Statement::unchecked(sql::FIRE, rows_json(&rows)))
}

/// Writes inbox marks, timers, records and entries: everything but the messages. The marks come first, as a message that
/// was handled meanwhile is a better reason to reject its commit than a rule that it breaks.
pub(super) fn change_statements<'a>(
    plan: &BatchPlan<'a>,
    texts: &'a SqlTexts,
) -> Vec<Statement<'a>> {
    let mut statements = Vec::new();
    if !plan.handled.is_empty() {
        let mut marks = plan.handled.clone();
        marks.sort_unstable_by_key(|it| (&it.group, &it.message_id));
        let rows: Vec<_> = marks.iter().map(|it| InboxRow::of(it)).collect();
        statements.push(Statement {
            text: sql::INBOX,
            rows: rows_json(&rows),
            expectation: Expectation::Marked(marks),
        });
    }
    statements.extend(timer_statements(plan));
    add_record_statements(plan, texts, &mut statements);
    statements
}

fn timer_statements<'a>(plan: &BatchPlan<'a>) -> Vec<Statement<'a>> {
    let (mut set, mut cancelled) = (Vec::new(), Vec::new());
    for (id, timer) in &plan.timers {
        match &timer.state {
            TimerState::AsStored => {}
            TimerState::Set(due_at, message) => set.push(TimerRow::of(id, *due_at, message)),
            TimerState::Removed => cancelled.push(json!({"id": id})),
        }
    }
    let texts = [
        (sql::SET_TIMER, rows_json(&set)),
        (sql::CANCEL_TIMER, rows_json(&cancelled)),
    ];
    let changes = texts.into_iter().filter(|(_, rows)| rows != "[]");
    changes
        .map(|(text, rows)| Statement::unchecked(text, rows))
        .collect()
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
        statements.extend(changes.statements(table, texts));
    }
}

/// The changes of one table: rows, and what the server must find of each.
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
        let (precondition, is_removed) =
            (change.precondition, change.state == Precondition::Absent);
        let expected = match precondition {
            Precondition::Version(version) => Some(version),
            Precondition::Absent | Precondition::Any => None,
        };
        let mut replaced = change.rows.as_slice();
        if let Some((last, earlier)) = replaced.split_last() {
            if precondition == Precondition::Absent {
                self.inserts.push(RowParameter::of(last, None));
                self.inserted.push((key, precondition));
                replaced = earlier;
            } else if !is_removed {
                self.updates.push(RowParameter::of(last, expected));
                self.updated.push((key, precondition));
                replaced = earlier;
            }
        }
        // What an earlier stage left absent needs no delete.
        let is_stored = precondition != Precondition::Absent || !change.rows.is_empty();
        if is_removed && is_stored {
            self.deletes.push(KeyParameter {
                table: change.table,
                key,
                expected,
            });
            self.deleted.push((key, precondition));
        }
        let replaced = replaced.iter().map(|row| RowParameter::of(row, None));
        self.replaced.extend(replaced);
    }

    fn statements(
        self,
        table: &'static Table,
        texts: &'a SqlTexts,
    ) -> impl Iterator<Item = Statement<'a>> {
        let texts = texts.of(table);
        let changed = |keys| Expectation::Changed(table, keys);
        let rule = Expectation::NoBrokenRule(table);
        let all = [
            (&texts.rules, rows_json(&self.replaced), rule),
            (
                &texts.update,
                rows_json(&self.updates),
                changed(self.updated),
            ),
            (
                &texts.insert,
                rows_json(&self.inserts),
                changed(self.inserted),
            ),
            (
                &texts.delete,
                rows_json(&self.deletes),
                changed(self.deleted),
            ),
        ];
        let all = all.into_iter().filter(|(_, rows, _)| rows != "[]");
        all.map(|(text, rows, expectation)| Statement {
            text,
            rows,
            expectation,
        })
    }
}

/// The messages of a stage, once it is known which timers fired.
pub(super) fn messages(plan: &BatchPlan<'_>, fired: &[String]) -> Vec<Arc<Message>> {
    let is_published = |(timer, _): &&PlannedMessage<'_>| {
        timer.is_none_or(|timer| fired.iter().any(|it| it == timer))
    };
    let published = plan.messages.iter().filter(is_published);
    published.map(|(_, message)| Arc::clone(message)).collect()
}
