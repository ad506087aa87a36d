//! The exhaustive search: every order in which things can happen between the production machine and its
//! participants, over a network that delays, reorders, repeats and loses, with crashes anywhere.
//!
//! A crash needs no state of its own. One *before* the commit leaves everything as it was, the message still
//! waiting: that is the message not delivered yet. One *after* the commit and before the acknowledgement has
//! the message delivered again. One between commit and publishing is a message that travels late. This holds
//! for the coordinator and for the participants alike.

mod participant;
mod search;
mod world;

use saga::{Saga, SagaState, StepProgress, StepState};
use stateright::Property;

use world::{Run, Town, World};

/// What must be true in every world that can come about.
pub fn promises() -> Vec<Property<Town>> {
    vec![
        Property::always(
            "a compensated saga has no effect standing",
            |town, world| {
                town.runs(world).all(|(definition, run)| {
                    run.saga.state != SagaState::Compensated
                        || run.standing(definition).next().is_none()
                })
            },
        ),
        Property::always("a completed saga has every effect", |town, world| {
            town.runs(world).all(|(definition, run)| {
                run.saga.state != SagaState::Completed
                    || (run.participants.len() == definition.steps.len()
                        && run.participants.iter().all(|p| p.taken))
            })
        }),
        Property::always("effects are undone in reverse order", |town, world| {
            town.runs(world).all(|(definition, run)| {
                let first_undone = run.participants.iter().position(|p| p.compensated);
                first_undone
                    .is_none_or(|first| run.standing(definition).all(|standing| standing < first))
            })
        }),
        Property::always(
            "no request takes effect after its compensation",
            |_, world: &World| {
                world
                    .runs
                    .iter()
                    .flat_map(|run| &run.participants)
                    .all(|p| !(p.taken && p.compensated))
            },
        ),
        Property::always(
            "a saga that moves has the timer of what it waits for, any other has none",
            |_, world: &World| {
                world
                    .runs
                    .iter()
                    .all(|run| run.timer == run.saga.pending().filter(|_| !run.saga.is_parked()))
            },
        ),
        Property::always(
            "what has ended never changes, and a stale timer changes nothing",
            |_, world: &World| world.broken.is_none(),
        ),
        Property::eventually("every saga ends or is parked", |_, world: &World| {
            world.runs.iter().all(Run::is_at_rest)
        }),
    ]
}

/// What must be possible, or the search has looked at nothing.
pub fn possibilities() -> Vec<Property<Town>> {
    vec![
        Property::sometimes("every saga completes", |_, world: &World| {
            world
                .runs
                .iter()
                .all(|run| run.saga.state == SagaState::Completed)
        }),
        Property::sometimes("every saga is compensated", |_, world: &World| {
            world
                .runs
                .iter()
                .all(|run| run.saga.state == SagaState::Compensated)
        }),
        Property::sometimes(
            "a tombstone stops a late request of a saga that has ended",
            |_, world: &World| {
                let stopped = |run: &Run| run.participants.iter().any(|p| p.stopped_late_request);
                world
                    .runs
                    .iter()
                    .any(|run| run.saga.state == SagaState::Compensated && stopped(run))
            },
        ),
        Property::sometimes(
            "a step is undone that never answered",
            |_, world: &World| {
                let is_undone = |step: &StepProgress| step.state == StepState::Compensated;
                let was_silent = |reason: &String| reason.contains("no answer to the request");
                let found = |saga: &Saga| {
                    saga.failure.as_ref().is_some_and(was_silent)
                        && saga.steps.last().is_some_and(is_undone)
                };
                world.runs.iter().any(|run| found(&run.saga))
            },
        ),
        Property::sometimes("a way back is parked", |_, world: &World| {
            world
                .runs
                .iter()
                .any(|run| run.saga.is_parked() && run.saga.state == SagaState::Compensating)
        }),
    ]
}
