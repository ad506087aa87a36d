//! Definitions: the steps of a saga in order, and their compensations, as constants. No state.
//!
//! A definition must not change once sagas are stored under its version: a new list of steps is a new version, and the
//! [`Catalog`] keeps the old one until its last saga has ended.

use crate::message::Direction;

/// An ordered list of steps, under a name and a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The name of this kind of saga in stored sagas.
    pub kind: &'static str,
    /// Incremented whenever the steps change; a stored saga keeps the version it was started with.
    pub version: u32,
    /// The steps, in the order in which they are requested.
    pub steps: &'static [Step],
}

/// One request to one participant, and its compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The step's name in stored sagas; unique within its definition.
    pub name: &'static str,
    /// The topic of the request.
    pub request: &'static str,
    /// The topic of the compensation; `None` if there is nothing to undo.
    pub compensation: Option<&'static str>,
    /// Whether the request has no effect that must be undone: only then may a step without compensation compensate its
    /// saga when it times out, because the request may have been handled.
    pub is_harmless: bool,
    /// The timeout of one attempt.
    pub timeout_millis: u64,
    /// How often an unanswered request is sent again after the first attempt.
    pub retry_limit: u32,
    /// What a refusal does.
    pub on_refusal: OnFailure,
    /// What the timeout of the last attempt does.
    pub on_timeout: OnFailure,
    /// When and how often the compensation is retried.
    pub compensation_backoff: Backoff,
}

/// What a step that did not succeed does to its saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The saga compensates.
    Compensate,
    /// The saga parks until a late reply or an operator moves it.
    Park,
}

/// The capped exponential wait for a compensation's reply before the compensation is sent again.
///
/// The wait has no jitter. The caller may add some: the machine accepts a timer at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first attempt; it doubles with each further attempt.
    pub initial_millis: u64,
    /// The longest wait.
    pub max_millis: u64,
    /// How often the compensation is sent again before the saga parks.
    pub retry_limit: u32,
}

impl Backoff {
    /// The wait after the attempt that follows `retries` retries.
    ///
    /// ```
    /// let backoff = saga::Backoff { initial_millis: 100, max_millis: 500, retry_limit: 9 };
    /// assert_eq!([0, 1, 2, 3, 4000].map(|n| backoff.wait_millis(n)), [100, 200, 400, 500, 500]);
    /// ```
    #[must_use]
    pub const fn wait_millis(&self, retries: u32) -> u64 {
        // 2^64 does not fit, and 2^63 exceeds any sensible cap.
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
    /// A step with a timeout of 10 s and three retries, which compensates the saga if it fails.
    #[must_use]
    pub const fn new(name: &'static str, request: &'static str) -> Self {
        Self {
            name,
            request,
            compensation: None,
            is_harmless: false,
            timeout_millis: 10_000,
            retry_limit: 3,
            on_refusal: OnFailure::Compensate,
            on_timeout: OnFailure::Compensate,
            compensation_backoff: Backoff {
                initial_millis: 1_000,
                max_millis: 60_000,
                retry_limit: 10,
            },
        }
    }

    /// Sets the topic of the compensation.
    #[must_use]
    pub const fn compensated_by(mut self, topic: &'static str) -> Self {
        self.compensation = Some(topic);
        self
    }

    /// Declares that the request has no effect that must be undone, such as a check.
    #[must_use]
    pub const fn harmless(mut self) -> Self {
        self.is_harmless = true;
        self
    }

    /// Sets the timeout of one attempt.
    #[must_use]
    pub const fn timeout_millis(mut self, millis: u64) -> Self {
        self.timeout_millis = millis;
        self
    }

    /// Sets how often an unanswered request is sent again after the first attempt.
    #[must_use]
    pub const fn retry_limit(mut self, limit: u32) -> Self {
        self.retry_limit = limit;
        self
    }

    /// Sets what a refusal does.
    #[must_use]
    pub const fn on_refusal(mut self, failure: OnFailure) -> Self {
        self.on_refusal = failure;
        self
    }

    /// Sets what the timeout of the last attempt does.
    #[must_use]
    pub const fn on_timeout(mut self, failure: OnFailure) -> Self {
        self.on_timeout = failure;
        self
    }

    /// The saga does not compensate once this step is requested: refused or timed out, it parks.
    #[must_use]
    pub const fn must_succeed(self) -> Self {
        self.on_refusal(OnFailure::Park).on_timeout(OnFailure::Park)
    }

    /// Sets when and how often the compensation is retried.
    #[must_use]
    pub const fn compensation_backoff(mut self, backoff: Backoff) -> Self {
        self.compensation_backoff = backoff;
        self
    }

    /// The topic of this step's request or compensation; `None` if it has no compensation.
    #[must_use]
    pub const fn topic(&self, direction: Direction) -> Option<&'static str> {
        match direction {
            Direction::Request => Some(self.request),
            Direction::Compensation => self.compensation,
        }
    }
}

impl Definition {
    /// The step and direction of a reply topic, if topics follow the convention that `something.request` is answered on
    /// `something.response`.
    #[must_use]
    pub fn find_by_response(&self, topic: &str) -> Option<(usize, Direction)> {
        let stem = topic.strip_suffix(".response")?;
        let is_asked = |sent: &str| sent.strip_suffix(".request") == Some(stem);
        self.steps.iter().enumerate().find_map(|(at, step)| {
            [Direction::Request, Direction::Compensation]
                .into_iter()
                .find(|direction| step.topic(*direction).is_some_and(is_asked))
                .map(|direction| (at, direction))
        })
    }
}

/// The definitions that stored sagas may need: the newest of each kind, and earlier versions.
#[derive(Debug, Clone, Copy)]
pub struct Catalog(pub &'static [&'static Definition]);

impl Catalog {
    /// The definition of this kind and version.
    #[must_use]
    pub fn find(&self, kind: &str, version: u32) -> Option<&'static Definition> {
        self.0
            .iter()
            .copied()
            .find(|definition| definition.kind == kind && definition.version == version)
    }
}
