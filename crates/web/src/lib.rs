//! What every service's HTTP door shares: problem details, strict bodies and parameters, idempotency keys.
//!
//! - [`problem`]: [`Problem`], the one shape of every refusal (RFC 9457) with a stable `code`
//! - [`extract`]: [`Body`], [`Id`], [`Params`] and [`Asker`], which name the field that is wrong
//! - [`idempotency`]: [`Once`], which makes a POST with an `Idempotency-Key` happen once
//! - [`page`]: lists in pages
//! - [`schema`]: schemas of texts that several services take

pub mod extract;
pub mod idempotency;
pub mod page;
pub mod problem;
pub mod schema;

pub use extract::{Asker, Body, Id, Params, optional_object};
pub use idempotency::Once;
pub use page::Page;
pub use problem::{HeldTicket, Problem, ProblemDetails};
