//! Structured logs on standard error, as text or JSON. Lines about a request or a message carry its `trace_id`. Logging
//! never blocks and never fails its caller.

mod queue;

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
use queue::LineQueue;
pub use queue::{print_error, print_line};

/// Keeps logging running; flushes the queued lines on drop.
#[must_use = "dropping it stops logging"]
pub struct Log(Arc<LineQueue>);

impl Log {
    /// The counter of lost lines.
    pub fn lost_lines(&self) -> Counter {
        self.0.lost()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts logging for this process. Panics are logged with their location.
///
/// # Errors
/// If the level cannot be parsed, or logging was started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<Log> {
    let log = Log(Arc::new(LineQueue::to(std::io::stderr())?));
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
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a task panicked")));
    Ok(log)
}

/// Adds the trace to the lines of another format. It looks the trace up only for lines that are written, so that other
/// requests pay nothing.
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
    fn a_line_carries_its_trace_in_both_formats() {
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
