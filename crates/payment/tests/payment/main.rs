//! The payment service with its consumer and settler, on the embedded store, against the real sandbox.

#![expect(
    clippy::unwrap_used,
    reason = "a test that finds something broken ends there"
)]

mod confirming;
mod deposits;
mod gateway_binding;
mod http;
mod reconciling;
mod refund_ends;
mod refunding;
mod restarting;
mod settling;
mod support;
mod webhooks;
