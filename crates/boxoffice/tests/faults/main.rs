//! The known faults of this kind of system, each with a test that fails if the fault is introduced again.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "../scenarios/actions.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod actions;
#[path = "../scenarios/deployment.rs"]
mod deployment;
#[path = "../scenarios/end_state.rs"]
mod end_state;
#[cfg(feature = "kafka")]
#[path = "../scenarios/engine_namespace.rs"]
mod engine_namespace;
mod failing_writes;
#[path = "../scenarios/gateway.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod gateway;
mod messages;
mod sale;
#[path = "../scenarios/test_app.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod test_app;
