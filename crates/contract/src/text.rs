//! Rules for texts that people write: names and reasons. Pure.

/// Characters of a name of an event or a user.
pub const NAME_CHARS_MAX: usize = 200;
/// Characters of a reason.
pub const REASON_CHARS_MAX: usize = 200;

/// The JSON Schema pattern of a name: no control characters, and a visible character. Equivalent to [`is_plain`] and
/// [`is_visible`] together.
pub const NAME_PATTERN: &str = concat!(
    r"^[^\u0000-\u001f\u007f-\u009f]*",
    r"[^\u0000-\u0020\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f",
    r"\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb",
    "\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]",
    r"[^\u0000-\u001f\u007f-\u009f]*$"
);

/// The JSON Schema pattern of a text on one line. Equivalent to [`is_plain`].
pub const PLAIN_PATTERN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// Why a value is refused; `field` is named as in the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Invalid {
    pub field: &'static str,
    pub detail: String,
}

impl Invalid {
    pub fn new(field: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { field, detail }
    }
}

/// # Errors
/// [`Invalid`] naming `name`: a name is visible, plain, and not too long.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    let detail = if !is_visible(name) {
        "the name has no visible character".to_owned()
    } else if name.chars().count() > NAME_CHARS_MAX {
        format!("the name is longer than {NAME_CHARS_MAX} characters")
    } else if !is_plain(name) {
        "the name has control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(Invalid::new("name", detail))
}

/// Whether a text has no control characters, so that it stays on one line.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Whether a text has a visible character: neither white space nor ignored when rendered (Unicode:
/// `Default_Ignorable_Code_Point`, and blank letters).
#[must_use]
pub fn is_visible(text: &str) -> bool {
    let shows = |it: char| !it.is_whitespace() && !it.is_control() && !is_ignored(it);
    text.chars().any(shows)
}

const fn is_ignored(it: char) -> bool {
    matches!(
        it,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_invisible_characters_is_not_visible() {
        for text in [
            "",
            " ",
            "\u{a0}\u{2003}\u{3000}",
            "\u{200b}",
            "\u{200b}\u{feff}\u{2060}",
            "\u{200e}\u{202e}",
            "\u{ad}",
            "\u{3164}",
            "\u{2800}",
            "\u{fe0f}",
            "\u{e0041}\u{e007f}",
            "\u{1}",
        ] {
            assert!(!is_visible(text), "{text:?}");
        }
        for text in [
            "x",
            " x ",
            "김민아",
            "🎭",
            "👩\u{200d}🚀",
            "\u{200b}.\u{200b}",
            "٣",
        ] {
            assert!(is_visible(text), "{text:?}");
        }
    }

    /// The pattern's second class excludes exactly the characters that are not visible.
    #[test]
    fn the_pattern_of_a_name_is_equivalent_to_the_check() {
        let class = NAME_PATTERN.split("[^").nth(2).unwrap();
        let class = class.split(']').next().unwrap();
        let mut characters = Vec::new();
        let mut rest = class.chars();
        while let Some(next) = rest.next() {
            characters.push(match next {
                '\\' => {
                    let digits: String = rest.by_ref().skip(1).take(4).collect();
                    let code = u32::from_str_radix(&digits, 16).unwrap();
                    (char::from_u32(code).unwrap(), false)
                }
                other => (other, other == '-'),
            });
        }
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < characters.len() {
            let (first, _) = characters[at];
            let is_range = characters
                .get(at + 1)
                .is_some_and(|(_, is_hyphen)| *is_hyphen);
            let last = if is_range {
                characters[at + 2].0
            } else {
                first
            };
            ranges.push(first..=last);
            at += if is_range { 3 } else { 1 };
        }
        for it in '\0'..=char::MAX {
            let is_excluded = ranges.iter().any(|range| range.contains(&it));
            assert_eq!(
                is_excluded,
                !is_visible(&it.to_string()),
                "{:04x}",
                it as u32
            );
        }
        assert!(NAME_PATTERN.starts_with(PLAIN_PATTERN.trim_end_matches('$')));
        for it in '\0'..='\u{ff}' {
            let is_named = matches!(it, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
            assert_eq!(is_named, !is_plain(&it.to_string()));
        }
    }
}
