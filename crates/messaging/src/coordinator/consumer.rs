//! The consumer of a domain's sagas: it advances them by replies and timeouts.

use saga::{DefinitionError, Direction, Input, Outcome};
use serde_json::{Map, Value};

use super::{Domain, Progress, SagaRecord, SagaTimeout, advance, stored_definition};
use crate::{
    Commit, Consumer, Decision, Group, Message, Records, Ref, Rejection, SagaId, Timestamp,
    message::response_topic,
};

/// Advances the sagas of a domain. Run it by [`Runner::saga`](crate::Runner::saga).
pub struct Coordinator<D>(D);

/// Why a domain's sagas cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDomain {
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error("a request topic ends with .request, so that its reply is found; {topic} does not")]
    NotARequest { topic: &'static str },
    #[error("sagas wait for {topic}, which is not among the topics of their domain")]
    NotConsumed { topic: String },
}

impl<D: Domain> Coordinator<D> {
    /// # Errors
    /// [`InvalidDomain`], as [`check`].
    pub fn new(domain: D) -> Result<Self, InvalidDomain> {
        check::<D>()?;
        Ok(Self(domain))
    }
}

/// Checks the definitions, and that the domain's topics have every reply and the timeout.
///
/// # Errors
/// [`InvalidDomain`]: the first flaw found.
pub fn check<D: Domain>() -> Result<(), InvalidDomain> {
    D::CATALOG.validate()?;
    let mut awaited = vec![D::TIMEOUT_TOPIC.to_owned()];
    for step in D::CATALOG.0.iter().flat_map(|it| it.steps) {
        for topic in [Some(step.request), step.compensation]
            .into_iter()
            .flatten()
        {
            let response = response_topic(topic);
            awaited.push(response.ok_or(InvalidDomain::NotARequest { topic })?);
        }
    }
    let is_consumed = |topic: &String| D::GROUP.topics.contains(&topic.as_str());
    match awaited.into_iter().find(|topic| !is_consumed(topic)) {
        Some(topic) => Err(InvalidDomain::NotConsumed { topic }),
        None => Ok(()),
    }
}

/// A participant's reply.
#[derive(Debug, Clone)]
pub struct Reply {
    pub saga_id: SagaId,
    pub outcome: Outcome,
    /// Fields for the saga's payload, such as the id of what was created. A field that is there stays, and null adds none.
    pub learned: Map<String, Value>,
}

impl Reply {
    /// The reply is a refusal with this reason, unless the saga `proceeds`.
    #[must_use]
    pub fn new(saga_id: SagaId, proceeds: bool, refusal: &str) -> Self {
        let reason = refusal.to_owned();
        Self {
            saga_id,
            outcome: match proceeds {
                true => Outcome::Proceed,
                false => Outcome::Refuse { reason },
            },
            learned: Map::new(),
        }
    }

    /// Adds a field to the saga's payload.
    #[must_use]
    pub fn learning(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.learned.insert(field.to_owned(), value.into());
        self
    }

    /// Whether this changed the payload. A saga that has ended never changes.
    fn teach(&self, saga: &mut SagaRecord) -> bool {
        let Value::Object(payload) = &mut saga.payload else {
            return false;
        };
        if saga.state.is_terminal() {
            return false;
        }
        let mut is_changed = false;
        for (field, value) in &self.learned {
            if !value.is_null() && payload.get(field).is_none_or(Value::is_null) {
                payload.insert(field.clone(), value.clone());
                is_changed = true;
            }
        }
        is_changed
    }
}

/// A message to a stored saga.
#[derive(Debug, Clone)]
pub enum SagaMessage {
    Reply { topic: String, reply: Reply },
    Timeout(SagaTimeout),
}

impl SagaMessage {
    /// # Errors
    /// A [`Rejection`] if the message cannot be read.
    pub fn read<D: Domain>(domain: &D, message: &Message) -> Result<Self, Rejection> {
        if message.topic == D::TIMEOUT_TOPIC {
            return message.parse().map(Self::Timeout);
        }
        Ok(Self::Reply {
            topic: message.topic.clone(),
            reply: domain.read_reply(message)?,
        })
    }

    #[must_use]
    pub fn saga_id(&self) -> SagaId {
        match self {
            Self::Reply { reply, .. } => reply.saga_id,
            Self::Timeout(timeout) => timeout.saga_id,
        }
    }

    /// The saga that it is for.
    ///
    /// # Errors
    /// A [`Rejection`] if there is none.
    pub fn saga(&self, records: &Records) -> Result<SagaRecord, Rejection> {
        let saga_id = self.saga_id();
        let saga = records.get(saga_id)?;
        saga.ok_or_else(|| Rejection::new(format_args!("there is no saga {saga_id}")))
    }

    /// Advances its saga, under the definition that it began with. `None` if nothing changes.
    ///
    /// # Errors
    /// A [`Rejection`] if the saga does not wait for this topic, or does not fit its definition.
    pub fn advance<D: Domain>(
        &self,
        domain: &D,
        mut saga: SagaRecord,
        now: Timestamp,
    ) -> Result<Option<Progress>, Rejection> {
        let (topic, reply) = match self {
            Self::Timeout(timeout) => return advance(domain, saga, timeout.input(), now),
            Self::Reply { topic, reply } => (topic, reply),
        };
        let definition = stored_definition::<D>(&saga)?;
        let (step, direction) = definition.find_by_response(topic).ok_or_else(|| {
            let kind = &saga.saga_type;
            Rejection::new(format_args!(
                "a saga of type {kind} does not wait for {topic}"
            ))
        })?;
        let input = Input::Reply {
            step,
            direction,
            outcome: reply.outcome.clone(),
        };
        // A late reply does not advance the saga, but a later compensation may need what it says.
        let learned = reply.teach(&mut saga).then(|| saga.clone());
        let advanced = advance(domain, saga, input, now)?;
        Ok(advanced.or_else(|| learned.map(stored)))
    }
}

impl SagaTimeout {
    fn input(&self) -> Input {
        Input::Timeout {
            step: self.step as usize,
            direction: match self.compensating {
                true => Direction::Compensation,
                false => Direction::Request,
            },
            attempt: self.attempt,
        }
    }
}

/// Only the saga's payload changed.
fn stored(record: SagaRecord) -> Progress {
    let mut commit = Commit::new();
    commit.put(&record);
    Progress {
        record,
        commit,
        finished: None,
    }
}

impl<D: Domain> Consumer for Coordinator<D> {
    type Input = SagaMessage;
    type Prefetched = ();
    type Outcome = ();

    fn group(&self) -> Group {
        D::GROUP
    }

    fn read(&self, message: &Message) -> Result<SagaMessage, Rejection> {
        SagaMessage::read(&self.0, message)
    }

    fn required_records(&self, input: &SagaMessage) -> Vec<Ref> {
        vec![Ref::to::<SagaRecord>(input.saga_id())]
    }

    fn decide(
        &self,
        _message: &Message,
        input: &SagaMessage,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        let progress = input.advance(&self.0, input.saga(records)?, now)?;
        let commit = progress.map(|progress| self.0.commit(progress, now));
        Ok(commit.unwrap_or_default().into())
    }
}
