//! Local rate limits, and how routes describe requests for them.

use super::{
    Refusal,
    any::{At, Decoded, bool_or, distinct, filled, header_name, refuse, some, some_time, u32_or, within},
    header, matcher,
};
use crate::{
    config::{DescriptorLimit, Fraction, HostRules, LocalRateLimit, RateAction, RateRule},
    filter::TokenBucket,
    time::millis,
};
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::envoy::{
    config::{
        core::v3::RuntimeFractionalPercent,
        route::v3::{RateLimit, rate_limit::Action, rate_limit::action::ActionSpecifier as A},
    },
    extensions::{
        common::ratelimit::v3::{LocalRateLimitDescriptor, VhRateLimitsOptions},
        filters::http::local_ratelimit::v3 as limit,
    },
    r#type::v3::TokenBucket as Bucket,
};

/// As Envoy: a bucket that fills more often is a mistake.
const SHORTEST_FILL: Duration = Duration::from_millis(50);

/// Settings of a filter, or of a route for one: those need a bucket.
pub(super) fn filter(message: limit::LocalRateLimit, on_route: bool) -> Decoded<LocalRateLimit> {
    let host_rules = match message.vh_rate_limits() {
        VhRateLimitsOptions::Override => HostRules::Otherwise,
        VhRateLimitsOptions::Include => HostRules::Always,
        VhRateLimitsOptions::Ignore => HostRules::Never,
    };
    let limit::LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits: _,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = message;
    refuse!(local_cluster_rate_limit);
    // Of descriptors without a value, which are refused.
    let _ = max_dynamic_descriptors;
    if token_bucket.is_none() && (on_route || !descriptors.is_empty()) {
        return Err(Refusal::new("token_bucket", "missing"));
    }
    let named: Vec<_> = descriptors.iter().map(|one| &one.entries).collect();
    distinct(&named, "descriptors")?;
    let descriptors = descriptors.into_iter().enumerate().map(|(at, one)| descriptor(one).nth("descriptors", at));
    // Without a word on the share Envoy does nothing.
    let never = Fraction { numerator: 0, ..Fraction::always() };
    let share = |share: Option<RuntimeFractionalPercent>| {
        Ok::<_, Refusal>(matcher::runtime_share(share, Some(never.clone()))?.unwrap_or_else(|| never.clone()))
    };
    let status = status.map_or(429, |status| status.code);
    Ok(LocalRateLimit {
        stat_prefix: filled(stat_prefix).at("stat_prefix")?.into(),
        bucket: token_bucket.map(bucket).transpose().at("token_bucket")?,
        enabled: share(filter_enabled).at("filter_enabled")?,
        enforced: share(filter_enforced).at("filter_enforced")?,
        status: u16::try_from(status).ok().filter(|status| *status >= 400).unwrap_or(429),
        response_headers: header::changes(response_headers_to_add, &[], "response_headers_to_add", "")?,
        request_headers: header::changes(
            request_headers_to_add_when_not_enforced,
            &[],
            "request_headers_to_add_when_not_enforced",
            "",
        )?,
        grpc_resource_exhausted: rate_limited_as_resource_exhausted,
        descriptors: descriptors.collect::<Decoded<_>>()?,
        rules: rules(rate_limits)?,
        stage,
        host_rules,
        tell: enable_x_ratelimit_headers != 0,
        tell_retry: enable_retry_after_header,
        always_default: bool_or(always_consume_default_token_bucket, true),
        each_connection: local_rate_limit_per_downstream_connection,
    })
}

pub(super) fn bucket(message: Bucket) -> Decoded<Arc<TokenBucket>> {
    let Bucket { max_tokens, tokens_per_fill, fill_interval } = message;
    let interval = fill_interval.as_ref().ok_or_else(|| Refusal::new("fill_interval", "missing"))?;
    let interval = some_time(interval).at("fill_interval")?;
    if interval < SHORTEST_FILL {
        return Err(Refusal::new("fill_interval", "less than 50 ms"));
    }
    let fill = within(tokens_per_fill, 1..=u32::MAX, "tokens_per_fill")?.unwrap_or(1);
    Ok(Arc::new(TokenBucket::new(max_tokens, fill, millis(interval))))
}

fn descriptor(message: LocalRateLimitDescriptor) -> Decoded<DescriptorLimit> {
    let LocalRateLimitDescriptor { entries, token_bucket, shadow_mode } = message;
    some(&entries).at("entries")?;
    let entries = entries.into_iter().enumerate().map(|(at, entry)| {
        let key = filled(entry.key).at("key").nth("entries", at)?;
        if entry.value.is_empty() {
            return Err(Refusal::unsupported(format!("entries[{at}].value (empty)")));
        }
        Ok((Box::from(key), Box::from(entry.value)))
    });
    let own = token_bucket.ok_or_else(|| Refusal::new("token_bucket", "missing"))?;
    Ok(DescriptorLimit {
        entries: entries.collect::<Decoded<_>>()?,
        bucket: bucket(own).at("token_bucket")?,
        shadow: shadow_mode,
    })
}

/// How requests are described. Rules with a key that switches them off are off, as in Envoy's local limits.
pub(super) fn rules(list: Vec<RateLimit>) -> Decoded<Box<[RateRule]>> {
    let mut out = Vec::with_capacity(list.len());
    for (at, message) in list.into_iter().enumerate() {
        let off = !message.disable_key.is_empty();
        let rule = rule(message).nth("rate_limits", at)?;
        if !off {
            out.push(rule);
        }
    }
    Ok(out.into())
}

fn rule(message: RateLimit) -> Decoded<RateRule> {
    let RateLimit { stage, disable_key, actions, limit, hits_addend, apply_on_stream_done, x_ratelimit_option } =
        message;
    let _ = disable_key;
    refuse!(limit, hits_addend, apply_on_stream_done, x_ratelimit_option);
    some(&actions).at("actions")?;
    let actions = actions.into_iter().enumerate().map(|(at, one)| action(one).nth("actions", at));
    Ok(RateRule { stage: u32_or(stage, 0), actions: actions.collect::<Decoded<_>>()? })
}

fn key(text: String, default: &str) -> Box<str> {
    if text.is_empty() { default.into() } else { text.into() }
}

fn action(message: Action) -> Decoded<RateAction> {
    Ok(match message.action_specifier {
        Some(A::DestinationCluster(_)) => RateAction::DestinationCluster,
        Some(A::RemoteAddress(_)) => RateAction::RemoteAddress,
        Some(A::MaskedRemoteAddress(by)) => {
            let bits = |given, most: u8| u8::try_from(u32_or(given, u32::from(most))).unwrap_or(most).min(most);
            RateAction::MaskedAddress(bits(by.v4_prefix_mask_len, 32), bits(by.v6_prefix_mask_len, 128))
        }
        Some(A::RequestHeaders(by)) => {
            let name = if by.header_name.eq_ignore_ascii_case(":authority") { "host" } else { &by.header_name };
            let name = header_name(name).at("request_headers.header_name")?;
            let key = filled(by.descriptor_key).at("request_headers.descriptor_key")?;
            RateAction::Header(name, key.into(), by.skip_if_absent)
        }
        Some(A::QueryParameters(by)) => {
            let name = filled(by.query_parameter_name).at("query_parameters.query_parameter_name")?;
            let key = filled(by.descriptor_key).at("query_parameters.descriptor_key")?;
            RateAction::Query(name.into(), key.into(), by.skip_if_absent)
        }
        Some(A::GenericKey(by)) => {
            let value = filled(by.descriptor_value).at("generic_key.descriptor_value")?;
            RateAction::Key(key(by.descriptor_key, "generic_key"), value.into())
        }
        Some(A::HeaderValueMatch(by)) => RateAction::HeaderMatch(
            key(by.descriptor_key, "header_match"),
            filled(by.descriptor_value).at("header_value_match.descriptor_value")?.into(),
            bool_or(by.expect_match, true),
            matcher::headers(by.headers, "headers").at("header_value_match")?,
        ),
        Some(A::QueryParameterValueMatch(by)) => RateAction::QueryMatch(
            key(by.descriptor_key, "query_match"),
            filled(by.descriptor_value).at("query_parameter_value_match.descriptor_value")?.into(),
            bool_or(by.expect_match, true),
            by.query_parameters.into_iter().map(matcher::query).collect::<Decoded<_>>()?,
        ),
        Some(A::SourceCluster(_)) => return Err(Refusal::unsupported("source_cluster")),
        Some(A::DynamicMetadata(_)) => return Err(Refusal::unsupported("dynamic_metadata")),
        Some(A::Metadata(_)) => return Err(Refusal::unsupported("metadata")),
        Some(A::Extension(by)) => return Err(Refusal::unsupported(format!("extension.{}", by.name))),
        Some(A::RemoteAddressMatch(_)) => return Err(Refusal::unsupported("remote_address_match")),
        None => return Err(Refusal::new("action_specifier", "missing")),
    })
}
