//! HTTP filters and what routes say about them.

use super::{
    Refusal,
    any::{At, Decoded, bool_or, header_name, header_value, refuse, type_name, unpack},
    body, extension, matcher, rbac,
};
use crate::config::{
    Abort, AbortKind, Cors, Csrf, Delay, DelayKind, Fault, FaultRate, FilterOverride, FilterOverrides, Fraction,
    HealthCheckFilter, HttpFilter, HttpFilterKind, RouterFilter,
};
use prost::{Message as _, Name as _};
use std::{collections::HashMap, sync::Arc};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{core::v3::RuntimeFractionalPercent, route::v3::FilterConfig},
        extensions::filters::{
            common::fault::v3 as common,
            http::{
                buffer::v3 as buffer, compressor::v3 as compressor, cors::v3 as cors, csrf::v3 as csrf,
                decompressor::v3 as decompressor, dynamic_forward_proxy::v3 as forward, fault::v3 as fault,
                grpc_stats::v3 as stats, grpc_web::v3 as grpc_web, header_mutation::v3 as mutation,
                header_to_metadata::v3 as told, health_check::v3 as health_check, local_ratelimit::v3 as limit,
                on_demand::v3::OnDemand, rbac::v3 as access, router::v3 as router, set_metadata::v3 as set_metadata,
            },
            network::http_connection_manager::v3::{self as hcm, http_filter::ConfigType},
        },
        r#type::v3::FractionalPercent,
    },
    google::protobuf::Any,
};

/// Names of the filters that count with mesh labels, and that tell the peer's name for it: one thing here.
const MESH_STATS: [&str; 2] = ["istio.stats", "istio.metadata_exchange"];

/// A configuration as a struct, with the name of its real type (`udpa.type.v1` and `xds.type.v3` alike). Only the name is read.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
}

/// The type of a configuration, within a struct or not.
pub(super) fn inner_type(config: &Any) -> String {
    let name = type_name(config);
    let in_struct = matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct");
    let inner = in_struct.then(|| TypedStruct::decode(&*config.value).ok()).flatten().map(|inner| inner.type_url);
    let url = inner.unwrap_or_else(|| name.to_owned());
    url.rsplit_once('/').map_or(url.clone(), |(_, name)| name.to_owned())
}

/// The filters of a connection manager. Unknown ones that are optional are left out.
pub(super) fn chain(list: Vec<hcm::HttpFilter>) -> Decoded<Box<[HttpFilter]>> {
    let mut filters: Vec<HttpFilter> = Vec::with_capacity(list.len());
    let last = list.len().saturating_sub(1);
    for (at, filter) in list.into_iter().enumerate() {
        let Some(filter) = one(filter).nth("http_filters", at)? else { continue };
        let terminal = matches!(filter.kind, HttpFilterKind::Router(_));
        if terminal != (at == last) {
            return Err(Refusal::new(
                format!("http_filters[{at}]"),
                "the router must be the last filter, and only there",
            ));
        }
        filters.push(filter);
    }
    if !matches!(filters.last().map(|filter| &filter.kind), Some(HttpFilterKind::Router(_))) {
        return Err(Refusal::new("http_filters", "no router at the end"));
    }
    Ok(filters.into())
}

fn one(message: hcm::HttpFilter) -> Decoded<Option<HttpFilter>> {
    let hcm::HttpFilter { name, is_optional, disabled, config_type } = message;
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(source)) => {
            let source = extension::source(&name, source).at("config_discovery")?;
            return Ok(Some(HttpFilter { name: name.into(), disabled, kind: HttpFilterKind::Discovered(source) }));
        }
        None => return Err(Refusal::new(format!("{name}.typed_config"), "missing")),
    };
    let kind = match known(&name, &config).at("typed_config")? {
        Some(kind) => kind,
        None if is_optional => return Ok(None),
        None => return Err(Refusal::unsupported(format!("{name} ({})", inner_type(&config)))),
    };
    Ok(Some(HttpFilter { name: name.into(), disabled, kind }))
}

/// `None` for filters that we do not have.
pub(super) fn known(name: &str, config: &Any) -> Decoded<Option<HttpFilterKind>> {
    let kind = type_name(config);
    Ok(Some(if MESH_STATS.contains(&name) || inner_type(config) == "stats.PluginConfig" {
        HttpFilterKind::MeshStats
    } else if kind == OnDemand::full_name() {
        let OnDemand { odcds } = unpack(config)?;
        refuse!(odcds);
        HttpFilterKind::OnDemand
    } else if kind == router::Router::full_name() {
        HttpFilterKind::Router(router_filter(unpack(config)?)?)
    } else if kind == fault::HttpFault::full_name() {
        HttpFilterKind::Fault(Arc::new(fault_filter(unpack(config)?)?))
    } else if kind == cors::Cors::full_name() {
        HttpFilterKind::Cors
    } else if kind == limit::LocalRateLimit::full_name() {
        HttpFilterKind::LocalRateLimit(Arc::new(super::limit::filter(unpack(config)?, false)?))
    } else if kind == mutation::HeaderMutation::full_name() {
        HttpFilterKind::HeaderMutation(Arc::new(super::mutation::filter(unpack(config)?)?))
    } else if kind == told::Config::full_name() {
        HttpFilterKind::HeaderToMetadata(Arc::new(super::told::filter(unpack(config)?, false)?))
    } else if kind == csrf::CsrfPolicy::full_name() {
        HttpFilterKind::Csrf(Arc::new(csrf_policy(unpack(config)?)?))
    } else if kind == set_metadata::Config::full_name() {
        HttpFilterKind::SetMetadata(Arc::new(super::metadata::filter(unpack(config)?)?))
    } else if kind == forward::FilterConfig::full_name() {
        forward_proxy(unpack(config)?)?;
        HttpFilterKind::DynamicForwardProxy
    } else if kind == compressor::Compressor::full_name() {
        HttpFilterKind::Compressor(Arc::new(body::compressor(unpack(config)?)?))
    } else if kind == decompressor::Decompressor::full_name() {
        HttpFilterKind::Decompressor(Arc::new(body::decompressor(unpack(config)?)?))
    } else if kind == grpc_web::GrpcWeb::full_name() {
        HttpFilterKind::GrpcWeb
    } else if kind == buffer::Buffer::full_name() {
        HttpFilterKind::Buffer(body::buffer(unpack(config)?)?)
    } else if kind == access::Rbac::full_name() {
        HttpFilterKind::Rbac(Arc::new(rbac::of_http(unpack(config)?)?))
    } else if kind == health_check::HealthCheck::full_name() {
        HttpFilterKind::HealthCheck(Arc::new(health_filter(unpack(config)?)?))
    } else if kind == stats::FilterConfig::full_name() {
        HttpFilterKind::GrpcStats
    } else {
        return Ok(None);
    }))
}

fn router_filter(message: router::Router) -> Decoded<RouterFilter> {
    let router::Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = message;
    // Of statistics and spans nothing depends on these.
    let _ = (dynamic_stats, start_child_span, upstream_log_options, reject_connect_request_early_data);
    let _ = suppress_grpc_request_failure_code_stats;
    refuse!(upstream_log, upstream_http_filters);
    let strict = strict_check_headers.iter().enumerate().map(|(at, n)| header_name(n).nth("strict_check_headers", at));
    Ok(RouterFilter {
        suppress_envoy_headers,
        respect_expected_timeout: respect_expected_rq_timeout,
        strict_check_headers: strict.collect::<Decoded<_>>()?,
    })
}

fn forward_proxy(message: forward::FilterConfig) -> Decoded<()> {
    let forward::FilterConfig { save_upstream_address, allow_dynamic_host_from_filter_state, implementation_specifier } =
        message;
    // Upstream addresses are always known to the access log here.
    let _ = save_upstream_address;
    refuse!(allow_dynamic_host_from_filter_state);
    match implementation_specifier {
        Some(forward::filter_config::ImplementationSpecifier::SubClusterConfig(_)) => {
            Err(Refusal::unsupported("sub_cluster_config"))
        }
        Some(forward::filter_config::ImplementationSpecifier::DnsCacheConfig(_)) => Ok(()),
        None => Err(Refusal::new("dns_cache_config", "missing")),
    }
}

fn health_filter(message: health_check::HealthCheck) -> Decoded<HealthCheckFilter> {
    let health_check::HealthCheck { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } = message;
    refuse!(cache_time);
    let pass_through = pass_through_mode.ok_or_else(|| Refusal::new("pass_through_mode", "missing"))?.value;
    if pass_through && !cluster_min_healthy_percentages.is_empty() {
        return Err(Refusal::new("cluster_min_healthy_percentages", "means nothing with pass_through_mode"));
    }
    let mut min_healthy: Vec<_> =
        cluster_min_healthy_percentages.into_iter().map(|(name, least)| (Arc::from(name), least.value)).collect();
    min_healthy.sort_by(|a: &(Arc<str>, f64), b| a.0.cmp(&b.0));
    let headers = matcher::headers(headers, "headers")?;
    Ok(HealthCheckFilter { pass_through, headers, min_healthy: min_healthy.into() })
}

fn percentage(value: Option<FractionalPercent>) -> Fraction {
    matcher::share(&value.unwrap_or_default(), "")
}

fn fault_filter(message: fault::HttpFault) -> Decoded<Fault> {
    let fault::HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = message;
    refuse!(delay_percent_runtime, abort_percent_runtime, delay_duration_runtime, abort_http_status_runtime);
    refuse!(max_active_faults_runtime, response_rate_limit_percent_runtime, abort_grpc_status_runtime, filter_metadata);
    let _ = disable_downstream_cluster_stats;
    Ok(Fault {
        delay: delay.map(fault_delay).transpose().at("delay")?,
        abort: abort.map(fault_abort).transpose().at("abort")?,
        response_rate: response_rate_limit.map(fault_rate).transpose().at("response_rate_limit")?,
        upstream_cluster: upstream_cluster.into(),
        headers: matcher::headers(headers, "headers")?,
        downstream_nodes: super::any::texts(&downstream_nodes),
        max_active: max_active_faults.map(|most| most.value),
    })
}

fn fault_delay(message: common::FaultDelay) -> Decoded<Delay> {
    use common::fault_delay::FaultDelaySecifier as S;
    let kind = match message.fault_delay_secifier {
        Some(S::FixedDelay(fixed)) => DelayKind::Fixed(super::any::some_time(&fixed).at("fixed_delay")?),
        Some(S::HeaderDelay(_)) => DelayKind::Header,
        None => return Err(Refusal::new("fault_delay_secifier", "missing")),
    };
    Ok(Delay { kind, share: percentage(message.percentage) })
}

fn fault_abort(message: fault::FaultAbort) -> Decoded<Abort> {
    use fault::fault_abort::ErrorType as E;
    let fault::FaultAbort { percentage: share, response_body, error_type } = message;
    refuse!(response_body);
    let kind = match error_type {
        Some(E::HttpStatus(status)) => {
            let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
            AbortKind::Http(status.ok_or_else(|| Refusal::new("http_status", "not a status from 200 to 599"))?)
        }
        Some(E::GrpcStatus(status)) => AbortKind::Grpc(status),
        Some(E::HeaderAbort(_)) => AbortKind::Header,
        None => return Err(Refusal::new("error_type", "missing")),
    };
    Ok(Abort { kind, share: percentage(share) })
}

fn fault_rate(message: common::FaultRateLimit) -> Decoded<FaultRate> {
    use common::fault_rate_limit::LimitType as L;
    let kbps = match message.limit_type {
        Some(L::FixedLimit(fixed)) if fixed.limit_kbps > 0 => Some(fixed.limit_kbps),
        Some(L::FixedLimit(_)) => return Err(Refusal::new("fixed_limit.limit_kbps", "0")),
        Some(L::HeaderLimit(_)) => None,
        None => return Err(Refusal::new("limit_type", "missing")),
    };
    Ok(FaultRate { kbps, share: percentage(message.percentage) })
}

fn cors_policy(message: cors::CorsPolicy) -> Decoded<Cors> {
    let cors::CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    } = message;
    let value =
        |text: String, field: &str| if text.is_empty() { Ok(None) } else { header_value(&text).at(field).map(Some) };
    // With only a shadow share the filter judges but does not act.
    let enabled = match (filter_enabled, &shadow_enabled) {
        (None, Some(_)) => Fraction { numerator: 0, ..Fraction::always() },
        (enabled, _) => share(enabled, Fraction::always()).at("filter_enabled")?,
    };
    Ok(Cors {
        allow_origins: matcher::strings(allow_origin_string_match, "allow_origin_string_match")?,
        allow_methods: value(allow_methods, "allow_methods")?,
        allow_headers: value(allow_headers, "allow_headers")?,
        expose_headers: value(expose_headers, "expose_headers")?,
        max_age: value(max_age, "max_age")?,
        allow_credentials: bool_or(allow_credentials, false),
        allow_private_network: bool_or(allow_private_network_access, false),
        forward_not_matching_preflights: bool_or(forward_not_matching_preflights, true),
        enabled,
        shadow: matcher::runtime_share(shadow_enabled, None).at("shadow_enabled")?,
    })
}

fn csrf_policy(message: csrf::CsrfPolicy) -> Decoded<Csrf> {
    let csrf::CsrfPolicy { filter_enabled, shadow_enabled, additional_origins } = message;
    let enabled = matcher::runtime_share(filter_enabled, None).at("filter_enabled")?;
    // What would be refused is only counted, which nobody does here.
    matcher::runtime_share(shadow_enabled, None).at("shadow_enabled")?;
    Ok(Csrf {
        enabled: enabled.ok_or_else(|| Refusal::new("filter_enabled", "missing"))?,
        origins: matcher::strings(additional_origins, "additional_origins")?,
    })
}

fn share(value: Option<RuntimeFractionalPercent>, default: Fraction) -> Decoded<Fraction> {
    Ok(matcher::runtime_share(value, Some(default.clone()))?.unwrap_or(default))
}

/// What a route says about filters, sorted by name.
pub(super) fn overrides(map: HashMap<String, Any>) -> Decoded<FilterOverrides> {
    let mut all = Vec::with_capacity(map.len());
    for (name, config) in map {
        let place = format!("typed_per_filter_config[{name}]");
        if let Some(value) = override_of(&config, false).at(&place)? {
            all.push((Arc::from(name), value));
        }
    }
    all.sort_by(|a: &(Arc<str>, _), b| a.0.cmp(&b.0));
    Ok(all.into())
}

fn override_of(config: &Any, optional: bool) -> Decoded<Option<FilterOverride>> {
    let kind = type_name(config);
    Ok(Some(if kind == FilterConfig::full_name() {
        let FilterConfig { config, is_optional, disabled } = unpack(config)?;
        match config {
            _ if disabled => FilterOverride::Off,
            None => FilterOverride::On,
            Some(inner) if type_name(&inner) == FilterConfig::full_name() => {
                return Err(Refusal::unsupported("config"));
            }
            Some(inner) => return override_of(&inner, is_optional),
        }
    } else if kind == fault::HttpFault::full_name() {
        FilterOverride::Fault(Arc::new(fault_filter(unpack(config)?)?))
    } else if kind == cors::CorsPolicy::full_name() {
        FilterOverride::Cors(Arc::new(cors_policy(unpack(config)?)?))
    } else if kind == told::Config::full_name() {
        FilterOverride::HeaderToMetadata(Arc::new(super::told::filter(unpack(config)?, true)?))
    } else if kind == csrf::CsrfPolicy::full_name() {
        FilterOverride::Csrf(Arc::new(csrf_policy(unpack(config)?)?))
    } else if kind == limit::LocalRateLimit::full_name() {
        FilterOverride::LocalRateLimit(Arc::new(super::limit::filter(unpack(config)?, true)?))
    } else if kind == mutation::HeaderMutationPerRoute::full_name() {
        FilterOverride::HeaderMutation(Arc::new(super::mutation::of_route(unpack(config)?)?))
    } else if kind == compressor::CompressorPerRoute::full_name() {
        body::compressor_override(unpack(config)?)?
    } else if kind == access::RbacPerRoute::full_name() {
        let message: access::RbacPerRoute = unpack(config)?;
        match message.rbac {
            Some(own) => FilterOverride::Rbac(Arc::new(rbac::of_http(own).at("rbac")?)),
            None => FilterOverride::Off,
        }
    } else if kind == buffer::BufferPerRoute::full_name() {
        body::buffer_override(unpack(config)?)?
    } else if kind == forward::PerRouteConfig::full_name() {
        let message: forward::PerRouteConfig = unpack(config)?;
        match message.host_rewrite_specifier {
            Some(forward::per_route_config::HostRewriteSpecifier::HostRewriteLiteral(host)) => {
                FilterOverride::ForwardHost(host.into())
            }
            Some(forward::per_route_config::HostRewriteSpecifier::HostRewriteHeader(name)) => {
                FilterOverride::ForwardHostHeader(header_name(&name).at("host_rewrite_header")?)
            }
            None => FilterOverride::On,
        }
    } else if optional {
        return Ok(None);
    } else {
        return Err(Refusal::unsupported(inner_type(config)));
    }))
}
