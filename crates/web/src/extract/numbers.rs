//! Whole numbers that JSON writes as fractions: `1.0`, `1e3`.

/// The largest magnitude up to which an IEEE 754 double represents each integer exactly.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The same JSON with such numbers written as integers; `None` if there are none. Texts are unchanged.
pub fn with_integers(json: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(json.len());
    let (mut is_changed, mut at) = (false, 0);
    while let Some(rest) = json.get(at..).filter(|rest| !rest.is_empty()) {
        let taken = match rest[0] {
            b'"' => text_bytes(rest),
            b'-' | b'0'..=b'9' => number_bytes(rest),
            _ => 1,
        };
        let (token, _) = rest.split_at(taken);
        match integer(token) {
            Some(integer) => {
                whole.extend_from_slice(integer.to_string().as_bytes());
                is_changed = true;
            }
            None => whole.extend_from_slice(token),
        }
        at += taken;
    }
    is_changed.then_some(whole)
}

/// The same query with the parameter's number written as an integer; `None` if it has no such number.
pub fn query_with_integer(query: &str, parameter: &str) -> Option<String> {
    let whole = |pair: &str| {
        let value = pair.strip_prefix(parameter)?.strip_prefix('=')?;
        Some(format!("{parameter}={}", integer(value.as_bytes())?))
    };
    let pairs = query.split('&');
    let rewritten: Vec<String> = pairs
        .map(|pair| whole(pair).unwrap_or_else(|| pair.to_owned()))
        .collect();
    let rewritten = rewritten.join("&");
    (rewritten != query).then_some(rewritten)
}

fn text_bytes(json: &[u8]) -> usize {
    let mut is_escaped = false;
    let end = json.iter().skip(1).position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    });
    end.map_or(json.len(), |end| end + 2)
}

fn number_bytes(json: &[u8]) -> usize {
    let is_in = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    json.iter().take_while(is_in).count()
}

fn integer(token: &[u8]) -> Option<i64> {
    let is_fraction = token.iter().any(|byte| b".eE".contains(byte)) && token[0] != b'"';
    let text = is_fraction.then(|| str::from_utf8(token).ok()).flatten()?;
    // A text that is no JSON number is left for the parser to refuse.
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    let value = number.as_f64()?;
    let is_whole = value.fract() == 0.0 && value.abs() <= EXACT_MAX;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a whole number within the bounds of one"
    )]
    is_whole.then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_numbers_are_rewritten() {
        let rewrite =
            |json: &str| with_integers(json.as_bytes()).map(|it| String::from_utf8(it).unwrap());
        for (json, whole) in [
            ("1.0", "1"),
            ("-191.0", "-191"),
            ("1e3", "1000"),
            ("5.0E0", "5"),
            ("-0.0", "0"),
            ("1200e-2", "12"),
            ("9007199254740992.0", "9007199254740992"),
            (r#"{"a":[1.0,2],"b":"1.0"}"#, r#"{"a":[1,2],"b":"1.0"}"#),
            (r#"{"a\"1.0":1.0,"a":1.0}"#, r#"{"a\"1.0":1,"a":1}"#),
        ] {
            assert_eq!(rewrite(json).as_deref(), Some(whole), "{json}");
        }
        for json in [
            "1.5",
            "1",
            "1e400",
            "9007199254740994.0",
            "1.",
            "01.0",
            "1.0.0",
            "\"1.0",
            "\"e\"",
            "true",
            "",
        ] {
            assert_eq!(rewrite(json), None, "{json}");
        }
    }
}
