//! Owns the small grammars: durations, numbers, truth values, percentages, times, base64, expressions, export lists.
//! Never knows an object.

use base64::Engine as _;
use std::{str::FromStr, time::Duration};
use tombolo_controlplane_core::intent::Fraction;

/// Longest expression that is taken, as in the APIs that we read.
const MAX_EXPRESSION: usize = 1024;

/// A Go duration (`1h10m`, `1.5s`, `300ms`), of which protobuf's JSON form (`5.000s`) is a part. Bare numbers are refused
/// because nobody can know their unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refuse =
        |why: &str| format!("{text:?} is not a duration: {why}; write for example \"5s\", \"300ms\" or \"1h10m\"");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err(refuse("it is negative"));
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = nanoseconds(unit).ok_or_else(|| match unit {
            "" => refuse("it has no unit"),
            _ => refuse("its unit is not one of h, m, s, ms, us and ns"),
        })?;
        nanos += scaled(number, scale).ok_or_else(|| refuse("it has a malformed number"))?;
        rest = tail;
    }
    if text.is_empty() {
        return Err(refuse("it is empty"));
    }
    let limit = 315_576_000_000_u128 * 1_000_000_000;
    if nanos > limit {
        return Err(refuse("it is longer than 10000 years"));
    }
    if nanos != 0 && nanos < 1_000_000 {
        return Err(refuse("it is shorter than 1ms"));
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX);
    Ok(Duration::new(seconds, u32::try_from(nanos % 1_000_000_000).unwrap_or(0)))
}

fn nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        _ => return None,
    })
}

/// A decimal number times a scale, without the rounding of floats.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || whole.len() > 15 || part.len() > 18 {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { u128::from_str(text).ok() };
    let tens = 10_u128.pow(u32::try_from(part.len()).ok()?);
    Some(digits(whole)? * scale + digits(part)? * scale / tens)
}

/// A whole number: decimal, hexadecimal or octal with a prefix.
pub(crate) fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().filter(|n| *n >= 0);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok().filter(|n| *n >= 0);
    }
    i64::from_str(text).ok()
}

/// A truth value in the spellings of YAML 1.1.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Some(true),
        "false" | "no" | "off" | "n" => Some(false),
        _ => None,
    }
}

/// A percentage as a part of requests.
pub(crate) fn percent(value: f64) -> Fraction {
    let millionths = (value.clamp(0.0, 100.0) * 10_000.0).round();
    // Between 0 and a million, so the cast cannot cut anything off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Fraction(millionths as u32)
}

/// Unix seconds of an RFC 3339 time.
pub(crate) fn timestamp(text: &str) -> Result<i64, String> {
    let time =
        jiff::Timestamp::from_str(text).map_err(|_| format!("{text:?} is not a time like 2026-01-31T12:00:00Z"))?;
    Ok(time.as_second())
}

/// Standard base64; white space inside is ignored, as folded YAML texts have it. The error never shows the text,
/// because it may be a key.
pub(crate) fn base64(text: &str) -> Result<Vec<u8>, &'static str> {
    let compact: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let decoded = base64::engine::general_purpose::STANDARD.decode(compact);
    decoded.map_err(|_| "it is not base64; to write plain text use stringData instead of data")
}

/// An expression that compiles, within bounds of length and size.
pub(crate) fn expression(text: &str) -> Result<String, String> {
    if text.is_empty() {
        // Proxies refuse it, and with it everything that stands beside it.
        return Err("the expression is empty; write exact: \"\" for an empty value".to_owned());
    }
    if text.chars().count() > MAX_EXPRESSION {
        return Err(format!("the expression is longer than {MAX_EXPRESSION} characters"));
    }
    let built = regex::RegexBuilder::new(text).size_limit(1 << 20).nest_limit(100).build();
    match built {
        Ok(_) => Ok(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => {
            Err("the expression needs too much memory; make its repetitions smaller".to_owned())
        }
        Err(error) => {
            let reason = error.to_string();
            let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(format!("{text:?} is not an expression of RE2's syntax: {last}"))
        }
    }
}

/// A substitution whose references (`\1`; `\0` is the whole match) are to groups that the expression has.
pub(crate) fn substitution(text: &str, expression: &str) -> Result<String, String> {
    let groups = regex::Regex::new(expression).map_or(1, |built| built.captures_len());
    let mut rest = text.chars();
    while let Some(found) = rest.next() {
        if found != '\\' {
            continue;
        }
        match rest.next() {
            Some('\\') => {}
            Some(digit) if digit.to_digit(10).is_some_and(|group| (group as usize) < groups) => {}
            Some(digit) if digit.is_ascii_digit() => {
                return Err(format!(
                    "\\{digit} is a group that {expression:?} does not have; add (…) to the match, or write \\0 for all of it"
                ));
            }
            _ => return Err("a backslash must be followed by a digit; write \\\\ for a backslash".to_owned()),
        }
    }
    Ok(text.to_owned())
}

/// The known name that was probably meant.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = name.to_ascii_lowercase().replace(['_', '-'], "");
    let allowed = if folded.chars().count() <= 4 { 1 } else { 2 };
    let distance = |candidate: &&'k str| (edits(&folded, &candidate.to_ascii_lowercase()), *candidate);
    let (edits, best) = known.iter().map(distance).min()?;
    (edits <= allowed).then_some(best)
}

/// How many letters must change to make one word of another.
fn edits(a: &str, b: &str) -> usize {
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_of_both_grammars() {
        for (text, millis) in [
            ("5s", 5_000),
            ("5.000s", 5_000),
            ("0.5s", 500),
            (".5s", 500),
            ("1h10m", 4_200_000),
            ("3m", 180_000),
            ("1m0.25s", 60_250),
            ("300ms", 300),
            ("0s", 0),
            ("0", 0),
            ("1000us", 1),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "-5s", "5 s", "1d", "1.2.3s", "1us", "999999999999999h", "5s5", ".s"] {
            assert!(duration(bad).is_err(), "{bad:?} should be refused");
        }
    }

    #[test]
    fn percentages_are_exact() {
        assert_eq!(percent(50.0), Fraction(500_000));
        assert_eq!(percent(0.1), Fraction(1_000));
        assert_eq!(percent(0.0001), Fraction(1));
        assert_eq!(percent(100.0), Fraction::ALL);
    }

    #[test]
    fn truth_has_the_spellings_of_old_yaml() {
        assert_eq!(truth("Yes"), Some(true));
        assert_eq!(truth("off"), Some(false));
        assert_eq!(truth("1"), None);
    }

    #[test]
    fn expressions_are_bounded() {
        assert!(expression("^(.*?;)?(user=jason)(;.*)?$").is_ok());
        assert!(expression("(").unwrap_err().contains("RE2"));
        assert!(expression("").unwrap_err().contains("empty"));
        assert!(expression(&"a".repeat(1025)).is_err());
        assert!(expression("((((a{1000}){1000}){1000}){1000})").unwrap_err().contains("memory"));
    }

    #[test]
    fn substitutions_refer_to_groups_that_exist() {
        for good in ["", "plain", r"/\\0", r"/\1/\2\\"] {
            assert_eq!(substitution(good, "(a)(?:x)(b)").as_deref(), Ok(good));
        }
        for bad in [r"\3", r"\", r"\x", r"\1\9"] {
            assert!(substitution(bad, "(a)(?:x)(b)").is_err(), "{bad:?} should be refused");
        }
        assert!(substitution(r"\1", "a").unwrap_err().contains("does not have"));
    }

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(nearest("timeOut", &["retries", "timeout"]), Some("timeout"));
        assert_eq!(nearest("mirror_percent", &["mirror", "mirrorPercent"]), Some("mirrorPercent"));
        assert_eq!(nearest("zzz", &["retries"]), None);
    }

    #[test]
    fn times_are_unix_seconds() {
        assert_eq!(timestamp("1970-01-01T00:01:00Z"), Ok(60));
        assert!(timestamp("yesterday").is_err());
    }

    proptest! {
        #[test]
        fn grammars_take_any_text_without_panic(text in ".*") {
            let _ = duration(&text);
            let _ = integer(&text);
            let _ = base64(&text);
            let _ = expression(&text);
            let _ = timestamp(&text);
            let _ = nearest(&text, &["abc", "läöü"]);
        }

        #[test]
        fn whole_milliseconds_survive(millis in 0_u64..10_000_000) {
            prop_assert_eq!(duration(&format!("{millis}ms")), Ok(Duration::from_millis(millis)));
        }
    }
}
