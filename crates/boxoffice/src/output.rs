//! The output of commands on standard output. State: none.

use std::io::{self, Write};

use serde::Serialize;

/// Prints `value` as JSON or as text.
///
/// # Errors
/// If standard output is closed.
pub fn print<T: Serialize>(
    as_json: bool,
    value: &T,
    text: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    let text = if as_json {
        serde_json::to_string_pretty(value)?
    } else {
        text()
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(())
}
