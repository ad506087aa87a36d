//! The whole of Boxoffice in one process: settings, wiring, the HTTP server, the command line.
//!
//! - [`cli`]: what can be asked of the program; `main` does nothing but call it
//! - [`config`]: the settings and their layers
//! - [`app`]: [`app::App`], everything wired and running; tests start it in their own process
//! - [`crew`]: workers, timers, cleaning; [`server`]: the listening socket; [`signals`]: the word to stop
//! - [`backends`]: the engines that a process runs over; [`services`]: which services it runs
//! - [`audit`]: whether a data folder keeps the promises
//! - [`http`]: all routes behind one guard, and those that belong to no service
//! - [`dead_letters`]: the commands for dead letters, on a folder or through the server that has it open
//! - [`reconcile`]: the command of that name, through the server too
//! - [`demo`]: a crowd that wants the same show in the same second
//! - [`sandbox`]: the gateway's double alone, for whoever integrates with Toss Payments
//! - [`log`]: structured lines on standard error

pub mod app;
pub mod audit;
pub mod backends;
pub mod cli;
pub mod config;
pub mod crew;
pub mod dead_letters;
pub mod demo;
pub mod http;
pub mod log;
pub mod reconcile;
pub mod sandbox;
pub mod server;
pub mod services;
pub mod signals;
