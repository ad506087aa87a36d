//! How the sandbox misbehaves when it is told to.
//!
//! - [`test_code`]: what one request asks for in its header
//! - [`script`]: what a whole run asks for, as data; [`director`]: which rule of it strikes a request, and how often
//! - [`wire`]: how an answer is broken

pub(super) mod director;
pub(super) mod script;
pub(super) mod test_code;
pub(super) mod wire;
