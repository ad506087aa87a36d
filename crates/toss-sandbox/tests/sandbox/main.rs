//! The sandbox as its users see it: on the wire, by the gateway's protocol and by its control API.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod accounts;
mod faults;
mod harness;
mod totals;
mod transactions;
mod webhooks;
mod windows;
