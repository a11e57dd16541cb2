//! How names are resolved: clusters of names, and names that requests bring.

use super::{
    Refusal, address,
    any::{At, Decoded, opt_duration, refuse, type_name, u32_or, unpack},
};
use crate::config::{DnsFamily, DnsResolver, DnsSettings, EndpointAddress, ForwardNames};
use prost::Name as _;
use std::{net::SocketAddr, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::cluster::{DnsLookupFamily, RefreshRate},
            core::v3 as core,
        },
        extensions::{
            clusters::{
                common::dns::v3::DnsLookupFamily as CommonFamily,
                dns::v3::DnsCluster,
                dynamic_forward_proxy::v3::{self as forward, cluster_config::ClusterImplementationSpecifier},
            },
            common::dynamic_forward_proxy::v3::DnsCacheConfig,
            network::dns_resolver::{cares::v3::CaresDnsResolverConfig, getaddrinfo::v3::GetAddrInfoDnsResolverConfig},
        },
    },
    google::protobuf::Duration as Time,
};

/// The older fields of a cluster that say how names are resolved.
pub(super) struct Old {
    pub(super) refresh: Option<Time>,
    pub(super) failure: Option<RefreshRate>,
    pub(super) jitter: Option<Time>,
    pub(super) respect_ttl: bool,
    pub(super) family: i32,
    pub(super) servers: Vec<core::Address>,
    pub(super) tcp: bool,
    pub(super) resolution: Option<core::DnsResolutionConfig>,
    pub(super) resolver: Option<core::TypedExtensionConfig>,
}

pub(super) fn settings(old: Old) -> Decoded<DnsSettings> {
    Ok(DnsSettings {
        refresh: rate(old.refresh.as_ref(), "dns_refresh_rate", Duration::from_secs(5))?,
        failure: old.failure.map(|f| failure(f.base_interval, f.max_interval)).transpose()?,
        jitter: opt_duration(old.jitter.as_ref(), "dns_jitter")?.unwrap_or_default(),
        min_refresh: Duration::ZERO,
        respect_ttl: old.respect_ttl,
        family: family(old.family).at("dns_lookup_family")?,
        resolver: resolver(old.resolver, old.resolution, old.servers, old.tcp)?,
    })
}

/// Settings of the newer cluster type, and whether all addresses of the one name are one endpoint.
pub(super) fn extension(message: DnsCluster) -> Decoded<(DnsSettings, bool)> {
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate,
    } = message;
    let settings = DnsSettings {
        refresh: rate(dns_refresh_rate.as_ref(), "dns_refresh_rate", Duration::from_secs(60))?,
        failure: dns_failure_refresh_rate.map(|f| failure(f.base_interval, f.max_interval)).transpose()?,
        jitter: opt_duration(dns_jitter.as_ref(), "dns_jitter")?.unwrap_or_default(),
        min_refresh: opt_duration(dns_min_refresh_rate.as_ref(), "dns_min_refresh_rate")?.unwrap_or_default(),
        respect_ttl: respect_dns_ttl,
        family: common_family(dns_lookup_family).at("dns_lookup_family")?,
        resolver: resolver(typed_dns_resolver_config, None, Vec::new(), false)?,
    };
    Ok((settings, all_addresses_in_single_endpoint))
}

pub(super) fn forward(message: forward::ClusterConfig) -> Decoded<ForwardNames> {
    use ClusterImplementationSpecifier as S;
    let forward::ClusterConfig {
        allow_insecure_cluster_options,
        allow_coalesced_connections,
        cluster_implementation_specifier,
    } = message;
    // Certificates are checked against the request's host whenever the cluster asks for TLS; connections are never shared
    // between hosts.
    let _ = (allow_insecure_cluster_options, allow_coalesced_connections);
    match cluster_implementation_specifier {
        Some(S::DnsCacheConfig(cache)) => names(cache).at("dns_cache_config"),
        Some(S::SubClustersConfig(_)) => Err(Refusal::unsupported("sub_clusters_config")),
        None => Err(Refusal::new("dns_cache_config", "missing")),
    }
}

fn names(message: DnsCacheConfig) -> Decoded<ForwardNames> {
    let DnsCacheConfig {
        name,
        dns_lookup_family,
        dns_refresh_rate,
        dns_min_refresh_rate,
        host_ttl,
        max_hosts,
        disable_dns_refresh_on_failure,
        dns_failure_refresh_rate,
        dns_cache_circuit_breaker,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        preresolve_hostnames,
        dns_query_timeout,
        key_value_config,
        resolved_address_filter,
    } = message;
    // A name that failed is asked for again when a request needs it, which is what this switch of Envoy brings; names
    // that are resolved ahead are only sooner.
    let _ = (disable_dns_refresh_on_failure, preresolve_hostnames);
    refuse!(key_value_config, resolved_address_filter);
    if name.is_empty() {
        return Err(Refusal::new("name", "empty"));
    }
    let most = u32_or(max_hosts, 1024);
    if most == 0 {
        return Err(Refusal::new("max_hosts", "0"));
    }
    let breaker = dns_cache_circuit_breaker.and_then(|breaker| breaker.max_pending_requests);
    let waits = opt_duration(dns_query_timeout.as_ref(), "dns_query_timeout")?;
    Ok(ForwardNames {
        cache: name.into(),
        dns: DnsSettings {
            refresh: rate(dns_refresh_rate.as_ref(), "dns_refresh_rate", Duration::from_secs(60))?,
            failure: dns_failure_refresh_rate.map(|f| failure(f.base_interval, f.max_interval)).transpose()?,
            jitter: Duration::ZERO,
            min_refresh: rate(dns_min_refresh_rate.as_ref(), "dns_min_refresh_rate", Duration::from_secs(5))?,
            // The cache of Envoy follows what an answer says unless it says nothing.
            respect_ttl: true,
            family: family(dns_lookup_family).at("dns_lookup_family")?,
            resolver: resolver(typed_dns_resolver_config, dns_resolution_config, Vec::new(), use_tcp_for_dns_lookups)?,
        },
        most,
        unused: rate(host_ttl.as_ref(), "host_ttl", Duration::from_secs(300))?,
        pending: u32_or(breaker, 1024),
        // Zero is no bound.
        timeout: match waits {
            None => Duration::from_secs(5),
            Some(Duration::ZERO) => Duration::from_secs(3600),
            Some(waits) => waits,
        },
    })
}

/// A time that Envoy wants to be more than a millisecond.
fn rate(value: Option<&Time>, field: &str, default: Duration) -> Decoded<Duration> {
    match opt_duration(value, field)? {
        Some(time) if time <= Duration::from_millis(1) => Err(Refusal::new(field, "not more than 1 ms")),
        time => Ok(time.unwrap_or(default)),
    }
}

fn failure(base: Option<Time>, most: Option<Time>) -> Decoded<(Duration, Duration)> {
    let field = "dns_failure_refresh_rate";
    let base = opt_duration(base.as_ref(), field)?
        .filter(|base| *base > Duration::from_millis(1))
        .ok_or_else(|| Refusal::new(field, "base_interval is missing or not more than 1 ms"))?;
    let most = opt_duration(most.as_ref(), field)?.unwrap_or(base * 10);
    if most < base {
        return Err(Refusal::new(field, "max_interval is shorter than base_interval"));
    }
    Ok((base, most))
}

fn family(value: i32) -> Result<DnsFamily, String> {
    Ok(match DnsLookupFamily::try_from(value).map_err(|_| format!("{value} is not known"))? {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    })
}

fn common_family(value: i32) -> Result<DnsFamily, String> {
    Ok(match CommonFamily::try_from(value).map_err(|_| format!("{value} is not known"))? {
        CommonFamily::Unspecified | CommonFamily::Auto => DnsFamily::Auto,
        CommonFamily::V4Only => DnsFamily::V4Only,
        CommonFamily::V6Only => DnsFamily::V6Only,
        CommonFamily::V4Preferred => DnsFamily::V4Preferred,
        CommonFamily::All => DnsFamily::All,
    })
}

/// Of the three ways to say it the newest wins.
fn resolver(
    typed: Option<core::TypedExtensionConfig>,
    resolution: Option<core::DnsResolutionConfig>,
    old_servers: Vec<core::Address>,
    old_tcp: bool,
) -> Decoded<DnsResolver> {
    if let Some(typed) = typed {
        let config =
            typed.typed_config.ok_or_else(|| Refusal::new("typed_dns_resolver_config.typed_config", "missing"))?;
        let kind = type_name(&config);
        return if kind == CaresDnsResolverConfig::full_name() {
            cares(unpack(&config)?).at("typed_dns_resolver_config")
        } else if kind == GetAddrInfoDnsResolverConfig::full_name() {
            Ok(DnsResolver { library: true, ..DnsResolver::default() })
        } else {
            Err(Refusal::unsupported(format!("typed_dns_resolver_config {kind}")))
        };
    }
    if let Some(core::DnsResolutionConfig { resolvers, dns_resolver_options }) = resolution {
        let options = dns_resolver_options.unwrap_or_default();
        return Ok(DnsResolver {
            servers: servers(resolvers, "dns_resolution_config.resolvers")?,
            tcp: options.use_tcp_for_dns_lookups,
            no_search: options.no_default_search_domain,
            ..DnsResolver::default()
        });
    }
    Ok(DnsResolver { servers: servers(old_servers, "dns_resolvers")?, tcp: old_tcp, ..DnsResolver::default() })
}

fn cares(message: CaresDnsResolverConfig) -> Decoded<DnsResolver> {
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families,
        dns_resolver_options,
        udp_max_queries,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        max_udp_channel_duration,
        reinit_channel_on_timeout,
        qcache_max_ttl,
    } = message;
    // Each question has a socket of its own and nothing is cached below the cluster, so how long channels live, how many
    // questions they serve and what they remember is settled; families that cannot be reached fail and the next is taken.
    let _ = (udp_max_queries, max_udp_channel_duration, reinit_channel_on_timeout, qcache_max_ttl);
    let _ = (filter_unroutable_families, rotate_nameservers, edns0_max_payload_size);
    let options = dns_resolver_options.unwrap_or_default();
    Ok(DnsResolver {
        servers: servers(resolvers, "resolvers")?,
        servers_as_fallback: use_resolvers_as_fallback,
        library: false,
        tcp: options.use_tcp_for_dns_lookups,
        no_search: options.no_default_search_domain,
        timeout: query_timeout_seconds.map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.value)),
        tries: u32_or(query_tries, 0),
    })
}

fn servers(list: Vec<core::Address>, field: &str) -> Decoded<Box<[SocketAddr]>> {
    let one = |(at, place): (usize, core::Address)| match address::endpoint(place).nth(field, at)? {
        EndpointAddress::Socket(socket) if socket.port() == 0 => Ok(SocketAddr::new(socket.ip(), 53)),
        EndpointAddress::Socket(socket) => Ok(socket),
        _ => Err(Refusal::new(format!("{field}[{at}]"), "not an IP address")),
    };
    list.into_iter().enumerate().map(one).collect()
}
