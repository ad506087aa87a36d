//! The binary's library: settings, wiring, the HTTP server, the command line.
//!
//! - [`cli`]: the commands and their flags; `main` only calls it
//! - [`config`]: the settings and their layers
//! - [`app`]: [`app::App`], the running process; tests start it in their own process
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
pub mod client;
pub mod config;
pub mod dead_letters;
pub mod demo;
pub mod http;
pub mod log;
pub mod output;
pub mod reconcile;
pub mod sandbox;
pub mod server;
pub mod services;
pub mod signals;
