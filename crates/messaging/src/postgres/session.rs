//! A batch of submissions as one transaction. First everything together; where something turns out otherwise than it
//! was decided on, once more without what that required_records; where a rule of a table is broken, which the server does not
//! say of which row, by halves with savepoints, until the commit that breaks it is alone.

use std::{collections::BTreeMap, sync::Arc};

use tokio_postgres::Row;

use super::{
    MessageTable,
    link::{Link, Trouble},
    plan::{Known, Plan, Taken},
    rows::{PositionRow, WriterRow, json, message_rows},
    statements::{self, Statements},
    wave::{self, Ask, Must, Told},
};
use crate::{Commit, CommitError, refused::Refused, store::Submission, tail::Stored};

pub(super) type Outcome = Result<(), CommitError>;

/// What a transaction has done, when it is committed.
#[derive(Clone, Default)]
pub(super) struct Applied {
    /// One list for each submission, with one outcome for each of its commits.
    pub(super) outcomes: Vec<Vec<Outcome>>,
    pub(super) published: Vec<Stored>,
    pub(super) positions: BTreeMap<String, i64>,
}

/// Who writes, and which batch.
pub(super) struct Batch<'a> {
    pub(super) statements: &'a Statements,
    pub(super) messages: MessageTable,
    /// The first offset to give, where the message table is the log.
    pub(super) next_offset: i64,
    pub(super) writer: &'a str,
    pub(super) epoch: i64,
    pub(super) number: i64,
}

/// A transaction in the making, and how far it has come. Cloned where it may have to come back to this point.
#[derive(Clone)]
struct Course<'a> {
    plan: Plan<'a>,
    refused: Vec<Refused<'a>>,
    applied: Applied,
    begins: bool,
    /// Each statement by itself, so that a broken rule hides nothing that is otherwise than it was decided on.
    is_careful: bool,
}

impl<'a> Course<'a> {
    fn new(submissions: &[Submission]) -> Self {
        let outcomes = submissions
            .iter()
            .map(|it| Vec::with_capacity(it.commits.len()));
        Self {
            plan: Plan::default(),
            refused: vec![Refused::default(); submissions.len()],
            applied: Applied {
                outcomes: outcomes.collect(),
                ..Applied::default()
            },
            begins: true,
            is_careful: false,
        }
    }
}

/// Writes everything but `COMMIT`.
pub(super) async fn write(
    link: &mut Link,
    batch: &Batch<'_>,
    submissions: &[Submission],
) -> Result<Applied, Trouble> {
    let mut known = Known::default();
    loop {
        let trouble = match write_together(link, batch, submissions, &mut known).await {
            Ok(applied) => return Ok(applied),
            Err(trouble) => trouble,
        };
        match trouble {
            Trouble::Otherwise => link.run("ROLLBACK").await?,
            Trouble::Broken(_) => {
                link.run("ROLLBACK").await?;
                return write_by_halves(link, batch, submissions, &mut known).await;
            }
            lost => return Err(lost),
        }
    }
}

async fn write_together(
    link: &mut Link,
    batch: &Batch<'_>,
    submissions: &[Submission],
    known: &mut Known,
) -> Result<Applied, Trouble> {
    let mut course = Course::new(submissions);
    for (place, commit) in all_commits(submissions) {
        add(link, batch, &mut course, known, place, commit).await?;
    }
    finish(link, batch, course, known, submissions).await
}

/// Every commit with the place of its submission, in order.
fn all_commits(submissions: &[Submission]) -> impl Iterator<Item = (usize, &Commit)> {
    let submissions = submissions.iter().enumerate();
    submissions.flat_map(|(place, it)| it.commits.iter().map(move |commit| (place, commit)))
}

/// Puts one commit to those of the wave; writes the wave first where the commit cannot be part of it.
async fn add<'a>(
    link: &mut Link,
    batch: &Batch<'_>,
    course: &mut Course<'a>,
    known: &mut Known,
    place: usize,
    commit: &'a Commit,
) -> Result<(), Trouble> {
    let outcome = match course.refused[place].check(commit) {
        Some(conflict) => Err(conflict),
        None => loop {
            match course.plan.take(commit, known, batch.statements) {
                Taken::Wholly => break Ok(()),
                Taken::Refused(error) => break Err(error),
                Taken::Later => flush(link, batch, course, known, Vec::new()).await?,
            }
        },
    };
    refuse_or_take(course, place, commit, outcome);
    Ok(())
}

fn refuse_or_take<'a>(course: &mut Course<'a>, place: usize, commit: &'a Commit, outcome: Outcome) {
    if outcome.is_err() {
        course.refused[place].note(commit);
    }
    course.applied.outcomes[place].push(outcome);
}

/// Halves are written until each holds or is one commit.
async fn write_by_halves(
    link: &mut Link,
    batch: &Batch<'_>,
    submissions: &[Submission],
    known: &mut Known,
) -> Result<Applied, Trouble> {
    let commits: Vec<_> = all_commits(submissions).collect();
    let mut course = Course::new(submissions);
    flush(link, batch, &mut course, known, Vec::new()).await?;
    let whole = 0..commits.len();
    let mut halves = Vec::from([whole]);
    while let Some(half) = halves.pop() {
        link.run("SAVEPOINT half").await?;
        let before = course.clone();
        let trouble =
            match write_half(link, batch, &mut course, known, &commits[half.clone()]).await {
                Ok(()) => {
                    link.run("RELEASE half").await?;
                    course.is_careful = false;
                    continue;
                }
                Err(trouble) => trouble,
            };
        let detail = match trouble {
            Trouble::Otherwise => None,
            Trouble::Broken(detail) => Some(detail),
            lost => return Err(lost),
        };
        link.run("ROLLBACK TO half; RELEASE half").await?;
        course = before;
        match (detail, &commits[half.clone()]) {
            (None, _) => halves.push(half),
            (Some(_), [_]) if !course.is_careful => {
                course.is_careful = true;
                halves.push(half);
            }
            (Some(detail), [(place, commit)]) => {
                let detail = batch.statements.in_words(detail);
                let broken = Err(CommitError::Constraint { detail });
                refuse_or_take(&mut course, *place, commit, broken);
                course.is_careful = false;
            }
            (Some(_), _) => {
                let middle = half.start.midpoint(half.end);
                halves.extend([middle..half.end, half.start..middle]);
            }
        }
    }
    finish(link, batch, course, known, submissions).await
}

async fn write_half<'a>(
    link: &mut Link,
    batch: &Batch<'_>,
    course: &mut Course<'a>,
    known: &mut Known,
    half: &[(usize, &'a Commit)],
) -> Result<(), Trouble> {
    for (place, commit) in half {
        add(link, batch, course, known, *place, commit).await?;
    }
    flush(link, batch, course, known, Vec::new()).await
}

/// Writes what is left, and the positions of those whose commits were all applied.
async fn finish(
    link: &mut Link,
    batch: &Batch<'_>,
    mut course: Course<'_>,
    known: &mut Known,
    submissions: &[Submission],
) -> Result<Applied, Trouble> {
    for (submission, outcomes) in submissions.iter().zip(&mut course.applied.outcomes) {
        if let Some(position) = &submission.position
            && outcomes.iter().all(Result::is_ok)
        {
            let furthest = course.applied.positions.entry(position.group.clone());
            let furthest = furthest.or_insert(position.offset);
            *furthest = position.offset.max(*furthest);
        }
        if outcomes.is_empty() {
            outcomes.push(Ok(()));
        }
    }
    let mut last = Vec::new();
    if !course.applied.positions.is_empty() {
        let positions = course.applied.positions.iter();
        let rows: Vec<_> = positions
            .map(|(name, position)| PositionRow {
                name,
                position: *position,
            })
            .collect();
        last.push(Ask {
            text: statements::POSITIONS,
            rows: json(&rows),
            must: Must::Whatever,
        });
    }
    flush(link, batch, &mut course, known, last).await?;
    Ok(course.applied)
}

/// Writes the wave, and `last` behind it.
async fn flush(
    link: &mut Link,
    batch: &Batch<'_>,
    course: &mut Course<'_>,
    known: &mut Known,
    last: Vec<Ask<'_>>,
) -> Result<(), Trouble> {
    let (mut asks, fire) = wave::first_asks(&course.plan);
    if course.begins {
        asks.insert(0, writer_ask(batch));
    }
    let mut fired = Vec::new();
    if let Some(fire) = fire {
        asks.push(fire);
        let answers = ask(link, course, &asks, known).await?;
        let last = answers.last().map(Vec::as_slice).unwrap_or_default();
        fired = last.iter().map(|row| row.get(0)).collect();
        asks = Vec::new();
    }
    asks.extend(wave::asks(&course.plan, batch.statements));
    let messages = wave::messages(&course.plan, &fired);
    let is_log = batch.messages == MessageTable::Log;
    let first = batch.next_offset + course.applied.published.len() as i64;
    let at = asks.len();
    if !messages.is_empty() {
        let (text, first) = match is_log {
            true => (statements::LOG, Some(first)),
            false => (statements::OUTBOX, None),
        };
        let rows = message_rows(&messages, first);
        asks.push(Ask {
            text,
            rows,
            must: Must::Whatever,
        });
    }
    asks.extend(last);
    if !asks.is_empty() {
        let answers = ask(link, course, &asks, known).await?;
        // The sequence gave offsets in the order of the rows.
        let mut offsets: Vec<i64> = match is_log {
            true => (first..first + messages.len() as i64).collect(),
            false if messages.is_empty() => Vec::new(),
            false => answers[at].iter().map(|row| row.get(0)).collect(),
        };
        offsets.sort_unstable();
        let stored = |(offset, message): (i64, &Arc<_>)| Stored {
            offset,
            message: Arc::clone(message),
        };
        let stored = offsets.into_iter().zip(&messages).map(stored);
        course.applied.published.extend(stored);
    }
    course.plan.close_wave();
    Ok(())
}

fn writer_ask<'a>(batch: &Batch<'_>) -> Ask<'a> {
    let row = WriterRow {
        name: batch.writer,
        epoch: batch.epoch,
        batch: batch.number,
    };
    Ask {
        text: statements::WRITER,
        rows: json(&[row]),
        must: Must::Write,
    }
}

async fn ask(
    link: &mut Link,
    course: &mut Course<'_>,
    asks: &[Ask<'_>],
    known: &mut Known,
) -> Result<Vec<Vec<Row>>, Trouble> {
    if course.is_careful {
        return ask_carefully(link, asks, known).await;
    }
    let answers = link.ask(course.begins, asks).await?;
    course.begins = false;
    let mut is_otherwise = false;
    for (ask, answer) in asks.iter().zip(&answers) {
        is_otherwise |= judge(ask, answer, known)?;
    }
    if is_otherwise {
        return Err(Trouble::Otherwise);
    }
    Ok(answers)
}

/// What is otherwise than a commit was decided on comes before what is broken: decided anew, it may break nothing.
async fn ask_carefully(
    link: &mut Link,
    asks: &[Ask<'_>],
    known: &mut Known,
) -> Result<Vec<Vec<Row>>, Trouble> {
    let (mut answers, mut is_otherwise, mut broken) = (Vec::new(), false, None);
    for ask in asks {
        link.run("SAVEPOINT one").await?;
        let judged = match link.ask(false, std::slice::from_ref(ask)).await {
            Ok(mut answer) => {
                let answer = answer.pop().unwrap_or_default();
                let judged = judge(ask, &answer, known);
                answers.push(answer);
                judged
            }
            Err(trouble) => Err(trouble),
        };
        match judged {
            Ok(is_other) => is_otherwise |= is_other,
            Err(Trouble::Broken(detail)) => {
                link.run("ROLLBACK TO one").await?;
                broken.get_or_insert(detail);
            }
            Err(lost) => return Err(lost),
        }
        link.run("RELEASE one").await?;
    }
    match (is_otherwise, broken) {
        (true, _) => Err(Trouble::Otherwise),
        (false, Some(detail)) => Err(Trouble::Broken(detail)),
        (false, None) => Ok(answers),
    }
}

/// Whether something is otherwise than it was decided on.
fn judge(ask: &Ask<'_>, answer: &[Row], known: &mut Known) -> Result<bool, Trouble> {
    match ask.must.judge(answer, known) {
        Told::AsDecided => Ok(false),
        Told::Otherwise => Ok(true),
        Told::Broken(detail) => Err(Trouble::Broken(detail)),
        Told::Fenced => Err(Trouble::Fenced),
    }
}
