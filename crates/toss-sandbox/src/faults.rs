//! Scripted faults.
//!
//! - [`test_code`]: the fault that one request asks for in its header
//! - [`script`]: the faults of a whole run, as data; [`injector`]: which rule applies to a request
//! - [`connection`]: how an answer is broken

pub(super) mod connection;
pub(super) mod injector;
pub(super) mod script;
pub(super) mod test_code;
