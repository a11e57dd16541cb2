//! Matchers.

use super::{
    Refusal,
    any::{At, Decoded, filled, known},
};
use crate::{
    config::{
        Fraction, HeaderMatch, HeaderMatcher, QueryMatch, QueryMatcher, Regex, RegexRewrite, StringMatch, StringMatcher,
    },
    head::Name,
};
use tombolo_controlplane_api::xds::envoy::{
    config::{core::v3 as core, route::v3 as route},
    r#type::{
        matcher::v3::{self as matcher, string_matcher::MatchPattern},
        v3 as types,
    },
};

pub(super) fn regex(regex: matcher::RegexMatcher) -> Result<Regex, String> {
    // The engine is always the one we have; its syntax is RE2's but for corners.
    Regex::parse(&filled(regex.regex)?)
}

pub(super) fn rewrite(rewrite: matcher::RegexMatchAndSubstitute) -> Decoded<RegexRewrite> {
    let matcher::RegexMatchAndSubstitute { pattern, substitution } = rewrite;
    let pattern = pattern.ok_or_else(|| Refusal::new("pattern", "missing"))?;
    let pattern = regex(pattern).at("pattern")?;
    let groups = pattern.search().group_info().group_len(regex_automata::PatternID::ZERO);
    super::any::one_line(&substitution).at("substitution")?;
    substitution_fits(&substitution, groups).at("substitution")?;
    Ok(RegexRewrite { pattern, substitution: substitution.into() })
}

fn substitution_fits(substitution: &str, groups: usize) -> Result<(), String> {
    let mut rest = substitution.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            continue;
        }
        match rest.next() {
            Some(b'\\') => {}
            Some(digit) if digit.is_ascii_digit() && usize::from(digit - b'0') < groups => {}
            Some(digit) if digit.is_ascii_digit() => {
                return Err("refers to a group that the pattern does not have".to_owned());
            }
            _ => return Err("a backslash is followed by neither a digit nor a backslash".to_owned()),
        }
    }
    Ok(())
}

pub(super) fn string(value: matcher::StringMatcher) -> Decoded<StringMatcher> {
    let matcher::StringMatcher { ignore_case, match_pattern } = value;
    let text = |text: String| if ignore_case { text.to_ascii_lowercase().into_boxed_str() } else { text.into() };
    let kind = match match_pattern {
        Some(MatchPattern::Exact(value)) => StringMatch::Exact(text(value)),
        // What an empty one matches is everything, which is said without it.
        Some(MatchPattern::Prefix(value)) => StringMatch::Prefix(text(filled(value).at("prefix")?)),
        Some(MatchPattern::Suffix(value)) => StringMatch::Suffix(text(filled(value).at("suffix")?)),
        Some(MatchPattern::Contains(value)) => StringMatch::Contains(text(filled(value).at("contains")?)),
        Some(MatchPattern::SafeRegex(value)) => StringMatch::Regex(regex(value).at("safe_regex")?),
        Some(MatchPattern::Custom(_)) => return Err(Refusal::unsupported("custom")),
        None => return Err(Refusal::new("match_pattern", "missing")),
    };
    // Envoy ignores the switch for regular expressions.
    let ignore_case = ignore_case && !matches!(kind, StringMatch::Regex(_));
    Ok(StringMatcher { kind, ignore_case })
}

pub(super) fn strings(list: Vec<matcher::StringMatcher>, field: &str) -> Decoded<Box<[StringMatcher]>> {
    list.into_iter().enumerate().map(|(at, value)| string(value).nth(field, at)).collect()
}

fn exact(kind: StringMatch) -> HeaderMatch {
    HeaderMatch::Text(StringMatcher { kind, ignore_case: false })
}

pub(super) fn header(value: route::HeaderMatcher) -> Decoded<HeaderMatcher> {
    use route::header_matcher::HeaderMatchSpecifier as Spec;
    let route::HeaderMatcher { name, invert_match, treat_missing_header_as_empty, header_match_specifier } = value;
    let kind = match header_match_specifier {
        None => HeaderMatch::Present(true),
        Some(Spec::PresentMatch(present)) => HeaderMatch::Present(present),
        Some(Spec::StringMatch(value)) => HeaderMatch::Text(string(value).at("string_match")?),
        Some(Spec::RangeMatch(range)) => HeaderMatch::Range(range.start, range.end),
        Some(Spec::ExactMatch(value)) if value.is_empty() => HeaderMatch::Present(true),
        Some(Spec::ExactMatch(value)) => exact(StringMatch::Exact(value.into())),
        Some(Spec::PrefixMatch(value)) => exact(StringMatch::Prefix(value.into())),
        Some(Spec::SuffixMatch(value)) => exact(StringMatch::Suffix(value.into())),
        Some(Spec::ContainsMatch(value)) => exact(StringMatch::Contains(value.into())),
        Some(Spec::SafeRegexMatch(value)) => exact(StringMatch::Regex(regex(value).at("safe_regex_match")?)),
    };
    let name = Name::parse(&name).at("name")?;
    Ok(HeaderMatcher { name, kind, invert: invert_match, missing_is_empty: treat_missing_header_as_empty })
}

pub(super) fn headers(list: Vec<route::HeaderMatcher>, field: &str) -> Decoded<Box<[HeaderMatcher]>> {
    list.into_iter().enumerate().map(|(at, value)| header(value).nth(field, at)).collect()
}

pub(super) fn query(value: route::QueryParameterMatcher) -> Decoded<QueryMatcher> {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier as Spec;
    let kind = match value.query_parameter_match_specifier {
        None => QueryMatch::Present(true),
        Some(Spec::PresentMatch(present)) => QueryMatch::Present(present),
        Some(Spec::StringMatch(value)) => QueryMatch::Text(string(value).at("string_match")?),
    };
    Ok(QueryMatcher { name: filled(value.name).at("name")?.into(), kind })
}

pub(super) fn share(value: &types::FractionalPercent, runtime_key: &str) -> Fraction {
    use types::fractional_percent::DenominatorType as D;
    let denominator = match value.denominator() {
        D::Hundred => 100,
        D::TenThousand => 10_000,
        D::Million => 1_000_000,
    };
    Fraction { numerator: value.numerator, denominator, runtime_key: runtime_key.into() }
}

/// A share that may be absent; what Envoy takes then is `default`.
pub(super) fn runtime_share(
    value: Option<core::RuntimeFractionalPercent>,
    default: Option<Fraction>,
) -> Decoded<Option<Fraction>> {
    match value {
        None => Ok(default),
        Some(core::RuntimeFractionalPercent { default_value, runtime_key }) => {
            let value = default_value.ok_or_else(|| Refusal::new("default_value", "missing"))?;
            known::<types::fractional_percent::DenominatorType>(value.denominator).at("default_value.denominator")?;
            Ok(Some(share(&value, &runtime_key)))
        }
    }
}

pub(super) fn cookie(value: route::CookieMatcher) -> Decoded<(Box<str>, StringMatcher, bool)> {
    let route::CookieMatcher { name, string_match, invert_match } = value;
    let matcher = string_match.ok_or_else(|| Refusal::new("string_match", "missing"))?;
    Ok((filled(name).at("name")?.into(), string(matcher).at("string_match")?, invert_match))
}
