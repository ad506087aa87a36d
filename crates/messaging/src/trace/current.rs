//! What is being handled at this moment, for whatever is published or logged meanwhile. It belongs to the task, as
//! logging does, so that no use case passes it on; only [`Commit`](crate::Commit) and the logs read it.

use std::cell::OnceCell;

use super::TraceContext;
use crate::{Message, Random};

tokio::task_local! {
    static CURRENT: Current;
}

/// Made when it is asked for: most requests publish nothing and log nothing.
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

/// The context that belongs to what is published now; `None` outside of requests and messages that have one.
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

/// Decides about a message, in its trace.
pub fn handling<T>(message: &Message, group: &str, decide: impl FnOnce() -> T) -> T {
    let trace = message
        .trace
        .map(|trace| trace.handled_by(group, &message.id));
    CURRENT.sync_scope(Current::known(trace), decide)
}

/// For what goes on in a task of its own: it stays in the trace of whoever began it.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(Current::known(current()), future)
}
