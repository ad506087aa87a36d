//! The state at the end of a scenario, without ids, times and the order of independent records. It must be equal on
//! every deployment.

use std::{collections::BTreeMap, fmt::Display};

use boxoffice::audit::Books;
use messaging::{
    Snapshot,
    dead_letters::{DeadLetterRecord, DeadLetterState},
};
use serde_json::Value;

/// Lines that describe records, each with the number of such records.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EndState(BTreeMap<String, usize>);

impl EndState {
    /// Reads a store in which nothing is pending; `stocks` are the last answers about each event's stock.
    pub fn read(snapshot: &Snapshot, stocks: Vec<Value>, gateway: &toss_sandbox::Totals) -> Self {
        let (mut end, books) = (Self::default(), Books::read(snapshot).unwrap());
        for stock in stocks {
            let names = ["quantity", "sold", "waiting", "completed", "available"];
            let numbers = names.map(|name| format!("{name} {}", stock[name]));
            end.note(format_args!("event: {}", numbers.join(", ")));
        }
        end.note_sales(&books);
        end.note_sagas(&books);
        let note = |letter: DeadLetterRecord| end.note_dead_letter(&letter);
        snapshot.each(note).unwrap();
        end.note(format_args!(
            "gateway: charged {}, refunded {}, held {}, orders charged twice {}",
            gateway.charged,
            gateway.refunded,
            gateway.held,
            gateway.orders_charged_twice.len()
        ));
        end
    }

    /// The lines in which both differ, with the counts of `self` (`+`) and of `other` (`-`).
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let count = |of: &Self, line: &str| of.0.get(line).copied().unwrap_or(0);
        let mut lines: Vec<&String> = self.0.keys().chain(other.0.keys()).collect();
        lines.sort_unstable();
        lines.dedup();
        let differ = lines
            .into_iter()
            .map(|line| (count(self, line), count(other, line), line))
            .filter(|(here, there, _)| here != there);
        differ
            .map(|(here, there, line)| format!("+{here} -{there} {line}"))
            .collect()
    }

    fn note(&mut self, line: impl Display) {
        *self.0.entry(line.to_string()).or_default() += 1;
    }

    fn note_sales(&mut self, books: &Books) {
        for ticket in books.tickets.values() {
            self.note(format_args!(
                "ticket: {:?}, {} cancellations",
                ticket.status, ticket.cancellation
            ));
        }
        for it in books.payments.values() {
            let amounts = (
                it.total_amount.get(),
                it.point_amount.get(),
                it.final_amount.get(),
            );
            self.note(format_args!(
                "payment: {:?}, {amounts:?}, attempt {}, refund {:?}",
                it.status, it.attempt, it.refund
            ));
        }
        for stray in books.orphan_charges.values() {
            self.note(format_args!("stray charge: refund {:?}", stray.refund));
        }
        for (id, user) in &books.users {
            let sum = books.ledger.sum(*id);
            self.note(format_args!(
                "user: {:?}, {} points, ledger {sum}",
                user.status,
                user.balance.get()
            ));
        }
    }

    fn note_sagas(&mut self, books: &Books) {
        for saga in books.sagas.values() {
            let steps = saga.steps.iter();
            let steps: Vec<String> = steps
                .map(|step| format!("{} {:?}", step.name, step.state))
                .collect();
            self.note(format_args!(
                "saga: {} {:?} [{}] failure {:?}, parked {:?}",
                saga.saga_type,
                saga.state,
                steps.join(", "),
                saga.failure.as_deref().map(without_ids),
                saga.parked
            ));
        }
    }

    fn note_dead_letter(&mut self, record: &DeadLetterRecord) {
        let letter = &record.letter;
        let still = match record.state {
            DeadLetterState::Waiting => "WAITING",
            DeadLetterState::Parked => "PARKED",
            DeadLetterState::Replayed => "REPLAYED",
            DeadLetterState::Resolved => "RESOLVED",
            DeadLetterState::Discarded => "DISCARDED",
        };
        self.note(format_args!(
            "dead letter: {still} {} in {}: {}",
            letter.reissued_topic,
            letter.group,
            without_ids(without_sqlstate(&letter.reason))
        ));
    }
}

/// PostgreSQL's errors end with a code.
fn without_sqlstate(reason: &str) -> &str {
    reason.strip_suffix(" (23514)").unwrap_or(reason)
}

/// Replaces ids, which are random.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| {
        let bare = word.trim_matches(|it: char| !it.is_ascii_alphanumeric());
        uuid::Uuid::parse_str(bare).is_ok()
    };
    let words = text.split(' ');
    let words: Vec<&str> = words.map(|it| if is_id(it) { "…" } else { it }).collect();
    words.join(" ")
}
