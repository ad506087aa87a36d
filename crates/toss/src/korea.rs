//! The protocol's times: Korean time, which has no daylight saving. Pure.

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{self, Offset, TimeZone},
};

const OFFSET: Offset = tz::offset(9);
/// `yyyy-MM-ddTHH:mm:ss`, without and with milliseconds.
const QUERY_LENGTHS: [usize; 2] = [19, 23];

/// `2026-01-02T03:04:05+09:00`: a time in a body or a header.
pub fn body_time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_millisecond().div_euclid(1_000))
        .unwrap_or(Timestamp::MIN)
        .display_with_offset(OFFSET)
        .to_string()
}

/// `2026-01-02T03:04:05.678`: a time in a query, always Korean time and without an offset.
pub fn query_time(at: Timestamp) -> String {
    format!("{:.3}", OFFSET.to_datetime(at))
}

/// Reads `yyyy-MM-ddTHH:mm:ss` or `yyyy-MM-ddTHH:mm:ss.SSS`; the gateway accepts no other form.
pub fn parse_query_time(text: &str) -> Option<Timestamp> {
    if !QUERY_LENGTHS.contains(&text.len()) || text.as_bytes().get(10) != Some(&b'T') {
        return None;
    }
    let local: DateTime = text.parse().ok()?;
    TimeZone::fixed(OFFSET).to_timestamp(local).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_time_is_shown_nine_hours_ahead_and_reads_back() {
        let at = instant(1_700_000_000_123);
        assert_eq!(body_time(at), "2023-11-15T07:13:20+09:00");
        assert_eq!(parse_query_time(&query_time(at)), Some(at));
        assert_eq!(
            parse_query_time("2023-11-15T07:13:20"),
            Some(instant(1_700_000_000_000))
        );
    }

    #[test]
    fn a_query_time_is_korean_local_time() {
        for (utc, korean) in [
            ("2023-12-31T15:00:00Z", "2024-01-01T00:00:00.000"),
            ("2024-06-19T03:04:05.678Z", "2024-06-19T12:04:05.678"),
            ("2024-02-28T23:59:59.999Z", "2024-02-29T08:59:59.999"),
        ] {
            assert_eq!(query_time(utc.parse().unwrap()), korean);
        }
        assert!(query_time(Timestamp::MAX).starts_with("9999-"));
    }

    #[test]
    fn a_text_of_another_form_is_no_query_time() {
        for text in [
            "",
            "2023-11-15",
            "2023-11-15 07:13:20",
            "2023-11-15T07:13:20Z",
            "2023-13-15T07:13:20",
            "2023-11-15T07:13:20+09:00",
        ] {
            assert_eq!(parse_query_time(text), None, "{text}");
        }
    }
}
