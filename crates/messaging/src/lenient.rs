//! Lenient readers for messages of services written by others: JSON that means what the contract says, though this
//! program would write it differently. Writing stays strict. Pure.
//!
//! HTTP requests are read strictly, because their sender gets an error in reply; the sender of a message does not.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::{fmt::temporal::Pieces, tz::TimeZone};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use serde_json::Value;

use crate::Timestamp;

/// An instant as [`Timestamp`] reads it, or a date and time without a zone, taken as UTC; seconds with up to nine digits
/// behind the point, of which three are kept.
///
/// # Errors
/// If it is neither.
pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    parse_time(&text)
        .ok_or_else(|| de::Error::custom(format_args!("{text:?} is not a date and time")))
}

/// As [`time`], but it may be absent.
///
/// # Errors
/// As [`time`].
pub fn optional_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    struct Time(#[serde(deserialize_with = "time")] Timestamp);
    let time = Option::<Time>::deserialize(deserializer)?;
    Ok(time.map(|Time(time)| time))
}

fn parse_time(text: &str) -> Option<Timestamp> {
    // Strictly first: jiff's range ends before the last instant that a `Timestamp` can hold.
    if let Ok(instant) = text.parse() {
        return Some(instant);
    }
    let instant = text
        .parse::<jiff::Timestamp>()
        .ok()
        .or_else(|| instant_in(text, &TimeZone::UTC))?;
    Some(Timestamp::from_millis(instant.as_millisecond()))
}

/// The instant of a date and time that names no zone; `None` if the text names one, or is not a time.
fn instant_in(text: &str, zone: &TimeZone) -> Option<jiff::Timestamp> {
    if !text.contains(':') || text.parse::<jiff::Timestamp>().is_ok() {
        return None;
    }
    let local: jiff::civil::DateTime = text.parse().ok()?;
    zone.to_timestamp(local).ok()
}

/// The zone of services that name none in their times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A zone that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an offset such as \"+09:00\" nor a zone that this machine knows")]
pub struct UnknownZone(String);

impl FromStr for Zone {
    type Err = UnknownZone;

    /// `UTC`, an offset (`+09:00`), or a name of the IANA database (`Asia/Seoul`) if the machine has it.
    fn from_str(text: &str) -> Result<Self, UnknownZone> {
        let unknown = |_| UnknownZone(text.to_owned());
        if text == "UTC" {
            return Ok(Self(TimeZone::UTC));
        }
        if text.starts_with(['+', '-']) {
            // An offset is parsed behind a time; which time does not matter.
            let beside = format!("2000-01-01T00:00{text}");
            let pieces = Pieces::parse(&beside).map_err(unknown)?;
            let offset = pieces.to_numeric_offset();
            let offset = offset.ok_or_else(|| UnknownZone(text.to_owned()))?;
            return Ok(Self(TimeZone::fixed(offset)));
        }
        TimeZone::get(text).map(Self).map_err(unknown)
    }
}

impl Zone {
    #[must_use]
    pub fn is_utc(&self) -> bool {
        self.0 == TimeZone::UTC
    }

    /// The payload with this zone added to each of its `time_fields` that names none; `None` if there is no such time.
    #[must_use]
    pub fn name_in(&self, payload: &str, time_fields: &[&str]) -> Option<String> {
        let mut value: Value = serde_json::from_str(payload).ok()?;
        self.name_in_value(&mut value, time_fields)
            .then(|| value.to_string())
    }

    fn name_in_value(&self, value: &mut Value, time_fields: &[&str]) -> bool {
        let Value::Object(fields) = value else {
            return false;
        };
        let mut is_named = false;
        for (name, field) in fields {
            let instant = match field {
                Value::String(text) if time_fields.contains(&name.as_str()) => {
                    instant_in(text, &self.0)
                }
                _ => None,
            };
            is_named |= match instant {
                Some(instant) => {
                    *field = Value::String(instant.to_string());
                    true
                }
                None => self.name_in_value(field, time_fields),
            };
        }
        is_named
    }
}

/// A text, or an integer, which is taken as its digits: an id that one service counts and another draws.
///
/// # Errors
/// If it is neither.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = String;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a text or an integer")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }
    deserializer.deserialize_any(Text)
}

/// The default in place of `null`, for a field that may be absent.
///
/// # Errors
/// If it is neither `null` nor a value.
pub fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The default of a field whose absence means `true`.
#[must_use]
pub const fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_FIELDS: &[&str] = &["timeStamp", "createdAt", "updatedAt"];

    #[test]
    fn a_time_without_a_zone_is_utc_and_nine_digits_are_read() {
        for (text, wanted) in [
            ("2026-11-30T14:30:29.123456789", "2026-11-30T14:30:29.123Z"),
            ("2026-11-30T14:30:29", "2026-11-30T14:30:29.000Z"),
            ("2026-11-30T14:30", "2026-11-30T14:30:00.000Z"),
            (
                "2026-11-30T23:30:29.123456789+09:00",
                "2026-11-30T14:30:29.123Z",
            ),
            ("2026-11-30T14:30:29.123Z", "2026-11-30T14:30:29.123Z"),
        ] {
            assert_eq!(parse_time(text).unwrap().to_string(), wanted, "{text}");
        }
        for wrong in ["yesterday", "2026-11-30", "2026-13-30T14:30:29", ""] {
            assert_eq!(parse_time(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_zone_is_named_in_the_times_that_name_none_and_nowhere_else() {
        let seoul: Zone = "+09:00".parse().unwrap();
        let payload = r#"{"timeStamp":"2026-11-30T23:30:29.123456789","payload":{"name":"2026-11-30T23:30:29",
            "createdAt":"2026-11-30T14:30:29Z","updatedAt":null,"id":9007199254740993}}"#;
        let named: Value =
            serde_json::from_str(&seoul.name_in(payload, TIME_FIELDS).unwrap()).unwrap();
        assert_eq!(named["timeStamp"], "2026-11-30T14:30:29.123456789Z");
        assert_eq!(named["payload"]["name"], "2026-11-30T23:30:29");
        assert_eq!(named["payload"]["createdAt"], "2026-11-30T14:30:29Z");
        assert_eq!(named["payload"]["id"], 9_007_199_254_740_993_i64);
        for untouched in [r#"{"createdAt":"2026-11-30T14:30:29Z"}"#, "no JSON", "[]"] {
            assert_eq!(seoul.name_in(untouched, TIME_FIELDS), None, "{untouched}");
        }
    }

    #[test]
    fn a_zone_is_an_offset_or_a_name() {
        assert!("UTC".parse::<Zone>().unwrap().is_utc());
        assert!(!"-03:30".parse::<Zone>().unwrap().is_utc());
        for wrong in ["", "+26:00", "Nowhere/Land", "+9", "09:00"] {
            assert!(wrong.parse::<Zone>().is_err(), "{wrong:?}");
        }
    }
}
