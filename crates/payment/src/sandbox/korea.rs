//! The gateway's clock shows Korean time, which has no summer time. Pure.

use contract::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{self, TimeZone};

const OFFSET_HOURS: i8 = 9;
/// `yyyy-MM-ddTHH:mm:ss`, without and with milliseconds.
const LENGTHS: [usize; 2] = [19, 23];

/// `2026-01-02T03:04:05+09:00`, as the gateway writes it.
pub(super) fn show(at: Timestamp) -> String {
    jiff::Timestamp::from_second(at.as_millis().div_euclid(1_000))
        .unwrap_or(jiff::Timestamp::MAX)
        .display_with_offset(tz::offset(OFFSET_HOURS))
        .to_string()
}

/// Reads `yyyy-MM-ddTHH:mm:ss` or `yyyy-MM-ddTHH:mm:ss.SSS`; nothing else is a date at the gateway.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    if !LENGTHS.contains(&text.len()) || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let local: DateTime = text.parse().ok()?;
    let zone = TimeZone::fixed(tz::offset(OFFSET_HOURS));
    let instant = zone.to_timestamp(local).ok()?;
    Some(Timestamp::from_millis(instant.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_nine_hours_ahead_and_reads_back() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(show(at), "2023-11-15T07:13:20+09:00");
        assert_eq!(parse("2023-11-15T07:13:20.123"), Some(at));
        assert_eq!(
            parse("2023-11-15T07:13:20"),
            Some(Timestamp::from_millis(1_700_000_000_000))
        );
    }

    #[test]
    fn a_text_of_another_form_is_no_date() {
        for text in [
            "",
            "2023-11-15",
            "2023-11-15 07:13:20",
            "2023-11-15T07:13:20Z",
            "2023-13-15T07:13:20",
            "2023-11-15T07:13:20+09:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
