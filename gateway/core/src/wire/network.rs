//! Network filters.

use super::{
    Refusal, action,
    any::{At, Decoded, duration, filled, opt_duration, refuse, timeout, type_name, u32_or, unpack},
    filter::inner_type,
    http, log,
};
use crate::{
    config::{NetworkFilter, TcpCluster, TcpHash, TcpProxy, Terminal},
    filter::Places,
};
use prost::Name as _;
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::listener::v3::{self as pb, filter::ConfigType},
        extensions::filters::network::{
            connection_limit::v3::ConnectionLimit,
            http_connection_manager::v3::HttpConnectionManager,
            local_ratelimit::v3::LocalRateLimit,
            rbac::v3::Rbac,
            sni_cluster::v3::SniCluster,
            tcp_proxy::v3::{
                self as tcp,
                tcp_proxy::{self as t, ClusterSpecifier},
            },
        },
        r#type::v3::hash_policy::PolicySpecifier,
    },
    google::protobuf::Any,
};

enum Found {
    Before(NetworkFilter),
    Last(Terminal),
}

/// The filters before the last one, and that.
pub(super) fn chain(list: Vec<pb::Filter>) -> Decoded<(Box<[NetworkFilter]>, Terminal)> {
    let mut before = Vec::new();
    let mut last = None;
    for (at, filter) in list.into_iter().enumerate() {
        if last.is_some() {
            return Err(Refusal::new(format!("filters[{at}]"), "stands behind a filter that ends the chain"));
        }
        match one(filter).nth("filters", at)? {
            Found::Before(filter) => before.push(filter),
            Found::Last(terminal) => last = Some(terminal),
        }
    }
    let last = last.ok_or_else(|| Refusal::new("filters", "nothing ends the chain"))?;
    Ok((before.into(), last))
}

fn one(message: pb::Filter) -> Decoded<Found> {
    let pb::Filter { name, config_type } = message;
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(source)) => {
            let source = super::extension::source(&name, source).at("config_discovery")?;
            return Ok(Found::Before(NetworkFilter::Discovered(source)));
        }
        None => return Err(Refusal::new("typed_config", format!("missing for {name}"))),
    };
    known(&name, &config).at("typed_config")
}

fn known(name: &str, config: &Any) -> Decoded<Found> {
    let kind = type_name(config);
    if kind == HttpConnectionManager::full_name() {
        Ok(Found::Last(Terminal::Http(Arc::new(http::encoded(&config.value)?))))
    } else if kind == tcp::TcpProxy::full_name() {
        Ok(Found::Last(Terminal::Tcp(Arc::new(tcp_proxy(unpack(config)?)?))))
    } else if let Some(filter) = known_filter(name, config)? {
        Ok(Found::Before(filter))
    } else {
        Err(Refusal::unsupported(format!("{name} ({})", inner_type(config))))
    }
}

/// A filter that does not end a chain; `None` for those that we do not have.
pub(super) fn known_filter(name: &str, config: &Any) -> Decoded<Option<NetworkFilter>> {
    let kind = type_name(config);
    Ok(Some(if kind == Rbac::full_name() {
        NetworkFilter::Rbac(Arc::new(super::rbac::of_network(unpack(config)?)?))
    } else if kind == SniCluster::full_name() {
        NetworkFilter::SniCluster
    } else if kind == ConnectionLimit::full_name() {
        let ConnectionLimit { stat_prefix, max_connections, delay, runtime_enabled } = unpack(config)?;
        let _ = stat_prefix;
        refuse!(runtime_enabled);
        let most = max_connections.ok_or_else(|| Refusal::new("max_connections", "missing"))?.value;
        NetworkFilter::ConnectionLimit(Places::new(most, opt_duration(delay.as_ref(), "delay")?))
    } else if kind == LocalRateLimit::full_name() {
        rate_limit(unpack(config)?)?
    } else if matches!(name, "istio.stats" | "istio.metadata_exchange") || inner_type(config) == "stats.PluginConfig" {
        NetworkFilter::MeshStats
    } else {
        return Ok(None);
    }))
}

fn rate_limit(message: LocalRateLimit) -> Decoded<NetworkFilter> {
    let LocalRateLimit { stat_prefix, token_bucket, runtime_enabled, share_key } = message;
    // A bucket that several chains share would have to outlive each of them.
    refuse!(share_key);
    filled(stat_prefix).at("stat_prefix")?;
    let bucket = token_bucket.ok_or_else(|| Refusal::new("token_bucket", "missing"))?;
    let bucket = super::limit::bucket(bucket).at("token_bucket")?;
    let (key, default) = match runtime_enabled {
        None => (String::new(), true),
        Some(flag) => {
            let default = flag.default_value.ok_or_else(|| Refusal::new("runtime_enabled.default_value", "missing"))?;
            (filled(flag.runtime_key).at("runtime_enabled.runtime_key")?, default.value)
        }
    };
    Ok(NetworkFilter::LocalRateLimit(bucket, key.into(), default))
}

fn tcp_proxy(message: tcp::TcpProxy) -> Decoded<TcpProxy> {
    let tcp::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = message;
    refuse!(on_demand, downstream_idle_timeout, upstream_idle_timeout, access_log_flush_interval, proxy_protocol_tlvs);
    refuse!(max_downstream_connection_duration_jitter_percentage, flush_access_log_on_connected, access_log_options);
    refuse!(proxy_protocol_tlv_merge_policy, upstream_connect_mode, max_early_data_bytes, tunneling_config);
    // A listener that goes always drains its connections.
    let _ = check_drain_close;
    let back_off = match backoff_options {
        None => None,
        Some(options) => {
            let base = options
                .base_interval
                .as_ref()
                .ok_or_else(|| Refusal::new("backoff_options.base_interval", "missing"))?;
            let base = duration(base).at("backoff_options.base_interval")?;
            Some((
                base,
                opt_duration(options.max_interval.as_ref(), "backoff_options.max_interval")?.unwrap_or(base * 10),
            ))
        }
    };
    if hash_policy.len() > 1 {
        return Err(Refusal::new("hash_policy", "more than one"));
    }
    let life = max_downstream_connection_duration.as_ref();
    let max_duration = opt_duration(life, "max_downstream_connection_duration")?;
    if max_duration.is_some_and(|most| most < Duration::from_millis(1)) {
        return Err(Refusal::new("max_downstream_connection_duration", "shorter than a millisecond"));
    }
    let hash = match hash_policy.into_iter().next().map(|policy| policy.policy_specifier) {
        None => None,
        Some(Some(PolicySpecifier::SourceIp(_))) => Some(TcpHash::SourceIp),
        Some(_) => return Err(Refusal::unsupported("hash_policy[0]")),
    };
    let attempts = u32_or(max_connect_attempts, 1);
    if attempts == 0 {
        return Err(Refusal::new("max_connect_attempts", "0"));
    }
    Ok(TcpProxy {
        stat_prefix: filled(stat_prefix).at("stat_prefix")?.into(),
        cluster: cluster(cluster_specifier)?,
        idle_timeout: timeout(idle_timeout.as_ref(), Some(Duration::from_secs(3600)), "idle_timeout")?,
        max_duration,
        max_connect_attempts: attempts,
        back_off,
        hash,
        metadata_match: action::subset(metadata_match.as_ref()).at("metadata_match")?,
        access_logs: log::all(access_log)?,
    })
}

fn cluster(specifier: Option<ClusterSpecifier>) -> Decoded<TcpCluster> {
    match specifier {
        Some(ClusterSpecifier::Cluster(name)) => Ok(TcpCluster::One(filled(name).at("cluster")?.into())),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let one = |(at, c): (usize, t::weighted_cluster::ClusterWeight)| {
                if c.weight == 0 {
                    return Err(Refusal::new("weight", "must be at least 1")).nth("weighted_clusters.clusters", at);
                }
                let subset = action::subset(c.metadata_match.as_ref()).nth("weighted_clusters.clusters", at)?;
                let name = filled(c.name).at("name").nth("weighted_clusters.clusters", at)?;
                Ok((Arc::from(name), c.weight, subset))
            };
            let all = weighted.clusters.into_iter().enumerate().map(one).collect::<Decoded<Box<[_]>>>()?;
            if all.is_empty() {
                return Err(Refusal::new("weighted_clusters", "no cluster has a weight"));
            }
            Ok(TcpCluster::Weighted(all))
        }
        None => Err(Refusal::new("cluster_specifier", "missing")),
    }
}
