//! The trace of the work in progress, for what it publishes and logs. It belongs to the task, as logging does, so that no
//! use case passes it on; only [`Commit`](crate::Commit) and the logs read it. State: a task-local.

use std::cell::OnceCell;

use super::TraceContext;
use crate::{Message, Random};

tokio::task_local! {
    static CURRENT: Current;
}

/// Made on first use: most requests publish and log nothing.
struct Current {
    made: OnceCell<TraceContext>,
    of_request: Option<(Option<TraceContext>, Random)>,
}

impl Current {
    fn known(trace: Option<TraceContext>) -> Self {
        Self {
            made: trace.map(OnceCell::from).unwrap_or_default(),
            of_request: None,
        }
    }

    fn get(&self) -> Option<TraceContext> {
        let Some((caller, random)) = &self.of_request else {
            return self.made.get().copied();
        };
        let make = || match caller {
            Some(caller) => caller.go_on(random),
            None => TraceContext::begin(random),
        };
        Some(*self.made.get_or_init(make))
    }
}

/// The context of the request or message being handled; `None` if it has none.
#[must_use]
pub fn current() -> Option<TraceContext> {
    CURRENT.try_with(Current::get).ok().flatten()
}

/// Answers a request, in the trace of its caller or in a new one.
pub async fn requested<F: Future>(
    caller: Option<TraceContext>,
    random: &Random,
    answer: F,
) -> F::Output {
    let current = Current {
        made: OnceCell::new(),
        of_request: Some((caller, random.clone())),
    };
    CURRENT.scope(current, answer).await
}

/// Decides a message, in its trace.
pub fn handling<T>(message: &Message, group: &str, decide: impl FnOnce() -> T) -> T {
    let trace = message
        .trace
        .map(|trace| trace.handled_by(group, &message.id));
    CURRENT.sync_scope(Current::known(trace), decide)
}

/// For work that continues in a task of its own: it stays in the trace that it began in.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(Current::known(current()), future)
}
