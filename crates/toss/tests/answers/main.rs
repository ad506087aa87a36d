//! The gateway's client against a peer that answers bytes of the test's choice, and breaks where the test wants it to.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod answering;
mod limits;
mod listing;
mod peer;
mod proof;
mod repeating;
