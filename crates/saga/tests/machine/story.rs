//! The two sagas of the tests, which have nothing in common but the machine, and words to tell their stories in.

use saga::{Backoff, Command, Definition, Direction, Input, Outcome, Saga, Step, start, step};

/// One repetition and then the limit: short enough to walk through by hand, and to explore exhaustively.
const BACKOFF: Backoff = Backoff {
    initial_millis: 100,
    max_millis: 150,
    retry_limit: 1,
};

/// A purchase: two checks that leave nothing behind, two steps that do.
pub const PURCHASE: Definition = Definition {
    kind: "purchase",
    version: 1,
    steps: &[
        Step::new("check.active", "check.active.request")
            .harmless()
            .timeout_millis(1_000)
            .retry_limit(1),
        Step::new("reserve.points", "reserve.points.request")
            .compensated_by("restore.points.request")
            .timeout_millis(2_000)
            .retry_limit(1)
            .compensation_backoff(BACKOFF),
        Step::new("check.fraud", "check.fraud.request")
            .harmless()
            .timeout_millis(1_000)
            .retry_limit(1),
        Step::new("create.payment", "create.payment.request")
            .compensated_by("delete.payment.request")
            .timeout_millis(3_000)
            .retry_limit(1)
            .compensation_backoff(BACKOFF),
    ],
};

/// A trip: two bookings that can be given back, and a visa fee that cannot, once everything hangs on it.
pub const TRIP: Definition = Definition {
    kind: "trip",
    version: 1,
    steps: &[
        Step::new("flight", "flight.book.request")
            .compensated_by("flight.cancel.request")
            .retry_limit(1)
            .compensation_backoff(BACKOFF),
        Step::new("hotel", "hotel.book.request")
            .compensated_by("hotel.cancel.request")
            .retry_limit(1)
            .compensation_backoff(BACKOFF),
        Step::new("visa", "visa.pay.request")
            .retry_limit(1)
            .must_succeed(),
    ],
};

pub fn proceed(step: usize) -> Input {
    Input::Reply {
        step,
        direction: Direction::Request,
        outcome: Outcome::Proceed,
    }
}

pub fn refuse(step: usize, reason: &str) -> Input {
    Input::Reply {
        step,
        direction: Direction::Request,
        outcome: Outcome::Refuse {
            reason: reason.to_owned(),
        },
    }
}

pub fn undone(step: usize) -> Input {
    Input::Reply {
        step,
        direction: Direction::Compensation,
        outcome: Outcome::Proceed,
    }
}

pub fn undoing_refused(step: usize, reason: &str) -> Input {
    Input::Reply {
        step,
        direction: Direction::Compensation,
        outcome: Outcome::Refuse {
            reason: reason.to_owned(),
        },
    }
}

pub fn silence(step: usize, attempt: u32) -> Input {
    Input::Timeout {
        step,
        direction: Direction::Request,
        attempt,
    }
}

pub fn undoing_silent(step: usize, attempt: u32) -> Input {
    Input::Timeout {
        step,
        direction: Direction::Compensation,
        attempt,
    }
}

pub fn abort() -> Input {
    Input::Abort {
        reason: "called off".to_owned(),
    }
}

/// A saga with its definition, moved by one input after another.
pub struct Story {
    pub definition: &'static Definition,
    pub saga: Saga,
    /// What the last input led to.
    pub commands: Vec<Command>,
}

impl Story {
    pub fn start(definition: &'static Definition) -> Self {
        let (saga, commands) = start(definition);
        Self {
            definition,
            saga,
            commands,
        }
    }

    /// A story in which these inputs have happened.
    pub fn after(definition: &'static Definition, inputs: impl IntoIterator<Item = Input>) -> Self {
        let mut story = Self::start(definition);
        for input in inputs {
            story.give(input);
        }
        story
    }

    pub fn give(&mut self, input: Input) -> &mut Self {
        let (saga, commands) =
            step(self.definition, &self.saga, input).expect("the input fits the definition");
        self.saga = saga;
        self.commands = commands;
        self
    }

    /// The topics sent because of the last input.
    pub fn sent(&self) -> Vec<&'static str> {
        let topic = |command: &Command| match command {
            Command::Send { topic, .. } => Some(*topic),
            Command::SetTimer { .. }
            | Command::CancelTimer
            | Command::Finished { .. }
            | Command::Parked { .. } => None,
        };
        self.commands.iter().filter_map(topic).collect()
    }

    /// The stored states of the steps, as one line.
    pub fn steps(&self) -> String {
        self.saga
            .steps
            .iter()
            .map(|progress| progress.state.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// That this input is too late, foreign or stale: nothing comes of it.
    #[track_caller]
    pub fn assert_ignores(&self, input: Input) {
        let (saga, commands) = step(self.definition, &self.saga, input.clone())
            .expect("the input fits the definition");
        assert_eq!(
            (&saga, commands.as_slice()),
            (&self.saga, [].as_slice()),
            "after {input:?}"
        );
    }
}
