//! The origin of a message: the W3C trace context (<https://www.w3.org/TR/trace-context/>) of the request that began
//! everything, and the span that published it. Pure; the context of the work in progress is in [`current`].
//!
//! Nothing is sampled or reported here: the context is kept with messages and written into logs, so that one id finds
//! everything that a request caused. `tracestate` is not carried.

pub mod current;

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Serialize, Serializer};

use crate::Random;

pub use current::{carried, current, handling, requested};

/// The header, on HTTP requests and on records.
pub const HEADER: &str = "traceparent";
/// `00-` trace id `-` parent id `-` flags.
const TEXT_BYTES: usize = 55;
/// The only flag that version 00 defines; others are not passed on.
const SAMPLED: u8 = 1;

/// A trace, and the span in it that is the cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    parent_id: u64,
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` if it is malformed or all zero, as the recommendation says. A later version
    /// is read as far as version 00 goes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // Lower case only, as the recommendation says.
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let (head, rest) = text.split_at_checked(TEXT_BYTES)?;
        let is_of_shape = head.bytes().enumerate().all(|(place, byte)| match place {
            2 | 35 | 52 => byte == b'-',
            _ => is_digit(byte),
        });
        if !is_of_shape {
            return None;
        }
        let is_version = match &head[..2] {
            "00" => rest.is_empty(),
            "ff" => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !is_version {
            return None;
        }
        let trace_id = u128::from_str_radix(&head[3..35], 16).ok()?;
        let parent_id = u64::from_str_radix(&head[36..52], 16).ok()?;
        let flags = u8::from_str_radix(&head[53..], 16).ok()?;
        (trace_id != 0 && parent_id != 0).then_some(Self {
            trace_id,
            parent_id,
            flags: flags & SAMPLED,
        })
    }

    /// A new trace.
    #[must_use]
    pub fn begin(random: &Random) -> Self {
        let half = || u128::from(never_zero(random.next()));
        Self {
            trace_id: half() << 64 | half(),
            parent_id: never_zero(random.next()),
            flags: 0,
        }
    }

    /// The same trace, from a new span on.
    #[must_use]
    pub fn go_on(self, random: &Random) -> Self {
        Self {
            parent_id: never_zero(random.next()),
            ..self
        }
    }

    /// The same trace, from the span in which `group` handles a message. It follows from both, so that deciding again
    /// publishes the same.
    #[must_use]
    pub fn handled_by(self, group: &str, message_id: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        (self, group, message_id).hash(&mut hasher);
        Self {
            parent_id: never_zero(hasher.finish()),
            ..self
        }
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent, flags) = (self.trace_id, self.parent_id, self.flags);
        write!(formatter, "00-{trace:032x}-{parent:016x}-{flags:02x}")
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An id of zeros is invalid.
fn never_zero(number: u64) -> u64 {
    number.max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_and_written_as_it_came() {
        let trace = TraceContext::parse(GOOD).unwrap();
        assert_eq!(trace.to_string(), GOOD);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = GOOD.replacen("00", "cc", 1) + "-what-comes-later";
        assert_eq!(TraceContext::parse(&later), Some(trace));
        let flags = GOOD.replace("-01", "-ff");
        assert_eq!(
            TraceContext::parse(&flags),
            Some(trace),
            "unknown flags end here"
        );
    }

    #[test]
    fn what_is_malformed_or_all_zero_is_ignored() {
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_trace_goes_on_under_its_id_from_a_new_span() {
        let random = Random::seeded(1);
        let begun = TraceContext::begin(&random);
        let next = begun.go_on(&random);
        let handled = begun.handled_by("group", "message");
        assert_eq!(handled, begun.handled_by("group", "message"));
        assert_ne!(handled, begun.handled_by("other", "message"));
        for other in [next, handled] {
            assert_eq!(other.trace_id(), begun.trace_id());
            assert_ne!(other, begun);
        }
        assert_ne!(TraceContext::begin(&random).trace_id(), begun.trace_id());
    }

    proptest! {
        #[test]
        fn whatever_was_read_is_written_and_read_again(text in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?") {
            if let Some(trace) = TraceContext::parse(&text) {
                let written = trace.to_string();
                prop_assert_eq!(&written[2..53], &text[2..53]);
                prop_assert_eq!(TraceContext::parse(&written), Some(trace));
            }
        }

        #[test]
        fn no_text_makes_it_stumble(text in ".{0,70}") {
            let read = TraceContext::parse(&text).map(|trace| trace.to_string().len());
            prop_assert!(read.is_none_or(|bytes| bytes == TEXT_BYTES));
        }
    }
}
