//! A batch of submissions as one transaction. First all commits are merged and written in stages; if a stored row is
//! not as a commit was decided on, once more without the commits that this concerns. If a rule of a table is broken,
//! the server does not say by which row: the commits are then applied one by one, each under a savepoint.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::json;
use tokio_postgres::Row;

use super::{
    MessageTable,
    batch_plan::{AddOutcome, BatchPlan, Fact},
    expectation::Expectation,
    rows::{message_rows, rows_json},
    sql::{self, SqlTexts},
    stage::{self, Statement},
    writer_connection::{TxError, WriterConnection},
};
use crate::{
    Commit, CommitError, CommitOutcome, Message, dependency_check::DependencyCheck,
    log_cache::StoredMessage, store::Submission,
};

/// What a transaction has done, once it is committed.
#[derive(Clone, Default)]
pub(super) struct Applied {
    /// One list for each submission, with one outcome for each of its commits.
    pub(super) outcomes: Vec<Vec<CommitOutcome>>,
    pub(super) published: Vec<StoredMessage>,
    pub(super) positions: BTreeMap<String, i64>,
}

/// What every statement of a batch depends on.
pub(super) struct BatchContext<'a> {
    pub(super) texts: &'a SqlTexts,
    pub(super) messages: MessageTable,
    /// The offset of the batch's first message, if the message table is the log.
    pub(super) next_offset: i64,
    pub(super) writer: &'a str,
    pub(super) epoch: i64,
    pub(super) number: i64,
}

struct BatchTx<'c, 's> {
    connection: &'c mut WriterConnection,
    batch: &'c BatchContext<'c>,
    submissions: &'s [Submission],
    facts: &'c HashSet<Fact>,
    plan: BatchPlan<'s>,
    /// One for each submission.
    dependencies: Vec<DependencyCheck<'s>>,
    applied: Applied,
    has_begun: bool,
}

/// Writes everything but `COMMIT`.
pub(super) async fn write(
    connection: &mut WriterConnection,
    batch: &BatchContext<'_>,
    submissions: &[Submission],
) -> Result<Applied, TxError> {
    let mut facts = HashSet::new();
    loop {
        let tx = BatchTx::new(connection, batch, submissions, &facts);
        let may_be_merged = match tx.write_in_stages().await {
            // Facts that the plan respects already would be found again.
            Err(TxError::Stale(found)) => {
                let known = facts.len();
                facts.extend(found);
                facts.len() > known
            }
            Err(TxError::Constraint(_)) => false,
            written => return written,
        };
        connection.run("ROLLBACK").await?;
        if !may_be_merged {
            break;
        }
    }
    // What an earlier commit of the batch changes, no server has reported.
    facts.clear();
    let tx = BatchTx::new(connection, batch, submissions, &facts);
    tx.write_one_by_one().await
}

/// Every commit with the index of its submission, in order.
fn all_commits(submissions: &[Submission]) -> impl Iterator<Item = (usize, &Commit)> {
    let submissions = submissions.iter().enumerate();
    submissions.flat_map(|(index, it)| it.commits.iter().map(move |commit| (index, commit)))
}

impl<'c, 's> BatchTx<'c, 's> {
    fn new(
        connection: &'c mut WriterConnection,
        batch: &'c BatchContext<'c>,
        submissions: &'s [Submission],
        facts: &'c HashSet<Fact>,
    ) -> Self {
        let outcomes = submissions.iter();
        let outcomes = outcomes.map(|it| Vec::with_capacity(it.commits.len()));
        let applied = Applied {
            outcomes: outcomes.collect(),
            ..Applied::default()
        };
        Self {
            connection,
            batch,
            submissions,
            facts,
            plan: BatchPlan::default(),
            dependencies: submissions
                .iter()
                .map(|_| DependencyCheck::default())
                .collect(),
            applied,
            has_begun: false,
        }
    }

    async fn write_in_stages(mut self) -> Result<Applied, TxError> {
        for (index, commit) in all_commits(self.submissions) {
            let outcome = self.add(index, commit).await?;
            self.record_outcome(index, commit, outcome);
        }
        self.finish().await
    }

    async fn write_one_by_one(mut self) -> Result<Applied, TxError> {
        // Begins the transaction: a savepoint needs one.
        self.flush_stage(None).await?;
        for (index, commit) in all_commits(self.submissions) {
            let outcome = self.apply_alone(index, commit).await?;
            self.record_outcome(index, commit, outcome);
        }
        self.finish().await
    }

    /// Applies a commit under a savepoint, and rejects it for the first of its parts that does not fit.
    async fn apply_alone(
        &mut self,
        index: usize,
        commit: &'s Commit,
    ) -> Result<CommitOutcome, TxError> {
        self.connection.run("SAVEPOINT one").await?;
        let published = self.applied.published.len();
        let applied = match self.add(index, commit).await {
            Ok(Ok(())) => self.flush_stage(None).await.map(Ok),
            not_added => not_added,
        };
        let outcome = match applied {
            Ok(outcome) => outcome,
            Err(TxError::Stale(facts)) => facts.first().map_or(Ok(()), |fact| Err(fact.error())),
            Err(TxError::Constraint(detail)) => Err(CommitError::Constraint {
                detail: self.batch.texts.name_rule(detail),
            }),
            Err(other) => return Err(other),
        };
        // What it has changed is stored, or undone.
        self.plan = BatchPlan::default();
        if outcome.is_err() {
            self.connection.run("ROLLBACK TO one").await?;
            self.applied.published.truncate(published);
        }
        self.connection.run("RELEASE one").await?;
        Ok(outcome)
    }

    fn record_outcome(&mut self, index: usize, commit: &'s Commit, outcome: CommitOutcome) {
        if outcome.is_err() {
            self.dependencies[index].add_rejected(commit);
        }
        self.applied.outcomes[index].push(outcome);
    }

    /// Merges a commit into the stage; writes the stage first if the commit does not fit.
    async fn add(&mut self, index: usize, commit: &'s Commit) -> Result<CommitOutcome, TxError> {
        if let Some(conflict) = self.dependencies[index].check(commit) {
            return Ok(Err(conflict));
        }
        loop {
            match self.plan.add(commit, self.facts, self.batch.texts) {
                AddOutcome::Added => return Ok(Ok(())),
                AddOutcome::Rejected(error) => return Ok(Err(error)),
                AddOutcome::NextStage => self.flush_stage(None).await?,
            }
        }
    }

    /// Writes the last stage, and the positions of the submissions whose commits were all applied.
    async fn finish(mut self) -> Result<Applied, TxError> {
        let applied = &mut self.applied;
        for (submission, outcomes) in self.submissions.iter().zip(&mut applied.outcomes) {
            if let Some(position) = &submission.position
                && outcomes.iter().all(Result::is_ok)
            {
                let furthest = applied.positions.entry(position.group.clone());
                let furthest = furthest.or_insert(position.offset);
                *furthest = position.offset.max(*furthest);
            }
            if outcomes.is_empty() {
                outcomes.push(Ok(()));
            }
        }
        let last = position_statement(&applied.positions);
        self.flush_stage(last).await?;
        Ok(self.applied)
    }

    /// Writes the current stage, and `last` after it.
    async fn flush_stage(&mut self, last: Option<Statement<'_>>) -> Result<(), TxError> {
        let mut statements = Vec::new();
        if !self.has_begun {
            statements.push(writer_statement(self.batch));
        }
        statements.extend(stage::fence_statement(&self.plan));
        let mut fired = Vec::new();
        if let Some(fire) = stage::fire_statement(&self.plan) {
            statements.push(fire);
            let results = self.execute(&statements).await?;
            let last = results.last().map(Vec::as_slice).unwrap_or_default();
            fired = last.iter().map(|row| row.get(0)).collect();
            statements = Vec::new();
        }
        let changes = stage::change_statements(&self.plan, self.batch.texts);
        statements.extend(changes);
        let messages = stage::messages(&self.plan, &fired);
        let message_place = statements.len();
        statements.extend(self.message_statement(&messages));
        statements.extend(last);
        if !statements.is_empty() {
            let results = self.execute(&statements).await?;
            self.record_published(&messages, results.get(message_place));
        }
        self.plan.finish_stage();
        Ok(())
    }

    fn first_offset(&self) -> i64 {
        self.batch.next_offset + self.applied.published.len() as i64
    }

    fn message_statement(&self, messages: &[Arc<Message>]) -> Option<Statement<'static>> {
        let (text, first) = match self.batch.messages {
            MessageTable::Log => (sql::LOG, Some(self.first_offset())),
            MessageTable::Outbox => (sql::OUTBOX, None),
        };
        (!messages.is_empty()).then(|| Statement::unchecked(text, message_rows(messages, first)))
    }

    fn record_published(&mut self, messages: &[Arc<Message>], result: Option<&Vec<Row>>) {
        let first = self.first_offset();
        let mut offsets: Vec<i64> = match self.batch.messages {
            MessageTable::Log => (first..first + messages.len() as i64).collect(),
            MessageTable::Outbox if messages.is_empty() => Vec::new(),
            MessageTable::Outbox => result.into_iter().flatten().map(|row| row.get(0)).collect(),
        };
        // The sequence gave offsets in the order of the rows.
        offsets.sort_unstable();
        let stored = |(offset, message): (i64, &Arc<_>)| StoredMessage {
            offset,
            message: Arc::clone(message),
        };
        let stored = offsets.into_iter().zip(messages).map(stored);
        self.applied.published.extend(stored);
    }

    /// Runs statements. A stored row that has changed counts before a rule that a later statement breaks: decided again,
    /// its commit may break none.
    async fn execute(&mut self, statements: &[Statement<'_>]) -> Result<Vec<Vec<Row>>, TxError> {
        let answers = self.connection.execute(!self.has_begun, statements).await?;
        self.has_begun = true;
        let (mut results, mut facts) = (Vec::new(), Vec::new());
        for (statement, answer) in statements.iter().zip(answers) {
            let checked = answer.and_then(|result| {
                facts.extend(statement.expectation.contradictions(&result)?);
                results.push(result);
                Ok(())
            });
            match checked {
                Err(error) if facts.is_empty() => return Err(error),
                Err(_) => break,
                Ok(()) => {}
            }
        }
        match facts.is_empty() {
            true => Ok(results),
            false => Err(TxError::Stale(facts)),
        }
    }
}

fn writer_statement(batch: &BatchContext<'_>) -> Statement<'static> {
    let row = json!({"name": batch.writer, "epoch": batch.epoch, "batch": batch.number});
    Statement {
        text: sql::WRITER,
        rows: rows_json(&[row]),
        expectation: Expectation::OwnsWriterRow,
    }
}

fn position_statement(positions: &BTreeMap<String, i64>) -> Option<Statement<'static>> {
    let row = |(name, position)| json!({"name": name, "position": position});
    let rows: Vec<_> = positions.iter().map(row).collect();
    (!rows.is_empty()).then(|| Statement::unchecked(sql::POSITIONS, rows_json(&rows)))
}
