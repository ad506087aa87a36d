//! The payment service with its consumer and settler, on the embedded store, against the real sandbox.

mod confirming;
mod http;
mod refunding;
mod settling;
mod world;
