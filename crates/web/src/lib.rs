//! Shared by the HTTP APIs of all services: problem details, strict bodies and parameters, idempotency keys. Its only
//! state is the table of saved answers.
//!
//! - [`problem`]: [`Problem`], the form of all refusals (RFC 9457) with a stable `code`
//! - [`extract`]: [`Body`], [`Id`], [`Params`] and [`Caller`], which name the wrong field
//! - [`idempotency`]: [`IdempotentRequest`], which runs a request with an `Idempotency-Key` once
//! - [`page`]: paged lists
//! - [`schema`]: OpenAPI schemas of texts that several services accept

pub mod extract;
pub mod idempotency;
pub mod page;
pub mod problem;
pub mod schema;

pub use extract::{Body, Caller, Id, Params, optional_object};
pub use idempotency::IdempotentRequest;
pub use page::Page;
pub use problem::{ExistingReservation, Problem, ProblemDetails};
