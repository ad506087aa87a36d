//! Runs saga machines on records, messages and timers. The state row, the outgoing request and the timer are one
//! [`Commit`], so no answer can come before the state is saved, and a crash leaves all of them or none.

mod consumer;

use saga::{Catalog, Command, Definition, Direction, Input, Saga, SagaState, StepProgress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Commit, CommitError, Group, Message, Payload, Rejection, SagaId, Store, Timestamp,
    TraceContext, id,
    record::{Column, Record, Table},
    trace,
};

pub use consumer::{Coordinator, InvalidDomain, Reply, SagaMessage, check};

/// A saga as it is stored. The payload is the domain's own; its requests are made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaRecord {
    pub saga_id: SagaId,
    pub saga_type: String,
    pub definition_version: u32,
    /// What the saga is about. Not unique: to start at most one saga for a thing, derive `saga_id` from it, as
    /// [`NewSaga::new`] does; a second start is then a conflict.
    pub reference_id: String,
    pub state: SagaState,
    pub current_step: Option<String>,
    pub steps: Vec<StepProgress>,
    pub payload: serde_json::Value,
    pub failure: Option<String>,
    pub parked: Option<String>,
    /// The trace that it began in, as a `traceparent`: a participant need not pass on the trace of its request.
    pub traceparent: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

impl Record for SagaRecord {
    const TABLE: &'static Table = &Table {
        name: "saga",
        columns: &[
            Column::text("saga_id"),
            Column::text("saga_type"),
            Column::integer("definition_version"),
            Column::text("reference_id"),
            Column::text("state"),
            Column::text("current_step").null(),
            Column::json("steps"),
            Column::json("payload"),
            Column::text("failure").null(),
            Column::text("parked").null(),
            Column::text("traceparent").null(),
            Column::text("created_at"),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "saga_id",
        constraints: &["CHECK (state IN ('STARTED', 'COMPENSATING', 'COMPENSATED', 'COMPLETED'))"],
        indexes: &["(state) WHERE state IN ('STARTED', 'COMPENSATING')"],
    };
}

impl SagaRecord {
    fn saga(&self) -> Saga {
        Saga {
            kind: self.saga_type.clone(),
            definition_version: self.definition_version,
            state: self.state,
            steps: self.steps.clone(),
            failure: self.failure.clone(),
            parked: self.parked.clone(),
        }
    }

    fn take(&mut self, saga: Saga, now: Timestamp) {
        self.current_step = saga.current_step().map(str::to_owned);
        self.state = saga.state;
        self.steps = saga.steps;
        self.failure = saga.failure;
        self.parked = saga.parked;
        self.updated_at = now;
    }

    /// A message of this saga, in the trace of the message being handled, or in the saga's own if that has none.
    #[must_use]
    pub fn traced(&self, mut message: Message) -> Message {
        let own = || {
            let begun_in = self.traceparent.as_deref().and_then(TraceContext::parse)?;
            Some(begun_in.handled_by(&self.saga_type, &message.id))
        };
        message.trace = message.trace.or_else(trace::current).or_else(own);
        message
    }
}

/// A saga's request or compensation got no answer in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaTimeout {
    pub saga_id: SagaId,
    /// The step's place in its definition, from 0.
    pub step: u32,
    pub compensating: bool,
    /// Counted from 1.
    pub attempt: u32,
}

/// What a domain knows about its sagas: their definitions, how their requests are made, and what replies mean.
pub trait Domain: Send + Sync + 'static {
    /// The group that advances its sagas. Its topics are all replies, and [`TIMEOUT_TOPIC`](Self::TIMEOUT_TOPIC).
    const GROUP: Group;
    /// The topic on which the timers of its sagas are delivered, as [`SagaTimeout`]s keyed by saga.
    const TIMEOUT_TOPIC: &'static str;
    /// Every definition that a stored saga may have begun with.
    const CATALOG: Catalog;

    /// The request (or compensation) of a step: [`StepRequest::message`] or [`StepRequest::message_untyped`]. By default it
    /// has the saga's whole payload.
    ///
    /// # Errors
    /// A [`Rejection`] if the saga's payload cannot be read.
    fn request(&self, saga: &SagaRecord, step: &StepRequest) -> Result<Message, Rejection> {
        Ok(step.message_untyped(&saga.payload))
    }

    /// What a participant's reply means. By default its key is the saga's id, and it is `true` or, as a refusal, `false`.
    ///
    /// # Errors
    /// A [`Rejection`] if it cannot be read.
    fn read_reply(&self, message: &Message) -> Result<Reply, Rejection> {
        let saga_id = message.key.parse().map_err(Rejection::new)?;
        let refusal = format!("{} is false", message.topic);
        Ok(Reply::new(saga_id, message.parse()?, &refusal))
    }

    /// What a [`Coordinator`] and [`begin_once`] commit for this progress: the saga, its messages and its timer, and what a domain adds.
    fn commit(&self, progress: Progress, _now: Timestamp) -> Commit {
        progress.commit
    }
}

/// A request that a step is to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRequest {
    pub saga_id: SagaId,
    pub topic: &'static str,
    pub step: usize,
    pub direction: Direction,
    /// Stable: a function of saga, step, direction and attempt.
    pub message_id: String,
    pub now: Timestamp,
}

impl StepRequest {
    #[must_use]
    pub fn message<P: Payload>(&self, payload: &P) -> Message {
        Message::new(&self.message_id, payload, self.now)
    }

    /// As [`message`](Self::message), for a payload whose topic is not fixed by its type: on the step's topic, with the
    /// saga's id as key.
    #[must_use]
    pub fn message_untyped(&self, payload: &impl Serialize) -> Message {
        let key = self.saga_id.to_string();
        Message::on(self.topic, key, &self.message_id, payload, self.now)
    }
}

/// Names a new saga.
#[derive(Debug, Clone)]
pub struct NewSaga {
    pub saga_id: SagaId,
    pub reference_id: String,
    pub payload: serde_json::Value,
}

impl NewSaga {
    /// Its id is a digest of what it is about.
    #[must_use]
    pub fn new(reference_id: impl Into<String>, payload: serde_json::Value) -> Self {
        let reference_id = reference_id.into();
        Self {
            saga_id: SagaId(id::digest(&reference_id)),
            reference_id,
            payload,
        }
    }
}

/// A saga after an input, and the Commit that stores it.
#[derive(Debug)]
pub struct Progress {
    pub record: SagaRecord,
    pub commit: Commit,
    /// Set if this input ended the saga.
    pub finished: Option<SagaState>,
}

/// Starts a saga.
///
/// # Errors
/// A [`Rejection`] if its first request cannot be made.
pub fn begin(
    domain: &impl Domain,
    definition: &Definition,
    new_saga: NewSaga,
    now: Timestamp,
) -> Result<Progress, Rejection> {
    let (saga, commands) = saga::start(definition);
    execute(domain, new_record(saga, new_saga, now), commands, now)
}

/// Why [`begin_once`] did not begin a saga.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    #[error(transparent)]
    Rejection(#[from] Rejection),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Starts a saga and commits it, unless it was started before: returns whether it began now.
///
/// # Errors
/// [`BeginError`] if its first request cannot be made, or the store does not take the Commit.
pub async fn begin_once(
    store: &Store,
    domain: &impl Domain,
    definition: &Definition,
    new_saga: NewSaga,
    now: Timestamp,
) -> Result<bool, BeginError> {
    let saga_id = new_saga.saga_id;
    let progress = begin(domain, definition, new_saga, now)?;
    let error = match store.commit(domain.commit(progress, now)).await {
        Ok(()) => return Ok(true),
        Err(error) => error,
    };
    // A conflict may be about another record of the Commit.
    if matches!(error, CommitError::Conflict { .. }) {
        let stored = store.load::<SagaRecord>(saga_id).await;
        if stored.map_err(CommitError::from)?.is_some() {
            return Ok(false);
        }
    }
    Err(error.into())
}

fn new_record(saga: Saga, new_saga: NewSaga, now: Timestamp) -> SagaRecord {
    let NewSaga {
        saga_id,
        reference_id,
        payload,
    } = new_saga;
    SagaRecord {
        saga_id,
        current_step: saga.current_step().map(str::to_owned),
        saga_type: saga.kind,
        definition_version: saga.definition_version,
        reference_id,
        state: saga.state,
        steps: saga.steps,
        payload,
        failure: saga.failure,
        parked: saga.parked,
        traceparent: trace::current().map(|trace| trace.to_string()),
        created_at: now,
        updated_at: now,
        version: 0,
    }
}

/// Ends a saga that has not begun, for `reason`. Its row is saved as that of one that begins: from a start and an end at
/// the same moment one conflicts, and sees the other when it is decided again.
///
/// # Errors
/// As [`begin`].
pub fn cancel_before_start(
    domain: &impl Domain,
    definition: &Definition,
    new_saga: NewSaga,
    reason: &str,
    now: Timestamp,
) -> Result<Progress, Rejection> {
    let (saga, commands) = saga::cancel_before_start(definition, reason.to_owned());
    execute(domain, new_record(saga, new_saga, now), commands, now)
}

/// Hands an input to a stored saga, under the definition that it began with. `None` if it changes nothing.
///
/// # Errors
/// A [`Rejection`] if the stored saga or the input does not fit its definition.
pub fn advance<D: Domain>(
    domain: &D,
    mut record: SagaRecord,
    input: Input,
    now: Timestamp,
) -> Result<Option<Progress>, Rejection> {
    let definition = stored_definition::<D>(&record)?;
    let before = record.saga();
    let (after, commands) = saga::step(definition, &before, input).map_err(Rejection::new)?;
    if after == before && commands.is_empty() {
        return Ok(None);
    }
    record.take(after, now);
    execute(domain, record, commands, now).map(Some)
}

/// The definition that this saga began with.
fn stored_definition<D: Domain>(record: &SagaRecord) -> Result<&'static Definition, Rejection> {
    let (kind, version) = (&record.saga_type, record.definition_version);
    let found = D::CATALOG.find(kind, version);
    found.ok_or_else(|| {
        Rejection::new(format_args!(
            "no definition of saga {kind} version {version}"
        ))
    })
}

fn execute<D: Domain>(
    domain: &D,
    record: SagaRecord,
    commands: Vec<Command>,
    now: Timestamp,
) -> Result<Progress, Rejection> {
    let mut commit = Commit::new();
    let mut finished = None;
    for command in commands {
        match command {
            Command::Send {
                step,
                direction,
                attempt,
                topic,
            } => {
                let message_id =
                    format!("{}:{step}:{}:{attempt}", record.saga_id, direction.as_str());
                let request = StepRequest {
                    saga_id: record.saga_id,
                    topic,
                    step,
                    direction,
                    message_id,
                    now,
                };
                commit.publish(record.traced(domain.request(&record, &request)?));
            }
            Command::SetTimer {
                step,
                direction,
                attempt,
                after_millis,
            } => {
                let timeout = SagaTimeout {
                    saga_id: record.saga_id,
                    step: u32::try_from(step).map_err(Rejection::new)?,
                    compensating: direction == Direction::Compensation,
                    attempt,
                };
                let message_id = format!(
                    "{}:{step}:{}:{attempt}:timeout",
                    record.saga_id,
                    direction.as_str()
                );
                let due_at = now.plus_millis(i64::try_from(after_millis).unwrap_or(i64::MAX));
                commit.set_timer(
                    timer_id(record.saga_id),
                    due_at,
                    record.traced(timeout_message::<D>(message_id, &timeout, due_at)),
                );
            }
            Command::CancelTimer => {
                commit.cancel_timer(timer_id(record.saga_id));
            }
            Command::Finished { state } => finished = Some(state),
            Command::Parked { reason } => {
                tracing::error!(saga.id = %record.saga_id, reason, "a saga is parked and needs a person");
            }
        }
    }
    commit.put(&record);
    Ok(Progress {
        record,
        commit,
        finished,
    })
}

fn timeout_message<D: Domain>(id: String, timeout: &SagaTimeout, due_at: Timestamp) -> Message {
    let key = timeout.saga_id.to_string();
    Message::on(D::TIMEOUT_TOPIC, key, id, timeout, due_at)
}

fn timer_id(saga_id: SagaId) -> String {
    format!("saga/{saga_id}")
}
