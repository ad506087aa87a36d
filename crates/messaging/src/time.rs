//! Instants to the millisecond, UTC. On the wire and in text columns: RFC 3339 of fixed width, so that the order
//! of the texts is the order of the instants. From 0000-01-01T00:00:00.000Z to 9999-12-31T23:59:59.999Z, all that it can say.

use jiff::{SignedDuration, civil::DateTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
const DAY_MILLIS: i64 = 86_400_000;
/// The first and the last instant that RFC 3339 can say.
const MILLIS_MIN: i64 = -62_167_219_200_000;
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(i64);

impl Timestamp {
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Later by so many milliseconds; stays at the last instant rather than overflow.
    #[must_use]
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    #[must_use]
    pub const fn plus_secs(self, secs: i64) -> Self {
        self.plus_millis(secs.saturating_mul(1000))
    }

    /// How many milliseconds `self` is after `earlier`; negative where it is before.
    #[must_use]
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.clamp(MILLIS_MIN, MILLIS_MAX);
        let instant = EPOCH
            .checked_add(SignedDuration::from_millis(millis))
            .unwrap_or(EPOCH);
        write!(f, "{instant:.3}Z")
    }
}

/// A text that is no date and time of RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 date and time")]
pub struct InvalidTimestamp(String);

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        read(text).ok_or_else(|| InvalidTimestamp(text.to_owned()))
    }
}

/// The grammar of RFC 3339, section 5.6, and nothing else: other parsers take zones in brackets, hours alone, or a date
/// without its hyphens. What is finer than a millisecond is cut off.
fn read(text: &str) -> Option<Timestamp> {
    let (civil, rest) = text.split_at_checked(19)?;
    let is_of_shape = civil.bytes().enumerate().all(|(place, byte)| match place {
        4 | 7 => byte == b'-',
        10 => byte.eq_ignore_ascii_case(&b'T'),
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    if !is_of_shape {
        return None;
    }
    let number = |range: std::ops::Range<usize>| civil[range].parse::<i16>().ok();
    let small = |from: usize| civil[from..from + 2].parse::<i8>().ok();
    let (nanos, offset) = read_fraction(rest)?;
    let second = small(17)?;
    let is_leap = second == 60;
    let local = DateTime::new(
        number(0..4)?,
        small(5)?,
        small(8)?,
        small(11)?,
        small(14)?,
        if is_leap { 59 } else { second },
        nanos,
    );
    let since = local
        .ok()?
        .duration_since(EPOCH)
        .as_nanos()
        .div_euclid(1_000_000);
    let millis = i64::try_from(since).ok()? - read_offset_mins(offset)? * 60_000;
    // A leap second is the last one of a day, UTC.
    let is_last_of_day = millis.rem_euclid(DAY_MILLIS) >= DAY_MILLIS - 1_000;
    ((!is_leap || is_last_of_day) && (MILLIS_MIN..=MILLIS_MAX).contains(&millis))
        .then_some(Timestamp(millis))
}

/// Nanoseconds, and what stands behind them.
fn read_fraction(rest: &str) -> Option<(i32, &str)> {
    let Some(behind) = rest.strip_prefix('.') else {
        return Some((0, rest));
    };
    let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, offset) = behind.split_at(digits);
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |nanos, digit| nanos * 10 + i32::from(digit - b'0'));
    (digits > 0).then_some((nanos, offset))
}

fn read_offset_mins(offset: &str) -> Option<i64> {
    let sign = match offset.as_bytes() {
        [b'Z' | b'z'] => return Some(0),
        [b'+', ..] => 1,
        [b'-', ..] => -1,
        _ => return None,
    };
    let (hours, mins) = offset[1..].split_once(':')?;
    let read = |text: &str, max: i64| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>()
            .ok()
            .filter(|value| is_number && *value <= max)
    };
    Some(sign * (read(hours, 23)? * 60 + read(mins, 59)?))
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_sort_as_instants_do() {
        let earlier = Timestamp::from_millis(1_700_000_000_000);
        let later = earlier.plus_millis(1);
        assert_eq!(earlier.to_string(), "2023-11-14T22:13:20.000Z");
        assert!(earlier.to_string() < later.to_string());
        assert_eq!(later.to_string().parse::<Timestamp>().unwrap(), later);
    }

    #[test]
    fn a_time_that_is_none_is_refused_with_the_text_named() {
        let error = serde_json::from_str::<Timestamp>("\"yesterday\"").unwrap_err();
        assert!(error.to_string().contains("yesterday"));
    }

    #[test]
    fn what_rfc_3339_can_say_is_taken_and_said_again() {
        for (text, said) in [
            ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000Z"),
            ("2026-11-22t10:00:00z", "2026-11-22T10:00:00.000Z"),
            (
                "2026-11-22T10:00:00.1234567899Z",
                "2026-11-22T10:00:00.123Z",
            ),
            ("2026-11-22T10:00:00+09:00", "2026-11-22T01:00:00.000Z"),
            ("2026-11-22T10:00:00-00:00", "2026-11-22T10:00:00.000Z"),
            ("2026-11-22T10:00:00-23:59", "2026-11-23T09:59:00.000Z"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
            ("2017-01-01T08:59:60+09:00", "2016-12-31T23:59:59.000Z"),
            ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            let read: Timestamp = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.to_string(), said, "{text}");
            assert_eq!(said.parse(), Ok(read), "{said}");
        }
    }

    #[test]
    fn what_rfc_3339_cannot_say_is_refused() {
        for text in [
            "",
            "2026-11-22",
            "2026-11-22T10:00:00",
            "2026-11-22 10:00:00Z",
            "2026-11-22T10:00Z",
            "2026-11-22T10:00:00+25:00",
            "2026-11-22T10:00:00+24:00",
            "2026-11-22T10:00:00+09:60",
            "2026-11-22T10:00:00+0900",
            "2026-11-22T10:00:00+09",
            "2026-11-22T10:00:00Z[UTC]",
            "2026-11-22T10:00:00+09:00[Asia/Seoul]",
            "20261122T100000Z",
            "-000001-11-22T10:00:00Z",
            "+002026-11-22T10:00:00Z",
            "2026-13-22T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:00:61Z",
            "2026-11-22T10:00:60Z",
            "2026-11-22T10:00:00.Z",
            "2026-11-22T10:00:00,5Z",
            "2026-11-22T10:00:00Z ",
            " 2026-11-22T10:00:00Z",
            "2026-11-22T10:00:00−09:00",
            "２０２６-11-22T10:00:00Z",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(
                text.parse::<Timestamp>(),
                Err(InvalidTimestamp(text.to_owned()))
            );
        }
    }

    #[test]
    fn an_instant_beyond_all_texts_is_said_as_the_last_one() {
        let beyond = Timestamp::from_millis(i64::MAX);
        assert_eq!(beyond.to_string(), "9999-12-31T23:59:59.999Z");
        let before = Timestamp::from_millis(i64::MIN);
        assert_eq!(before.to_string(), "0000-01-01T00:00:00.000Z");
    }
}
