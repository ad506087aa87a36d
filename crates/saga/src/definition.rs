//! What a saga does, written down as a constant table: its steps in order, and how each is undone.
//!
//! A definition owns no state. It never changes once sagas have been stored under its version: a new list
//! of steps is a new version, and the [`Catalog`] keeps the old one until its last saga has ended.

use crate::message::Direction;

/// An ordered list of steps, under a name and a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// What this saga is called wherever it is stored.
    pub kind: &'static str,
    /// Raised whenever the steps change; a stored saga keeps the version it was started with.
    pub version: u32,
    /// The steps, in the order in which they are requested.
    pub steps: &'static [Step],
}

/// One request to one participant, and how it is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The step's name in stored sagas; unique within its definition.
    pub name: &'static str,
    /// The topic of the request.
    pub request: &'static str,
    /// The topic that undoes the request; `None` where there is nothing to undo.
    pub compensation: Option<&'static str>,
    /// How long one request may stay unanswered.
    pub timeout_millis: u64,
    /// How often an unanswered request is sent again after the first.
    pub retry_limit: u32,
    /// What happens when the participant says no.
    pub when_refused: Failure,
    /// What happens when the last request stays unanswered.
    pub when_silent: Failure,
    /// How a compensation is repeated.
    pub compensation_backoff: Backoff,
}

/// What a step that does not succeed does to its saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The saga turns back and undoes what it did.
    Compensate,
    /// The saga stops where it stands, until a reply or a person moves it.
    Park,
}

/// A capped exponential wait for a compensation's reply before the compensation is sent again.
///
/// The wait is exact. Whoever sets the timer may add jitter: the machine accepts a timer at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first sending; every further one is twice as long.
    pub initial_millis: u64,
    /// The longest wait.
    pub max_millis: u64,
    /// How often the compensation is sent again before the saga is parked.
    pub retry_limit: u32,
}

impl Backoff {
    /// The wait after the sending that follows `retries` repetitions.
    ///
    /// ```
    /// let backoff = saga::Backoff { initial_millis: 100, max_millis: 500, retry_limit: 9 };
    /// assert_eq!([0, 1, 2, 3, 4000].map(|n| backoff.wait_millis(n)), [100, 200, 400, 500, 500]);
    /// ```
    #[must_use]
    pub const fn wait_millis(&self, retries: u32) -> u64 {
        // Past 2^63 the doubling has long met any cap.
        let factor = if retries < 64 {
            1_u64 << retries
        } else {
            u64::MAX
        };
        let wait = self.initial_millis.saturating_mul(factor);
        if wait < self.max_millis {
            wait
        } else {
            self.max_millis
        }
    }
}

impl Step {
    /// A step that is asked for within 10 seconds, three times again, and turns the saga back when it fails.
    #[must_use]
    pub const fn new(name: &'static str, request: &'static str) -> Self {
        Self {
            name,
            request,
            compensation: None,
            timeout_millis: 10_000,
            retry_limit: 3,
            when_refused: Failure::Compensate,
            when_silent: Failure::Compensate,
            compensation_backoff: Backoff {
                initial_millis: 1_000,
                max_millis: 60_000,
                retry_limit: 10,
            },
        }
    }

    /// Names the topic that undoes this step.
    #[must_use]
    pub const fn compensated_by(mut self, topic: &'static str) -> Self {
        self.compensation = Some(topic);
        self
    }

    /// Sets how long one request may stay unanswered.
    #[must_use]
    pub const fn timeout_millis(mut self, millis: u64) -> Self {
        self.timeout_millis = millis;
        self
    }

    /// Sets how often an unanswered request is sent again after the first.
    #[must_use]
    pub const fn retry_limit(mut self, limit: u32) -> Self {
        self.retry_limit = limit;
        self
    }

    /// Sets what a refusal does to the saga.
    #[must_use]
    pub const fn when_refused(mut self, failure: Failure) -> Self {
        self.when_refused = failure;
        self
    }

    /// Sets what lasting silence does to the saga.
    #[must_use]
    pub const fn when_silent(mut self, failure: Failure) -> Self {
        self.when_silent = failure;
        self
    }

    /// Past this step there is no way back: refused or silent, it waits for a person instead of turning round.
    #[must_use]
    pub const fn must_succeed(self) -> Self {
        self.when_refused(Failure::Park).when_silent(Failure::Park)
    }

    /// Sets how the compensation is repeated.
    #[must_use]
    pub const fn compensation_backoff(mut self, backoff: Backoff) -> Self {
        self.compensation_backoff = backoff;
        self
    }

    /// The topic on which this step is asked for or undone; `None` for the undoing of what cannot be undone.
    #[must_use]
    pub const fn topic(&self, direction: Direction) -> Option<&'static str> {
        match direction {
            Direction::Request => Some(self.request),
            Direction::Compensation => self.compensation,
        }
    }
}

impl Definition {
    /// The step, and the direction, that this request or compensation topic belongs to.
    #[must_use]
    pub fn find_by_request(&self, topic: &str) -> Option<(usize, Direction)> {
        self.find(|sent| sent == topic)
    }

    /// The step, and the direction, that a reply on this topic answers, where topics follow the convention
    /// that `something.request` is answered on `something.response`.
    #[must_use]
    pub fn find_by_response(&self, topic: &str) -> Option<(usize, Direction)> {
        let stem = topic.strip_suffix(".response")?;
        self.find(|sent| sent.strip_suffix(".request") == Some(stem))
    }

    /// The index of the step of this name.
    #[must_use]
    pub fn find_by_name(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.name == name)
    }

    fn find(&self, matches: impl Fn(&str) -> bool) -> Option<(usize, Direction)> {
        self.steps.iter().enumerate().find_map(|(at, step)| {
            [Direction::Request, Direction::Compensation]
                .into_iter()
                .find(|direction| step.topic(*direction).is_some_and(&matches))
                .map(|direction| (at, direction))
        })
    }
}

/// Every definition that a stored saga may still need: the newest of each kind, and all before it.
#[derive(Debug, Clone, Copy)]
pub struct Catalog(pub &'static [&'static Definition]);

impl Catalog {
    /// The definition that a saga of this kind and version was started with.
    #[must_use]
    pub fn find(&self, kind: &str, version: u32) -> Option<&'static Definition> {
        self.0
            .iter()
            .copied()
            .find(|definition| definition.kind == kind && definition.version == version)
    }

    /// The definition for a saga that starts now.
    #[must_use]
    pub fn latest(&self, kind: &str) -> Option<&'static Definition> {
        self.0
            .iter()
            .copied()
            .filter(|definition| definition.kind == kind)
            .max_by_key(|definition| definition.version)
    }
}
