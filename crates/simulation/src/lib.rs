//! Runs the whole system from a seed: the production code of all services, in several processes, on simulated time, and
//! on engines that do everything that real ones may do. docs/simulation.md says what is simulated and what is real.
//!
//! - [`world`]: the clock, the dice, the scheduler of the processes; [`trace`]: what happened, and its hash
//! - [`faults`]: what may go wrong, and how often in this run
//! - [`database`], [`broker`], [`redis_double`], [`gateway`]: the engines
//! - [`process`]: a process of the program: started, paused, killed, stopped
//! - [`buyers`], [`operators`]: those who send requests; [`network`]: how requests travel
//! - [`checks`]: what must hold at each moment, and at the end
//! - [`run`]: one run; [`shrink`]: a smaller run that fails too
//! - [`entropy`]: the operating system's random numbers, from the seed
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the run")]

pub mod broker;
pub mod buyers;
pub mod checks;
pub mod database;
pub mod entropy;
pub mod faults;
pub mod gateway;
pub mod network;
pub mod operators;
pub mod process;
pub mod redis_double;
pub mod run;
pub mod shrink;
pub mod trace;
pub mod world;
