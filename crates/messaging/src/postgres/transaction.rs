//! A batch of submissions as one transaction. First all commits are merged and written in stages; if a stored row is
//! not as a commit was decided on, once more without the commits that this concerns. If a rule of a table is broken,
//! the server does not say by which row: the commits are then applied one by one, each under a savepoint.

use std::{collections::BTreeMap, sync::Arc};

use tokio_postgres::Row;

use super::{
    MessageTable,
    batch_plan::{AddOutcome, BatchFacts, BatchPlan},
    expectation::{Expectation, StatementVerdict},
    rows::{PositionRow, WriterRow, json, message_rows},
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

/// What the transaction has planned and done so far; restored if a commit is undone.
#[derive(Clone)]
struct TxState<'a> {
    plan: BatchPlan<'a>,
    /// One for each submission.
    dependencies: Vec<DependencyCheck<'a>>,
    applied: Applied,
}

impl<'a> TxState<'a> {
    fn new(submissions: &[Submission]) -> Self {
        let outcomes = submissions.iter();
        let outcomes = outcomes.map(|it| Vec::with_capacity(it.commits.len()));
        Self {
            plan: BatchPlan::default(),
            dependencies: vec![DependencyCheck::default(); submissions.len()],
            applied: Applied {
                outcomes: outcomes.collect(),
                ..Applied::default()
            },
        }
    }

    fn record_outcome(&mut self, index: usize, commit: &'a Commit, outcome: CommitOutcome) {
        if outcome.is_err() {
            self.dependencies[index].add_rejected(commit);
        }
        self.applied.outcomes[index].push(outcome);
    }
}

struct BatchTx<'c, 's> {
    connection: &'c mut WriterConnection,
    batch: &'c BatchContext<'c>,
    submissions: &'s [Submission],
    facts: &'c mut BatchFacts,
    state: TxState<'s>,
    has_begun: bool,
    /// Each statement has a savepoint of its own, so that a broken rule hides no stored row that has changed.
    is_careful: bool,
}

/// Writes everything but `COMMIT`.
pub(super) async fn write(
    connection: &mut WriterConnection,
    batch: &BatchContext<'_>,
    submissions: &[Submission],
) -> Result<Applied, TxError> {
    let mut facts = BatchFacts::default();
    let mut is_rule_broken = false;
    loop {
        let tx = BatchTx {
            connection: &mut *connection,
            batch,
            submissions,
            facts: &mut facts,
            state: TxState::new(submissions),
            has_begun: false,
            is_careful: false,
        };
        let written = match is_rule_broken {
            false => tx.write_in_stages().await,
            true => return tx.write_one_by_one().await,
        };
        match written {
            Err(TxError::FactsChanged) => {}
            Err(TxError::Constraint(_)) => is_rule_broken = true,
            Ok(_) | Err(_) => return written,
        }
        connection.run("ROLLBACK").await?;
    }
}

/// Every commit with the index of its submission, in order.
fn all_commits(submissions: &[Submission]) -> impl Iterator<Item = (usize, &Commit)> {
    let submissions = submissions.iter().enumerate();
    submissions.flat_map(|(index, it)| it.commits.iter().map(move |commit| (index, commit)))
}

impl<'s> BatchTx<'_, 's> {
    async fn write_in_stages(mut self) -> Result<Applied, TxError> {
        for (index, commit) in all_commits(self.submissions) {
            self.add(index, commit).await?;
        }
        self.finish().await
    }

    async fn write_one_by_one(mut self) -> Result<Applied, TxError> {
        // Begins the transaction: a savepoint needs one.
        self.flush_stage(Vec::new()).await?;
        for (index, commit) in all_commits(self.submissions) {
            self.apply_alone(index, commit).await?;
        }
        self.finish().await
    }

    /// Applies a commit under a savepoint. A stored row that has changed counts before a broken rule: decided again,
    /// the commit may break none.
    async fn apply_alone(&mut self, index: usize, commit: &'s Commit) -> Result<(), TxError> {
        self.connection.run("SAVEPOINT one").await?;
        let before = self.state.clone();
        loop {
            let applied = match self.add(index, commit).await {
                Ok(()) => self.flush_stage(Vec::new()).await,
                Err(error) => Err(error),
            };
            let broken = match applied {
                Ok(()) => break,
                Err(TxError::FactsChanged) => None,
                Err(TxError::Constraint(detail)) => Some(detail),
                Err(other) => return Err(other),
            };
            self.connection.run("ROLLBACK TO one").await?;
            self.state = before.clone();
            match broken {
                Some(detail) if self.is_careful => {
                    let detail = self.batch.texts.name_rule(detail);
                    let outcome = Err(CommitError::Constraint { detail });
                    self.state.record_outcome(index, commit, outcome);
                    break;
                }
                Some(_) => self.is_careful = true,
                None => {}
            }
        }
        self.is_careful = false;
        self.connection.run("RELEASE one").await
    }

    /// Merges a commit into the stage; writes the stage first if the commit does not fit.
    async fn add(&mut self, index: usize, commit: &'s Commit) -> Result<(), TxError> {
        let outcome = match self.state.dependencies[index].check(commit) {
            Some(conflict) => Err(conflict),
            None => loop {
                match self.state.plan.add(commit, self.facts, self.batch.texts) {
                    AddOutcome::Added => break Ok(()),
                    AddOutcome::Rejected(error) => break Err(error),
                    AddOutcome::NextStage => self.flush_stage(Vec::new()).await?,
                }
            },
        };
        self.state.record_outcome(index, commit, outcome);
        Ok(())
    }

    /// Writes the last stage, and the positions of the submissions whose commits were all applied.
    async fn finish(mut self) -> Result<Applied, TxError> {
        let applied = &mut self.state.applied;
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
        self.flush_stage(last.into_iter().collect()).await?;
        Ok(self.state.applied)
    }

    /// Writes the current stage, and `last` after it.
    async fn flush_stage(&mut self, last: Vec<Statement<'_>>) -> Result<(), TxError> {
        let mut statements = Vec::new();
        if !self.has_begun {
            statements.push(writer_statement(self.batch));
        }
        statements.extend(stage::fence_statement(&self.state.plan));
        let mut fired = Vec::new();
        if let Some(fire) = stage::fire_statement(&self.state.plan) {
            statements.push(fire);
            let results = self.execute(&statements).await?;
            let last = results.last().map(Vec::as_slice).unwrap_or_default();
            fired = last.iter().map(|row| row.get(0)).collect();
            statements = Vec::new();
        }
        let changes = stage::change_statements(&self.state.plan, self.batch.texts);
        statements.extend(changes);
        let messages = stage::messages(&self.state.plan, &fired);
        let message_place = statements.len();
        statements.extend(self.message_statement(&messages));
        statements.extend(last);
        if !statements.is_empty() {
            let results = self.execute(&statements).await?;
            self.record_published(&messages, results.get(message_place));
        }
        self.state.plan.finish_stage();
        Ok(())
    }

    fn first_offset(&self) -> i64 {
        self.batch.next_offset + self.state.applied.published.len() as i64
    }

    fn message_statement(&self, messages: &[Arc<Message>]) -> Option<Statement<'static>> {
        let (text, first) = match self.batch.messages {
            MessageTable::Log => (sql::LOG, Some(self.first_offset())),
            MessageTable::Outbox => (sql::OUTBOX, None),
        };
        (!messages.is_empty()).then(|| Statement {
            text,
            rows: message_rows(messages, first),
            expectation: Expectation::Nothing,
        })
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
        self.state.applied.published.extend(stored);
    }

    async fn execute(&mut self, statements: &[Statement<'_>]) -> Result<Vec<Vec<Row>>, TxError> {
        if self.is_careful {
            return self.execute_carefully(statements).await;
        }
        let results = self.connection.execute(!self.has_begun, statements).await?;
        self.has_begun = true;
        let mut have_facts_changed = false;
        for (statement, result) in statements.iter().zip(&results) {
            have_facts_changed |= self.check(statement, result)?;
        }
        match have_facts_changed {
            true => Err(TxError::FactsChanged),
            false => Ok(results),
        }
    }

    async fn execute_carefully(
        &mut self,
        statements: &[Statement<'_>],
    ) -> Result<Vec<Vec<Row>>, TxError> {
        let (mut results, mut have_facts_changed, mut broken) = (Vec::new(), false, None);
        for statement in statements {
            self.connection.run("SAVEPOINT statement").await?;
            let alone = std::slice::from_ref(statement);
            let checked = match self.connection.execute(false, alone).await {
                Ok(mut result) => {
                    let result = result.pop().unwrap_or_default();
                    let checked = self.check(statement, &result);
                    results.push(result);
                    checked
                }
                Err(error) => Err(error),
            };
            match checked {
                Ok(changed) => have_facts_changed |= changed,
                Err(TxError::Constraint(detail)) => {
                    self.connection.run("ROLLBACK TO statement").await?;
                    broken.get_or_insert(detail);
                }
                Err(other) => return Err(other),
            }
            self.connection.run("RELEASE statement").await?;
        }
        match (have_facts_changed, broken) {
            (true, _) => Err(TxError::FactsChanged),
            (false, Some(detail)) => Err(TxError::Constraint(detail)),
            (false, None) => Ok(results),
        }
    }

    /// Whether a stored row turned out not to be as the batch was decided on.
    fn check(&mut self, statement: &Statement<'_>, result: &[Row]) -> Result<bool, TxError> {
        match statement.expectation.check(result, self.facts) {
            StatementVerdict::Met => Ok(false),
            StatementVerdict::FactsChanged => Ok(true),
            StatementVerdict::ConstraintBroken(detail) => Err(TxError::Constraint(detail)),
            StatementVerdict::Fenced => Err(TxError::Fenced),
        }
    }
}

fn writer_statement(batch: &BatchContext<'_>) -> Statement<'static> {
    let row = WriterRow {
        name: batch.writer,
        epoch: batch.epoch,
        batch: batch.number,
    };
    Statement {
        text: sql::WRITER,
        rows: json(&[row]),
        expectation: Expectation::OwnsWriterRow,
    }
}

fn position_statement(positions: &BTreeMap<String, i64>) -> Option<Statement<'static>> {
    let rows: Vec<_> = positions
        .iter()
        .map(|(name, position)| PositionRow {
            name,
            position: *position,
        })
        .collect();
    (!rows.is_empty()).then(|| Statement {
        text: sql::POSITIONS,
        rows: json(&rows),
        expectation: Expectation::Nothing,
    })
}
