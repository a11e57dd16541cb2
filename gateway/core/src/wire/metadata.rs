//! Metadata of requests: the filter that writes it, and matchers.

use super::{
    Refusal,
    any::{At, Decoded, filled, refuse, structure},
    matcher,
};
use crate::config::{MetadataEntry, MetadataMatcher, MetadataPlace, SetMetadata, ValueMatcher};
use std::sync::Arc;
use tombolo_controlplane_api::xds::envoy::{
    extensions::filters::http::set_metadata::v3 as set,
    r#type::matcher::v3::{
        self as pb, double_matcher::MatchPattern as Number, list_matcher::MatchPattern as List,
        metadata_matcher::path_segment::Segment, value_matcher::MatchPattern,
    },
};

/// Matchers in matchers nested deeper than this are refused.
const DEEPEST: u32 = 16;

/// The filter's settings. What the older fields say comes first and is merged, as in Envoy.
pub(super) fn filter(message: set::Config) -> Decoded<SetMetadata> {
    let set::Config { metadata_namespace, value, metadata } = message;
    let mut entries = Vec::with_capacity(metadata.len() + 1);
    if let Some(value) = value {
        let value = structure(&value, 0).at("value")?;
        entries.push(MetadataEntry { namespace: metadata_namespace.into(), value, merge: true });
    }
    for (at, one) in metadata.into_iter().enumerate() {
        entries.extend(entry(one).nth("metadata", at)?);
    }
    Ok(SetMetadata::new(entries.into()))
}

fn entry(message: set::Metadata) -> Decoded<Option<MetadataEntry>> {
    let set::Metadata { metadata_namespace, allow_overwrite, value, typed_value } = message;
    refuse!(typed_value);
    let namespace = filled(metadata_namespace).at("metadata_namespace")?.into();
    let Some(value) = value else { return Ok(None) };
    let value = structure(&value, 0).at("value")?;
    Ok(Some(MetadataEntry { namespace, value, merge: allow_overwrite }))
}

/// A condition on metadata.
pub(super) fn condition(message: pb::MetadataMatcher) -> Decoded<MetadataMatcher> {
    let pb::MetadataMatcher { filter, path, value, invert } = message;
    let keys = path.into_iter().enumerate().map(|(at, segment)| match segment.segment {
        Some(Segment::Key(key)) => Ok(Arc::from(filled(key).at("key").nth("path", at)?)),
        None => Err(Refusal::new("segment", "missing")).nth("path", at),
    });
    let keys: Box<[Arc<str>]> = keys.collect::<Decoded<_>>()?;
    if keys.is_empty() {
        return Err(Refusal::new("path", "empty"));
    }
    let value = value.ok_or_else(|| Refusal::new("value", "missing"))?;
    let place = MetadataPlace { namespace: filled(filter).at("filter")?.into(), keys };
    Ok(MetadataMatcher { place, value: self::value(value, 0).at("value")?, invert })
}

fn value(message: pb::ValueMatcher, depth: u32) -> Decoded<ValueMatcher> {
    if depth > DEEPEST {
        return Err(Refusal::new("", "nested too deep"));
    }
    Ok(match message.match_pattern {
        Some(MatchPattern::NullMatch(_)) => ValueMatcher::Null,
        Some(MatchPattern::DoubleMatch(number)) => match number.match_pattern {
            Some(Number::Exact(exact)) => ValueMatcher::Number(exact, exact),
            Some(Number::Range(range)) => ValueMatcher::Number(range.start, range.end),
            None => return Err(Refusal::new("double_match.match_pattern", "missing")),
        },
        Some(MatchPattern::StringMatch(text)) => ValueMatcher::Text(matcher::string(text).at("string_match")?),
        Some(MatchPattern::BoolMatch(truth)) => ValueMatcher::Bool(truth),
        Some(MatchPattern::PresentMatch(present)) => ValueMatcher::Present(present),
        Some(MatchPattern::ListMatch(list)) => match list.match_pattern {
            Some(List::OneOf(one)) => ValueMatcher::Item(Box::new(value(*one, depth + 1).at("list_match.one_of")?)),
            None => return Err(Refusal::new("list_match.match_pattern", "missing")),
        },
        Some(MatchPattern::OrMatch(all)) => {
            let all = all.value_matchers;
            if all.len() < 2 {
                return Err(Refusal::new("or_match.value_matchers", "fewer than two"));
            }
            let all =
                all.into_iter().enumerate().map(|(at, one)| value(one, depth + 1).nth("or_match.value_matchers", at));
            ValueMatcher::One(all.collect::<Decoded<_>>()?)
        }
        None => return Err(Refusal::new("match_pattern", "missing")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named() {
        let field = |message: set::Config| filter(message).unwrap_err().field;
        let nameless = set::Metadata { value: Some(Default::default()), ..Default::default() };
        let config = |one| set::Config { metadata: vec![one], ..Default::default() };
        assert_eq!(field(config(nameless)), "metadata[0].metadata_namespace");
        let typed = set::Metadata {
            metadata_namespace: "n".into(),
            typed_value: Some(Default::default()),
            ..Default::default()
        };
        assert_eq!(field(config(typed)), "metadata[0].typed_value");
        let wanted = pb::MetadataMatcher { filter: "n".into(), ..Default::default() };
        assert_eq!(condition(wanted).unwrap_err().field, "path");
    }
}
