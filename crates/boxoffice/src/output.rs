//! The output of commands on standard output. State: none.

use std::{
    io::{self, Write},
    process::ExitCode,
};

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

/// 0, or 1 if the command found something that needs a person.
pub fn exit_code(is_clean: bool) -> ExitCode {
    ExitCode::from(u8::from(!is_clean))
}
