//! The whole of Boxoffice in one process: settings, wiring, the HTTP server, the command line.
//!
//! - [`cli`]: what can be asked of the program; `main` does nothing but call it
//! - [`config`]: the settings and their layers
//! - [`app`]: [`app::App`], everything wired and running; tests start it in their own process
//! - [`crew`]: workers, timers, cleaning; [`server`]: the listening socket
//! - [`http`]: all routes behind one guard, and those that belong to no service
//! - [`dead_letters`]: the commands for dead letters, on a folder or through the server that has it open
//! - [`log`]: structured lines on standard error

pub mod app;
pub mod cli;
pub mod config;
pub mod crew;
pub mod dead_letters;
pub mod http;
pub mod log;
pub mod server;
