//! The filter that writes values of headers and cookies into metadata.

use super::{
    Refusal,
    any::{At as _, Decoded, filled, value},
    matcher,
};
use crate::{
    config::{
        HeaderMutationFilter, HeaderToMetadata, MetadataKind, MetadataRule, MetadataSource, MetadataTarget, Mutation,
        Value,
    },
    head::Name,
};
use prost::Message as _;
use std::sync::Arc;
use tombolo_controlplane_api::xds::{
    envoy::extensions::filters::http::header_to_metadata::v3::{
        Config,
        config::{KeyValuePair, Rule, ValueEncode, ValueType},
    },
    google::protobuf as pb,
};

const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";

/// The filter's settings, in a chain or on a route.
pub(super) fn filter(message: Config, on_route: bool) -> Decoded<HeaderToMetadata> {
    let Config { request_rules, response_rules, stat_prefix } = message;
    // Nothing is counted here.
    let _ = stat_prefix;
    if on_route && request_rules.is_empty() && response_rules.is_empty() {
        return Err(Refusal::new("request_rules", "empty, and so is response_rules"));
    }
    let list = |rules: Vec<Rule>, field: &str| -> Decoded<Box<[MetadataRule]>> {
        rules.into_iter().enumerate().map(|(at, one)| rule(one).nth(field, at)).collect()
    };
    let request = list(request_rules, "request_rules")?;
    let removed = request.iter().filter(|rule| rule.remove).filter_map(|rule| match &rule.source {
        MetadataSource::Header(Some(Name::Header(name))) => Some(Mutation::Remove(name.clone())),
        _ => None,
    });
    let removed: Box<[_]> = removed.collect();
    let removal = HeaderMutationFilter { request: removed, ..HeaderMutationFilter::default() };
    Ok(HeaderToMetadata {
        removal: (!removal.request.is_empty()).then(|| Arc::new(removal)),
        request,
        response: list(response_rules, "response_rules")?,
    })
}

fn rule(message: Rule) -> Decoded<MetadataRule> {
    let Rule { header, cookie, on_header_present, on_header_missing, remove } = message;
    let source = match (header.is_empty(), cookie.is_empty()) {
        (true, true) => return Err(Refusal::new("header", "missing, and so is cookie")),
        (false, false) => return Err(Refusal::new("cookie", "beside header")),
        (false, true) => MetadataSource::Header(Name::parse(&header).ok()),
        (true, false) if remove => return Err(Refusal::new("remove", "means nothing for a cookie")),
        (true, false) => MetadataSource::Cookie(cookie.into()),
    };
    if remove && !matches!(source, MetadataSource::Header(None | Some(Name::Header(_)))) {
        return Err(Refusal::new("remove", format!("{header:?} may not be removed")));
    }
    if on_header_present.is_none() && on_header_missing.is_none() {
        return Err(Refusal::new("on_header_present", "missing, and so is on_header_missing"));
    }
    if on_header_present.as_ref().is_some_and(|pair| pair.regex_value_rewrite.is_some() && !pair.value.is_empty()) {
        return Err(Refusal::new("on_header_present.regex_value_rewrite", "beside value"));
    }
    if on_header_missing.as_ref().is_some_and(|pair| pair.value.is_empty()) {
        return Err(Refusal::new("on_header_missing.value", "empty"));
    }
    Ok(MetadataRule {
        source,
        present: on_header_present.map(target).transpose().at("on_header_present")?,
        missing: on_header_missing.map(target).transpose().at("on_header_missing")?,
        remove,
    })
}

fn target(message: KeyValuePair) -> Decoded<MetadataTarget> {
    let KeyValuePair { metadata_namespace, key, value, regex_value_rewrite, r#type, encode } = message;
    let kind = match ValueType::try_from(r#type) {
        Ok(ValueType::String) => MetadataKind::Text,
        Ok(ValueType::Number) => MetadataKind::Number,
        Ok(ValueType::ProtobufValue) => MetadataKind::Encoded,
        Err(_) => return Err(Refusal::new("type", format!("{} is not known", r#type))),
    };
    Ok(MetadataTarget {
        namespace: if metadata_namespace.is_empty() { NAMESPACE } else { &metadata_namespace }.into(),
        key: filled(key).at("key")?.into(),
        value: value.into(),
        rewrite: regex_value_rewrite.map(matcher::rewrite).transpose().at("regex_value_rewrite")?,
        kind,
        base64: ValueEncode::try_from(encode) == Ok(ValueEncode::Base64),
    })
}

/// What an encoded `google.protobuf.Value` is.
pub(crate) fn value_of(bytes: &[u8]) -> Option<Value> {
    value(&pb::Value::decode(bytes).ok()?, 0).ok()
}
