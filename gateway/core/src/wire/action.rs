//! How routes forward.

use super::{
    Refusal,
    any::{
        At, Decoded, bool_or, distinct, filled, header_name, header_value, known, one_line, opt_duration, refuse,
        structure, timeout, u32_or, unpack,
    },
    filter, matcher, retry, route,
};
use crate::{
    config::{
        ClusterChoice, ClusterWeight, Fraction, HashPolicy, HashSource, HostRewrite, InternalRedirect, MetadataMatch,
        Mirror, PathMatch, PathRewrite, RouteAction, RouteMatch, RoutePriority, StreamLimit, Upgrade, UpgradeOverride,
        Value,
    },
    format::Format,
    route::template,
};
use http::StatusCode;
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            core::v3 as core,
            route::v3::{self as pb, route_action as ra, weighted_cluster as wc},
        },
        extensions::{
            internal_redirect::{
                allow_listed_routes::v3::AllowListedRoutesConfig, previous_routes::v3::PreviousRoutesConfig,
                safe_cross_scheme::v3::SafeCrossSchemeConfig,
            },
            path::rewrite::uri_template::v3::UriTemplateRewriteConfig,
        },
    },
    google::protobuf,
};

/// What Envoy takes when a route says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) fn forward(message: pb::RouteAction, matches: &RouteMatch) -> Decoded<RouteAction> {
    if ra::ClusterNotFoundResponseCode::try_from(message.cluster_not_found_response_code).is_err() {
        return Err(Refusal::new("cluster_not_found_response_code", "not a value of the enumeration"));
    }
    let cluster_not_found = match message.cluster_not_found_response_code() {
        ra::ClusterNotFoundResponseCode::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ra::ClusterNotFoundResponseCode::NotFound => StatusCode::NOT_FOUND,
        ra::ClusterNotFoundResponseCode::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let priority = priority(message.priority).at("priority")?;
    let pb::RouteAction {
        cluster_not_found_response_code: _,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout: bound,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority: _,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = message;
    refuse!(flush_timeout, early_data_policy, retry_policy_typed_config, cors);
    refuse!(max_grpc_timeout, grpc_timeout_offset, internal_redirect_action, max_internal_redirects);
    let rewrites = Rewrites { prefix_rewrite, regex_rewrite, path_rewrite_policy, path_rewrite };
    let hash = hash_policy.into_iter().enumerate().map(|(at, policy)| hash(policy).nth("hash_policy", at));
    let kinds: Vec<_> = upgrade_configs.iter().map(|one| one.upgrade_type.to_ascii_lowercase()).collect();
    distinct(&kinds, "upgrade_configs")?;
    let upgrades = upgrade_configs.into_iter().enumerate().map(|(at, u)| upgrade(u).nth("upgrade_configs", at));
    Ok(RouteAction {
        cluster: cluster(cluster_specifier)?,
        cluster_not_found,
        metadata_match: subset(metadata_match.as_ref()).at("metadata_match")?,
        path_rewrite: rewrites.decode(matches)?,
        host_rewrite: host_rewrite(host_rewrite_specifier)?,
        append_x_forwarded_host,
        timeout: timeout(bound.as_ref(), Some(DEFAULT_TIMEOUT), "timeout")?,
        idle_timeout: opt_duration(idle_timeout.as_ref(), "idle_timeout")?,
        stream_limit: max_stream_duration.map(stream_limit).transpose().at("max_stream_duration")?.map(Box::new),
        retry: retry_policy.map(retry::policy).transpose().at("retry_policy")?.map(Arc::new),
        hedge: hedge_policy.map(retry::hedge).transpose().at("hedge_policy")?.map(Arc::new),
        mirrors: mirrors(request_mirror_policies)?,
        priority,
        hash: hash.collect::<Decoded<_>>()?,
        rate_rules: super::limit::rules(rate_limits)?,
        include_host_rules: bool_or(include_vh_rate_limits, false),
        upgrades: upgrades.collect::<Decoded<_>>()?,
        internal_redirect: internal_redirect_policy
            .map(internal_redirect)
            .transpose()
            .at("internal_redirect_policy")?
            .map(Arc::new),
    })
}

fn priority(value: i32) -> Result<RoutePriority, String> {
    Ok(match known(value)? {
        core::RoutingPriority::High => RoutePriority::High,
        core::RoutingPriority::Default => RoutePriority::Default,
    })
}

/// The `envoy.lb` part of metadata, sorted by key.
pub(super) fn subset(metadata: Option<&core::Metadata>) -> Result<Option<MetadataMatch>, String> {
    let Some(wanted) = metadata.and_then(|m| m.filter_metadata.get("envoy.lb")).filter(|m| !m.fields.is_empty()) else {
        return Ok(None);
    };
    Ok(match structure(wanted, 0)? {
        Value::Map(map) => Some(map.iter().map(|(key, value)| (Arc::clone(key), value.clone())).collect()),
        _ => None,
    })
}

struct Rewrites {
    prefix_rewrite: String,
    regex_rewrite: Option<tombolo_controlplane_api::xds::envoy::r#type::matcher::v3::RegexMatchAndSubstitute>,
    path_rewrite_policy: Option<core::TypedExtensionConfig>,
    path_rewrite: String,
}

impl Rewrites {
    fn decode(self, matches: &RouteMatch) -> Decoded<PathRewrite> {
        let Self { prefix_rewrite, regex_rewrite, path_rewrite_policy, path_rewrite } = self;
        let several = [
            !prefix_rewrite.is_empty(),
            regex_rewrite.is_some(),
            path_rewrite_policy.is_some(),
            !path_rewrite.is_empty(),
        ];
        if several.into_iter().filter(|set| *set).count() > 1 {
            return Err(Refusal::new("prefix_rewrite", "more than one way to rewrite the path"));
        }
        one_line(&prefix_rewrite).at("prefix_rewrite")?;
        if let Some(rewrite) = regex_rewrite {
            return Ok(PathRewrite::Regex(Box::new(matcher::rewrite(rewrite).at("regex_rewrite")?)));
        }
        if let Some(policy) = path_rewrite_policy {
            let config =
                policy.typed_config.ok_or_else(|| Refusal::new("path_rewrite_policy.typed_config", "missing"))?;
            let config: UriTemplateRewriteConfig = unpack(&config).at("path_rewrite_policy.typed_config")?;
            let PathMatch::Template(wanted) = &matches.path else {
                return Err(Refusal::new("path_rewrite_policy", "needs a path_match_policy"));
            };
            let parts = template::parse_rewrite(&config.path_template_rewrite, wanted);
            return Ok(PathRewrite::Template(parts.at("path_rewrite_policy")?));
        }
        if !path_rewrite.is_empty() {
            return Ok(PathRewrite::Format(Box::new(Format::parse(&path_rewrite).at("path_rewrite")?)));
        }
        Ok(if prefix_rewrite.is_empty() { PathRewrite::None } else { PathRewrite::Prefix(prefix_rewrite.into()) })
    }
}

fn host_rewrite(specifier: Option<ra::HostRewriteSpecifier>) -> Decoded<HostRewrite> {
    use ra::HostRewriteSpecifier as S;
    Ok(match specifier {
        None => HostRewrite::None,
        Some(S::HostRewriteLiteral(host)) if host.is_empty() => HostRewrite::None,
        Some(S::HostRewriteLiteral(host)) => {
            HostRewrite::Literal(Box::new(header_value(&host).at("host_rewrite_literal")?))
        }
        Some(S::AutoHostRewrite(auto)) => {
            if auto.value {
                HostRewrite::Auto
            } else {
                HostRewrite::None
            }
        }
        Some(S::HostRewriteHeader(name)) => {
            HostRewrite::Header(Box::new(header_name(&name).at("host_rewrite_header")?))
        }
        Some(S::HostRewritePathRegex(rewrite)) => {
            HostRewrite::PathRegex(Box::new(matcher::rewrite(rewrite).at("host_rewrite_path_regex")?))
        }
        Some(S::HostRewrite(_)) => return Err(Refusal::unsupported("host_rewrite")),
    })
}

fn cluster(specifier: Option<ra::ClusterSpecifier>) -> Decoded<ClusterChoice> {
    Ok(match specifier {
        Some(ra::ClusterSpecifier::Cluster(name)) => ClusterChoice::One(filled(name).at("cluster")?.into()),
        Some(ra::ClusterSpecifier::ClusterHeader(name)) => {
            ClusterChoice::Header(Box::new(header_name(&name).at("cluster_header")?))
        }
        Some(ra::ClusterSpecifier::WeightedClusters(weighted)) => {
            weighted_clusters(weighted).at("weighted_clusters")?
        }
        Some(ra::ClusterSpecifier::ClusterSpecifierPlugin(_)) => {
            return Err(Refusal::unsupported("cluster_specifier_plugin"));
        }
        Some(ra::ClusterSpecifier::InlineClusterSpecifierPlugin(_)) => {
            return Err(Refusal::unsupported("inline_cluster_specifier_plugin"));
        }
        None => return Err(Refusal::new("cluster_specifier", "missing")),
    })
}

fn weighted_clusters(message: pb::WeightedCluster) -> Decoded<ClusterChoice> {
    let pb::WeightedCluster { clusters, total_weight, runtime_key_prefix, random_value_specifier } = message;
    refuse!(total_weight);
    let random_header = match random_value_specifier {
        Some(wc::RandomValueSpecifier::HeaderName(name)) => Some(header_name(&name).at("header_name")?),
        Some(wc::RandomValueSpecifier::UseHashPolicy(used)) if used.value => {
            return Err(Refusal::unsupported("use_hash_policy"));
        }
        Some(wc::RandomValueSpecifier::UseHashPolicy(_)) | None => None,
    };
    let clusters = clusters.into_iter().enumerate().map(|(at, c)| cluster_weight(c).nth("clusters", at));
    let clusters = clusters.collect::<Decoded<Box<[ClusterWeight]>>>()?;
    let total = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total == 0 || total > u64::from(u32::MAX) {
        return Err(Refusal::new("clusters", format!("the sum of the weights is {total}")));
    }
    Ok(ClusterChoice::Weighted {
        clusters,
        total,
        runtime_prefix: runtime_key_prefix.into(),
        random_header: random_header.map(Box::new),
    })
}

fn cluster_weight(message: wc::ClusterWeight) -> Decoded<ClusterWeight> {
    let wc::ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = message;
    let host_rewrite = match host_rewrite_specifier {
        Some(wc::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            route::literal_host(&host, "host_rewrite_literal")?
        }
        None => None,
    };
    if name.is_empty() == cluster_header.is_empty() {
        return Err(Refusal::new("name", "either name or cluster_header is needed"));
    }
    Ok(ClusterWeight {
        name: name.into(),
        header: if cluster_header.is_empty() { None } else { Some(header_name(&cluster_header).at("cluster_header")?) },
        weight: weight.ok_or_else(|| Refusal::new("weight", "missing"))?.value,
        metadata_match: subset(metadata_match.as_ref()).at("metadata_match")?,
        request_headers: route::request_changes(request_headers_to_add, &request_headers_to_remove)?,
        response_headers: route::response_changes(response_headers_to_add, &response_headers_to_remove)?,
        overrides: filter::overrides(typed_per_filter_config)?,
        host_rewrite,
    })
}

fn stream_limit(message: ra::MaxStreamDuration) -> Decoded<StreamLimit> {
    let ra::MaxStreamDuration { max_stream_duration, grpc_timeout_header_max, grpc_timeout_header_offset } = message;
    Ok(StreamLimit {
        max: opt_duration(max_stream_duration.as_ref(), "max_stream_duration")?,
        grpc_max: opt_duration(grpc_timeout_header_max.as_ref(), "grpc_timeout_header_max")?,
        grpc_offset: opt_duration(grpc_timeout_header_offset.as_ref(), "grpc_timeout_header_offset")?
            .unwrap_or_default(),
    })
}

pub(super) fn mirrors(list: Vec<ra::RequestMirrorPolicy>) -> Decoded<Box<[Mirror]>> {
    list.into_iter().enumerate().map(|(at, m)| mirror(m).nth("request_mirror_policies", at)).collect()
}

fn mirror(message: ra::RequestMirrorPolicy) -> Decoded<Mirror> {
    let ra::RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction,
        trace_sampled,
        disable_shadow_host_suffix_append,
        request_headers_mutations,
        host_rewrite_literal,
    } = message;
    // Copies are not traced apart, so there is nothing to decide about.
    let _ = trace_sampled;
    if cluster.is_empty() == cluster_header.is_empty() {
        return Err(Refusal::new("cluster", "either cluster or cluster_header is needed"));
    }
    let share = matcher::runtime_share(runtime_fraction, None).at("runtime_fraction")?;
    Ok(Mirror {
        cluster: cluster.into(),
        header: if cluster_header.is_empty() { None } else { Some(header_name(&cluster_header).at("cluster_header")?) },
        share: share.unwrap_or_else(Fraction::always),
        keep_host: disable_shadow_host_suffix_append,
        headers: super::mutation::list(request_headers_mutations, "request_headers_mutations")?,
        host: route::literal_host(&host_rewrite_literal, "host_rewrite_literal")?,
    })
}

fn hash(message: ra::HashPolicy) -> Decoded<HashPolicy> {
    use ra::hash_policy::PolicySpecifier as P;
    let source = match message.policy_specifier {
        Some(P::Header(header)) => {
            let rewrite = header.regex_rewrite.map(matcher::rewrite).transpose().at("header.regex_rewrite")?;
            let name = header.header_name.as_str();
            let name = if name.eq_ignore_ascii_case(":authority") { "host" } else { name };
            HashSource::Header(header_name(name).at("header.header_name")?, rewrite.map(Box::new))
        }
        Some(P::Cookie(cookie)) => HashSource::Cookie {
            name: filled(cookie.name).at("cookie.name")?.into(),
            ttl: opt_duration(cookie.ttl.as_ref(), "cookie.ttl")?,
            path: cookie.path.into(),
            attributes: cookie.attributes.into_iter().map(|a| (a.name.into(), a.value.into())).collect(),
        },
        Some(P::ConnectionProperties(properties)) if properties.source_ip => HashSource::SourceIp,
        Some(P::ConnectionProperties(_)) => return Err(Refusal::new("connection_properties", "names no property")),
        Some(P::QueryParameter(parameter)) => {
            HashSource::Query(filled(parameter.name).at("query_parameter.name")?.into())
        }
        Some(P::FilterState(_)) => return Err(Refusal::unsupported("filter_state")),
        None => return Err(Refusal::new("policy_specifier", "missing")),
    };
    Ok(HashPolicy { source, terminal: message.terminal })
}

fn upgrade(message: ra::UpgradeConfig) -> Decoded<UpgradeOverride> {
    let ra::UpgradeConfig { upgrade_type, enabled, connect_config } = message;
    if let Some(config) = &connect_config
        && config.proxy_protocol_config.is_some()
    {
        return Err(Refusal::unsupported("connect_config.proxy_protocol_config"));
    }
    if connect_config.as_ref().is_some_and(|config| config.allow_post) {
        return Err(Refusal::unsupported("connect_config.allow_post"));
    }
    one_line(&upgrade_type).at("upgrade_type")?;
    Ok(UpgradeOverride {
        upgrade: Upgrade { kind: filled(upgrade_type).at("upgrade_type")?.into(), enabled: bool_or(enabled, true) },
        terminate_connect: connect_config.is_some(),
    })
}

fn internal_redirect(message: pb::InternalRedirectPolicy) -> Decoded<InternalRedirect> {
    let pb::InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = message;
    let codes: Box<[u16]> = redirect_response_codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect();
    let copied =
        response_headers_to_copy.iter().enumerate().map(|(at, n)| header_name(n).nth("response_headers_to_copy", at));
    let mut policy = InternalRedirect {
        max: u32_or(max_internal_redirects, 1),
        codes: if codes.is_empty() { [302].into() } else { codes },
        allow_cross_scheme: allow_cross_scheme_redirect,
        safe_cross_scheme: false,
        avoid_previous_routes: false,
        allowed_routes: None,
        copy_headers: copied.collect::<Decoded<_>>()?,
    };
    for (at, predicate) in predicates.into_iter().enumerate() {
        predicate_of(predicate.typed_config, &mut policy).nth("predicates", at)?;
    }
    Ok(policy)
}

fn predicate_of(config: Option<protobuf::Any>, policy: &mut InternalRedirect) -> Decoded<()> {
    use prost::Name as _;
    let config = config.ok_or_else(|| Refusal::new("typed_config", "missing"))?;
    let kind = super::any::type_name(&config);
    if kind == PreviousRoutesConfig::full_name() {
        policy.avoid_previous_routes = true;
    } else if kind == SafeCrossSchemeConfig::full_name() {
        policy.safe_cross_scheme = true;
    } else if kind == AllowListedRoutesConfig::full_name() {
        let listed: AllowListedRoutesConfig = unpack(&config)?;
        policy.allowed_routes = Some(super::any::texts(&listed.allowed_route_names));
    } else {
        return Err(Refusal::unsupported(kind));
    }
    Ok(())
}
