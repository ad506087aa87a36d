//! Runs saga machines on records, messages and timers. The state row, the outgoing request and the timer are one
//! [`Commit`], so no answer can come before the state is saved, and a crash leaves all of them or none.

use saga::{Catalog, Command, Definition, Direction, Input, Saga, SagaState, StepProgress};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Commit, Message, Rejection, SagaId, Timestamp, TraceContext,
    record::{Column, Key, Record, Table},
    trace,
};

/// A saga as it is stored. The payload is the domain's own; its requests are made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaRecord {
    pub saga_id: SagaId,
    pub saga_type: String,
    pub definition_version: u32,
    /// What the saga is about. Not unique: to begin at most one saga for a thing, derive `saga_id` from it; a second
    /// beginning is then a conflict.
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
            Column::integer("version"),
        ],
        key: "saga_id",
        constraints: &["CHECK (state IN ('STARTED', 'COMPENSATING', 'COMPENSATED', 'COMPLETED'))"],
        indexes: &["(state) WHERE state IN ('STARTED', 'COMPENSATING')"],
    };
    fn key(&self) -> Key {
        self.saga_id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
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

/// What a domain knows about its sagas: their definitions, and how their requests are made.
pub trait Domain {
    /// The topic on which the timers of its sagas are delivered, as [`SagaTimeout`]s keyed by saga.
    const TIMEOUT_TOPIC: &'static str;

    fn catalog(&self) -> Catalog;

    /// The request (or compensation) of a step, as a message with this id.
    ///
    /// # Errors
    /// A [`Rejection`] if the saga's payload cannot be read.
    fn request(&self, saga: &SagaRecord, send: &Send, now: Timestamp)
    -> Result<Message, Rejection>;
}

/// A request to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    pub topic: &'static str,
    pub step: usize,
    pub direction: Direction,
    /// Stable: a function of saga, step, direction and attempt.
    pub message_id: String,
}

/// Names a new saga.
#[derive(Debug, Clone)]
pub struct NewSaga {
    pub saga_id: SagaId,
    pub reference_id: String,
    pub payload: serde_json::Value,
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
pub fn advance(
    domain: &impl Domain,
    mut record: SagaRecord,
    input: Input,
    now: Timestamp,
) -> Result<Option<Progress>, Rejection> {
    let definition = domain
        .catalog()
        .find(&record.saga_type, record.definition_version)
        .ok_or_else(|| {
            Rejection::new(format_args!(
                "no definition of saga {} version {}",
                record.saga_type, record.definition_version
            ))
        })?;
    let before = record.saga();
    let (after, commands) = saga::step(definition, &before, input).map_err(Rejection::new)?;
    if after == before && commands.is_empty() {
        return Ok(None);
    }
    record.take(after, now);
    execute(domain, record, commands, now).map(Some)
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
                let send = Send {
                    topic,
                    step,
                    direction,
                    message_id,
                };
                commit.publish(record.traced(domain.request(&record, &send, now)?));
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

/// The input for a timer's message.
#[must_use]
pub fn timeout_input(timeout: &SagaTimeout) -> Input {
    Input::Timeout {
        step: timeout.step as usize,
        direction: if timeout.compensating {
            Direction::Compensation
        } else {
            Direction::Request
        },
        attempt: timeout.attempt,
    }
}

fn timeout_message<D: Domain>(id: String, timeout: &SagaTimeout, due_at: Timestamp) -> Message {
    let key = timeout.saga_id.to_string();
    Message::on(D::TIMEOUT_TOPIC, key, id, timeout, due_at)
}

fn timer_id(saga_id: SagaId) -> String {
    format!("saga/{saga_id}")
}
