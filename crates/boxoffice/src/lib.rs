//! The binary's library: settings, wiring, the HTTP server, the command line.
//!
//! - [`cli`]: the commands and their flags; `main` only calls it
//! - [`config`]: the settings and their layers
//! - [`app`]: [`app::App`], the running process; tests start it in their own process; `wiring` starts its services
//! - [`server`]: the HTTP listener; [`signals`]: SIGINT and SIGTERM
//! - [`backends`]: opens the store and the bus; [`services`]: which services a process runs
//! - [`http`]: all routes behind one guard, and the routes that belong to no service
//! - [`audit`]: the command `audit`, which checks the promises
//! - [`dead_letters`], [`reconcile`]: the commands of these names, on a data folder or through the server that has it open
//! - [`client`]: the HTTP client of such a server
//! - [`demo`]: the command `demo`, a simulated sale
//! - [`sandbox`]: the command `sandbox`, the payment gateway's sandbox alone
//! - [`log`]: structured logs on standard error; [`output`]: the output of commands

pub mod app;
pub mod audit;
pub mod backends;
pub mod cli;
mod client;
pub mod config;
mod dead_letters;
mod demo;
pub mod http;
mod log;
mod output;
mod reconcile;
mod sandbox;
mod server;
mod services;
mod signals;
mod wiring;
