//! A saga: one purpose that takes several participants, none of whom can be rolled back by the others.
//!
//! A trip needs a flight, a hotel and a car. Each is booked by another company; if there is no car, the hotel
//! and then the flight are given back. This crate is the part that decides what comes next, and nothing else:
//!
//! ```text
//! step(definition, saga, input) -> (saga, commands)
//! ```
//!
//! It is a pure function. It sends nothing, waits for nothing and knows no clock: a timer is a command going
//! out and an input coming back. The shell around it loads the saga, calls [`step`], and stores the new saga
//! together with its commands in one commit. So every rule below is tested without a network, and recovery
//! after a crash is nothing but handing in the same input again.
//!
//! ```
//! use saga::{Command, Definition, Direction, Input, Outcome, SagaState, Step, start, step};
//!
//! const TRIP: Definition = Definition {
//!     kind: "trip.book",
//!     version: 1,
//!     steps: &[
//!         Step::new("flight", "flight.book.request").compensated_by("flight.cancel.request"),
//!         Step::new("hotel", "hotel.book.request").compensated_by("hotel.cancel.request"),
//!         Step::new("car", "car.rent.request").compensated_by("car.return.request").timeout_millis(2_000),
//!     ],
//! };
//!
//! let reply = |step, direction, outcome| Input::Reply { step, direction, outcome };
//! let sent = |commands: &[Command]| match commands[0] {
//!     Command::Send { topic, .. } => topic,
//!     _ => "nothing",
//! };
//!
//! // Forward, one step at a time.
//! let (saga, commands) = start(&TRIP);
//! assert_eq!(sent(&commands), "flight.book.request");
//! let (saga, commands) = step(&TRIP, &saga, reply(0, Direction::Request, Outcome::Proceed))?;
//! assert_eq!(sent(&commands), "hotel.book.request");
//! let (saga, _) = step(&TRIP, &saga, reply(1, Direction::Request, Outcome::Proceed))?;
//! assert_eq!(saga.current_step(), Some("car"));
//!
//! // No car to be had: back, in exact reverse.
//! let no_car = Outcome::Refuse { reason: "no car left".to_owned() };
//! let (saga, commands) = step(&TRIP, &saga, reply(2, Direction::Request, no_car))?;
//! assert_eq!(sent(&commands), "hotel.cancel.request");
//! let (saga, commands) = step(&TRIP, &saga, reply(1, Direction::Compensation, Outcome::Proceed))?;
//! assert_eq!(sent(&commands), "flight.cancel.request");
//! let (saga, _) = step(&TRIP, &saga, reply(0, Direction::Compensation, Outcome::Proceed))?;
//!
//! assert_eq!(saga.state, SagaState::Compensated);
//! assert_eq!(saga.failure.as_deref(), Some("no car left"));
//! # Ok::<(), saga::Illegal>(())
//! ```
//!
//! # The states
//!
//! ```text
//!             every step proceeds
//!   STARTED ───────────────────────────────► COMPLETED
//!    │  ▲ │
//!    │  │ │ refused │ silent │ aborted
//!    │  │ └──────────► COMPENSATING ───────► COMPENSATED
//!    │  │                │  ▲    every compensation proceeds
//!    ▼  │                ▼  │
//!   parked              parked         a late reply or Resume sets it going again
//! ```
//!
//! Parked is not a state of its own but a note on one: the saga stands where it stood and says why.
//!
//! # The rules
//!
//! - **A refusal** ends the way forward. The refusing step is FAILED and is not undone: it took nothing.
//!   A step that [must succeed](Step::must_succeed) parks the saga instead.
//! - **Silence** is answered by sending again, up to the step's limit. Past it the outcome is unknown, and
//!   what is unknown is undone as if it had been done.
//! - **The way back** undoes in exact reverse every step that succeeded or may have. A step without a
//!   compensation is passed over: it stays SUCCEEDED, or becomes FAILED if it never answered.
//! - **A compensation** is repeated with [`Backoff`] until it proceeds, whether it is refused or ignored.
//!   Past its limit the saga parks. It never gives up silently.
//! - **An end before the beginning** is remembered too: a saga that is [forestalled](forestall) has turned back before its
//!   first request, so that a start which comes later finds it.
//! - **Duplicates**, late, foreign and stale inputs change nothing; a saga that has ended never changes.
//!
//! # What participants promise
//!
//! They remember what they did by saga: a request or a compensation seen again is answered again, and has no
//! second effect; a refusal, once given, stands. A compensation that overtakes its request proceeds and leaves a
//! tombstone, so that the late request does nothing. `tests/machine/model` explores the orders of events between
//! such participants and this machine.

mod check;
mod definition;
mod illegal;
mod machine;
mod message;
mod progress;
mod validate;

pub use definition::{Backoff, Catalog, Definition, Failure, Step};
pub use illegal::{Illegal, Inconsistency};
pub use machine::{forestall, start, step};
pub use message::{Command, Direction, Input, Outcome};
pub use progress::{Pending, Saga, SagaState, StepProgress, StepState};
pub use validate::Flaw;
