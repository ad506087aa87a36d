//! Logs: structured lines on standard error, as text or as JSON. A line about a request or a message says the trace
//! that it belongs to, as `trace_id`. Nothing waits for a line to be written, and nothing fails if it cannot be.

mod lines;

use std::{fmt, io::IsTerminal, sync::Arc};

use messaging::{TraceContext, trace};
use prometheus_client::metrics::counter::Counter;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::config::{LogFormat, LogSettings};
use lines::Lines;
pub use lines::{complain, say};

/// Logging, as long as this is kept; dropped, it writes what is still to be written.
#[must_use = "what is not written yet when the process ends is lost"]
pub struct Log(Arc<Lines>);

impl Log {
    /// Counts the lines that could not be written.
    #[must_use]
    pub fn lost_lines(&self) -> Counter {
        self.0.lost()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging for this process; panics are logged too, once, with their place.
///
/// # Errors
/// If the level cannot be read, or logging was started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<Log> {
    let log = Log(Arc::new(Lines::to(std::io::stderr())?));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&settings.level)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(Arc::clone(&log.0));
    let started = match settings.format {
        LogFormat::Text => lines.map_event_format(Traced).try_init(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            lines.map_event_format(Traced).try_init()
        }
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))?;
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a task panicked")));
    Ok(log)
}

/// Lines of another format, with the trace. It is asked for where a line is written, so that requests about which
/// nothing is written pay nothing for it.
struct Traced<F>(F);

impl<S, N, F: FormatEvent<S, N>> FormatEvent<S, N> for Traced<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(trace) = trace::current() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&with_trace(&line, trace))
    }
}

fn with_trace(line: &str, trace: TraceContext) -> String {
    let (line, id) = (line.trim_end(), trace.trace_id());
    match line.strip_prefix('{') {
        Some(fields) => format!("{{\"trace_id\":\"{id}\",{fields}\n"),
        None => format!("{line} trace_id={id}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_its_trace_in_either_format() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let trace = TraceContext::parse(&format!("00-{id}-00f067aa0ba902b7-01")).unwrap();
        assert_eq!(
            with_trace("WARN it failed\n", trace),
            format!("WARN it failed trace_id={id}\n")
        );
        let json = with_trace("{\"level\":\"WARN\"}\n", trace);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read, serde_json::json!({"trace_id": id, "level": "WARN"}));
    }
}
