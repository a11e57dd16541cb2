//! Clusters.

use super::{
    Refusal, address,
    any::{At, Decoded, bool_or, header_name, metadata, opt_duration, port, refuse, structure, type_name, unpack},
    dns, health, lb, load, protocol, tls,
};
use crate::config::{
    BindSettings, Cluster, ClusterLoad, Discovery, DnsSettings, EndpointMetadata, HttpVersions, LbPolicy, OriginalDst,
    ProxyProtocolVersion, TcpKeepalive, TransportMatch, TransportSocket, UpstreamHttp, Value,
};
use prost::Name as _;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::{
    envoy::{
        config::{
            cluster::v3::{
                self as pb,
                cluster::{self as c, ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy as Legacy},
            },
            core::v3::{self as core, transport_socket::ConfigType},
            endpoint::v3::ClusterLoadAssignment,
        },
        extensions::{
            clusters::{aggregate::v3 as aggregate, dns::v3::DnsCluster, dynamic_forward_proxy::v3 as forward},
            transport_sockets::{
                internal_upstream::v3::InternalUpstreamTransport, proxy_protocol::v3::ProxyProtocolUpstreamTransport,
                quic::v3::QuicUpstreamTransport, raw_buffer::v3::RawBuffer, tls::v3::UpstreamTlsContext,
            },
            upstreams::http::v3::HttpProtocolOptions,
        },
        r#type::metadata::v3::metadata_kind::Kind as MetadataKind,
    },
    google::protobuf::Any,
};

/// What Envoy takes when a cluster says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for buffers.
pub(super) const BUFFER: u32 = 1 << 20;

/// A cluster. The exhaustive list keeps fields that nobody reads from slipping through.
pub(super) fn cluster(message: pb::Cluster) -> Decoded<Cluster> {
    let legacy = Legacy::try_from(message.lb_policy)
        .map_err(|_| Refusal::new("lb_policy", format!("{} is not known", message.lb_policy)))?;
    let same_as_downstream = match c::ClusterProtocolSelection::try_from(message.protocol_selection) {
        Ok(selection) => selection == c::ClusterProtocolSelection::UseDownstreamProtocol,
        Err(_) => {
            return Err(Refusal::new("protocol_selection", format!("{} is not known", message.protocol_selection)));
        }
    };
    let pb::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy: _,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata: meta,
        protocol_selection: _,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = message;
    refuse!(
        transport_socket_matcher,
        per_connection_buffer_high_watermark_timeout,
        filters,
        lrs_server,
        upstream_config
    );
    refuse!(queuing_policies, lrs_report_endpoint_metrics);
    // Connections to endpoints are read only as fast as clients take what comes: there is no buffer that could outgrow a bound.
    let _ = per_connection_buffer_limit_bytes;
    // Which statistics are kept is our own affair.
    let _ = (stats_matcher, track_timeout_budgets, track_cluster_stats);
    if name.is_empty() {
        return Err(Refusal::new("name", "empty"));
    }
    let dns = dns::settings(dns::Old {
        refresh: dns_refresh_rate,
        failure: dns_failure_refresh_rate,
        jitter: dns_jitter,
        respect_ttl: respect_dns_ttl,
        family: dns_lookup_family,
        servers: dns_resolvers,
        tcp: use_tcp_for_dns_lookups,
        resolution: dns_resolution_config,
        resolver: typed_dns_resolver_config,
    })?;
    let original = match &lb_config {
        Some(LbConfig::OriginalDstLbConfig(config)) => Some(config.clone()),
        _ => None,
    };
    let cleanup = opt_duration(cleanup_interval.as_ref(), "cleanup_interval")?.unwrap_or(CONNECT_TIMEOUT);
    let source = eds_cluster_config.as_ref().and_then(|eds| eds.eds_config.as_ref());
    let fetch_timeout = source.map(super::any::fetch_timeout).transpose().at("eds_cluster_config.eds_config")?;
    let sources = Sources { name: &name, eds: eds_cluster_config, load: load_assignment, dns, original, cleanup };
    let discovery = sources.discovery(cluster_discovery_type)?;
    let old = OldHttp {
        names: upstream_http_protocol_options,
        common: common_http_protocol_options,
        one: http_protocol_options,
        two: http2_protocol_options,
        max_requests: max_requests_per_connection.map(|most| most.value),
        same_as_downstream,
    };
    hashes_by_name(&discovery, common_lb_config.as_ref())?;
    let parts = lb::Parts {
        legacy,
        config: lb_config,
        subsets: lb_subset_config,
        common: common_lb_config,
        policy: load_balancing_policy,
    };
    preconnect_policy.map(preconnect).transpose().at("preconnect_policy")?;
    let lb = lb::settings(parts)?;
    provides(&discovery, &lb.policy)?;
    let matches = transport_socket_matches.into_iter().enumerate();
    if health_checks.len() > 1 {
        return Err(Refusal::new("health_checks", "more than one"));
    }
    let check = health_checks.into_iter().next().map(|check| health::check(check).map(Arc::new));
    fits_version(Cluster {
        name: name.as_str().into(),
        alt_stat_name: alt_stat_name.into(),
        discovery,
        lb: Arc::new(lb),
        connect_timeout: connect_timeout
            .map_or(Ok(CONNECT_TIMEOUT), |bound| super::any::some_time(&bound))
            .at("connect_timeout")?,
        breakers: circuit_breakers.map(health::breakers).transpose().at("circuit_breakers")?.unwrap_or_default().into(),
        outlier: outlier_detection.map(health::outlier).transpose().at("outlier_detection")?.map(Arc::new),
        health_check: check.transpose().nth("health_checks", 0)?,
        wait_until_checked: bool_or(wait_for_warm_on_init, true),
        http: Arc::new(http(typed_extension_protocol_options, old)?),
        transport: transport_socket.map(|t| transport(t, 0)).transpose().at("transport_socket")?.unwrap_or_default(),
        transport_matches: matches
            .map(|(at, one)| transport_match(one).nth("transport_socket_matches", at))
            .collect::<Decoded<_>>()?,
        bind: upstream_bind_config.map(bind).transpose().at("upstream_bind_config")?.map(Arc::new),
        keepalive: connection_options(upstream_connection_options).at("upstream_connection_options")?.map(Arc::new),
        close_on_health_failure: close_connections_on_host_health_failure,
        ignore_health_on_removal: ignore_health_on_host_removal,
        pool_per_downstream: connection_pool_per_downstream_connection,
        metadata: metadata(meta.as_ref()).at("metadata")?,
        fetch_timeout: fetch_timeout.unwrap_or_default(),
    })
}

/// Only names that are resolved one by one are names of endpoints.
fn hashes_by_name(discovery: &Discovery, common: Option<&c::CommonLbConfig>) -> Decoded<()> {
    let by_name = common
        .and_then(|common| common.consistent_hashing_lb_config.as_ref())
        .is_some_and(|hashing| hashing.use_hostname_for_hashing);
    if by_name && !matches!(discovery, Discovery::StrictDns(..)) {
        let field = "common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing";
        return Err(Refusal::new(field, "only for clusters of type STRICT_DNS"));
    }
    Ok(())
}

/// Clusters that find endpoints request by request choose them themselves, and only they can.
fn provides(discovery: &Discovery, policy: &LbPolicy) -> Decoded<()> {
    let itself = match discovery {
        Discovery::OriginalDst(_) | Discovery::DynamicForwardProxy(_) | Discovery::Aggregate(_) => true,
        Discovery::Eds(_) | Discovery::Static(_) | Discovery::StrictDns(..) | Discovery::LogicalDns(..) => false,
    };
    match (itself, matches!(policy, LbPolicy::ByDiscovery)) {
        (false, true) => Err(Refusal::new("lb_policy", "CLUSTER_PROVIDED in a cluster of a type that provides none")),
        (true, false) => Err(Refusal::new("lb_policy", "only CLUSTER_PROVIDED fits the type of the cluster")),
        _ => Ok(()),
    }
}

struct Sources<'a> {
    name: &'a str,
    eds: Option<c::EdsClusterConfig>,
    load: Option<ClusterLoadAssignment>,
    dns: DnsSettings,
    original: Option<c::OriginalDstLbConfig>,
    cleanup: Duration,
}

impl Sources<'_> {
    fn discovery(self, kind: Option<ClusterDiscoveryType>) -> Decoded<Discovery> {
        match kind {
            None => Ok(Discovery::Static(self.load()?)),
            Some(ClusterDiscoveryType::Type(kind)) => match DiscoveryType::try_from(kind) {
                Ok(DiscoveryType::Static) => {
                    let load = self.load()?;
                    load::only_addresses(&load).at("load_assignment")?;
                    Ok(Discovery::Static(load))
                }
                Ok(DiscoveryType::StrictDns) => Ok(Discovery::StrictDns(self.load()?, Arc::new(self.dns))),
                Ok(DiscoveryType::LogicalDns) => Ok(Discovery::LogicalDns(self.one_name()?, Arc::new(self.dns))),
                Ok(DiscoveryType::Eds) => self.eds(),
                Ok(DiscoveryType::OriginalDst) => Ok(Discovery::OriginalDst(Box::new(self.original_dst()?))),
                Err(_) => Err(Refusal::new("type", format!("{kind} is not known"))),
            },
            Some(ClusterDiscoveryType::ClusterType(custom)) => self.custom(custom).at("cluster_type"),
        }
    }

    fn load(&self) -> Decoded<Arc<ClusterLoad>> {
        let message = self.load.clone().unwrap_or_default();
        let mut load = load::assignment(message).at("load_assignment")?;
        load.name = self.name.into();
        Ok(Arc::new(load))
    }

    fn one_name(&self) -> Decoded<Arc<ClusterLoad>> {
        let load = self.load()?;
        let count: usize = load.priorities.iter().flat_map(|p| &p.localities).map(|l| l.endpoints.len()).sum();
        if count != 1 {
            return Err(Refusal::new("load_assignment", format!("{count} endpoints where one is needed")));
        }
        Ok(load)
    }

    fn eds(self) -> Decoded<Discovery> {
        let c::EdsClusterConfig { eds_config, service_name } =
            self.eds.ok_or_else(|| Refusal::new("eds_cluster_config", "missing"))?;
        let source = eds_config.ok_or_else(|| Refusal::new("eds_cluster_config.eds_config", "missing"))?;
        super::any::over_ads(&source).at("eds_cluster_config.eds_config")?;
        Ok(Discovery::Eds(if service_name.is_empty() { self.name.into() } else { service_name.into() }))
    }

    fn original_dst(self) -> Decoded<OriginalDst> {
        let Some(config) = self.original else {
            return Ok(OriginalDst { cleanup_interval: self.cleanup, ..OriginalDst::default() });
        };
        let c::OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } = config;
        refuse!(metadata_key);
        let name = if http_header_name.is_empty() { "x-envoy-original-dst-host" } else { &http_header_name };
        Ok(OriginalDst {
            header: if use_http_header { Some(header_name(name).at("http_header_name")?) } else { None },
            port_override: upstream_port_override
                .map(|over| port(over.value))
                .transpose()
                .at("upstream_port_override")?,
            cleanup_interval: self.cleanup,
        })
    }

    fn custom(self, message: c::CustomClusterType) -> Decoded<Discovery> {
        let config = message.typed_config.ok_or_else(|| Refusal::new("typed_config", "missing"))?;
        let kind = type_name(&config);
        if kind == forward::ClusterConfig::full_name() {
            let names = dns::forward(unpack::<forward::ClusterConfig>(&config)?).at("typed_config")?;
            Ok(Discovery::DynamicForwardProxy(Arc::new(names)))
        } else if kind == aggregate::ClusterConfig::full_name() {
            let clusters = unpack::<aggregate::ClusterConfig>(&config)?.clusters;
            if clusters.is_empty() {
                return Err(Refusal::new("typed_config.clusters", "empty"));
            }
            Ok(Discovery::Aggregate(super::any::texts(&clusters)))
        } else if kind == DnsCluster::full_name() {
            self.dns_cluster(unpack(&config)?).at("typed_config")
        } else {
            Err(Refusal::unsupported(kind))
        }
    }

    fn dns_cluster(self, message: DnsCluster) -> Decoded<Discovery> {
        let (dns, single) = dns::extension(message)?;
        if single {
            Ok(Discovery::LogicalDns(self.one_name()?, Arc::new(dns)))
        } else {
            Ok(Discovery::StrictDns(self.load()?, Arc::new(dns)))
        }
    }
}

struct OldHttp {
    names: Option<core::UpstreamHttpProtocolOptions>,
    common: Option<core::HttpProtocolOptions>,
    one: Option<core::Http1ProtocolOptions>,
    two: Option<core::Http2ProtocolOptions>,
    max_requests: Option<u32>,
    same_as_downstream: bool,
}

fn http(extensions: HashMap<String, Any>, old: OldHttp) -> Decoded<UpstreamHttp> {
    let mut found = None;
    for (name, config) in extensions {
        let place = format!("typed_extension_protocol_options[{name}]");
        if type_name(&config) != HttpProtocolOptions::full_name() {
            return Err(Refusal::unsupported(format!("{place}.{}", type_name(&config))));
        }
        found = Some(protocol::upstream(unpack(&config).at(&place)?).at(&place)?);
    }
    let mut http = match found {
        Some(http) => http,
        None => older_http(old.names, old.common, old.one, old.two, old.same_as_downstream)?,
    };
    if let Some(most) = old.max_requests.filter(|_| http.max_requests_per_connection == 0) {
        http.max_requests_per_connection = most;
    }
    Ok(http)
}

fn older_http(
    names: Option<core::UpstreamHttpProtocolOptions>,
    common: Option<core::HttpProtocolOptions>,
    one: Option<core::Http1ProtocolOptions>,
    two: Option<core::Http2ProtocolOptions>,
    same_as_downstream: bool,
) -> Decoded<UpstreamHttp> {
    let mut http = protocol::plain_upstream()?;
    if let Some(names) = names {
        protocol::names_upstream(names, &mut http).at("upstream_http_protocol_options")?;
    }
    if let Some(common) = common {
        protocol::common_upstream(common, &mut http).at("common_http_protocol_options")?;
    }
    if let Some(one) = one {
        http.http1 = protocol::http1_upstream(one).at("http_protocol_options")?;
    }
    if let Some(two) = two {
        http.http2 = protocol::http2(two).at("http2_protocol_options")?;
        http.versions = HttpVersions::Http2;
    }
    if same_as_downstream {
        http.versions = HttpVersions::SameAsDownstream;
    }
    Ok(http)
}

/// HTTP/3 is what is spoken over QUIC, and nowhere else.
fn fits_version(cluster: Cluster) -> Decoded<Cluster> {
    let http3 = cluster.http.versions == HttpVersions::Http3;
    let others = cluster.transport_matches.iter().map(|one| &one.transport);
    for transport in std::iter::once(&cluster.transport).chain(others) {
        if http3 != matches!(transport, TransportSocket::Quic(_)) {
            return Err(Refusal::new("transport_socket", "HTTP/3 needs QUIC's transport, and nothing else takes that"));
        }
    }
    Ok(cluster)
}

fn transport(message: core::TransportSocket, depth: u32) -> Decoded<TransportSocket> {
    let core::TransportSocket { name, config_type } = message;
    let Some(ConfigType::TypedConfig(config)) = config_type else {
        // The one transport that needs no settings may come without any.
        return if name == "envoy.transport_sockets.raw_buffer" {
            Ok(TransportSocket::Raw)
        } else {
            Err(Refusal::new("typed_config", format!("missing for {name}")))
        };
    };
    if depth > 4 {
        return Err(Refusal::new("", "nested too deep"));
    }
    transport_of(&config, depth).at("typed_config")
}

fn transport_of(config: &Any, depth: u32) -> Decoded<TransportSocket> {
    let kind = type_name(config);
    if kind == RawBuffer::full_name() {
        Ok(TransportSocket::Raw)
    } else if kind == UpstreamTlsContext::full_name() {
        Ok(TransportSocket::Tls(Arc::new(tls::upstream(unpack(config)?)?)))
    } else if kind == QuicUpstreamTransport::full_name() {
        let QuicUpstreamTransport { upstream_tls_context } = unpack(config)?;
        let context = upstream_tls_context.ok_or_else(|| Refusal::new("upstream_tls_context", "missing"))?;
        if depth > 0 {
            return Err(Refusal::new("", "QUIC goes into no other transport"));
        }
        Ok(TransportSocket::Quic(Arc::new(tls::upstream(context).at("upstream_tls_context")?)))
    } else if kind == ProxyProtocolUpstreamTransport::full_name() {
        let ProxyProtocolUpstreamTransport {
            config: options,
            transport_socket,
            allow_unspecified_address,
            tlv_as_pool_key,
        } = unpack(config)?;
        refuse!(allow_unspecified_address, tlv_as_pool_key);
        let options = options.unwrap_or_default();
        let v2 = options.version() == core::proxy_protocol_config::Version::V2;
        if options.pass_through_tlvs.is_some() || !options.added_tlvs.is_empty() {
            return Err(Refusal::unsupported("config.pass_through_tlvs"));
        }
        let inner = transport_socket.ok_or_else(|| Refusal::new("transport_socket", "missing"))?;
        let version = if v2 { ProxyProtocolVersion::V2 } else { ProxyProtocolVersion::V1 };
        Ok(TransportSocket::ProxyProtocol(version, Box::new(transport(inner, depth + 1).at("transport_socket")?)))
    } else if kind == InternalUpstreamTransport::full_name() {
        internal(unpack(config)?)
    } else {
        Err(Refusal::unsupported(kind))
    }
}

fn internal(message: InternalUpstreamTransport) -> Decoded<TransportSocket> {
    let InternalUpstreamTransport { passthrough_metadata, transport_socket } = message;
    if let Some(inner) = transport_socket
        && transport(inner, 1).at("transport_socket")? != TransportSocket::Raw
    {
        return Err(Refusal::unsupported("transport_socket"));
    }
    let mut taken = Vec::new();
    for (at, source) in passthrough_metadata.into_iter().enumerate() {
        let from = match source.kind.and_then(|kind| kind.kind) {
            Some(MetadataKind::Host(_)) => EndpointMetadata::Endpoint,
            Some(MetadataKind::Cluster(_)) => EndpointMetadata::Cluster,
            _ => return Err(Refusal::unsupported(format!("passthrough_metadata[{at}].kind"))),
        };
        taken.push((source.name.into(), from));
    }
    Ok(TransportSocket::Internal(taken.into()))
}

fn transport_match(message: c::TransportSocketMatch) -> Decoded<TransportMatch> {
    let c::TransportSocketMatch { name, r#match, transport_socket } = message;
    let criteria = match r#match.map(|criteria| structure(&criteria, 0)).transpose().at("match")? {
        Some(Value::Map(map)) => map.iter().map(|(key, value)| (Arc::clone(key), value.clone())).collect(),
        _ => Box::default(),
    };
    let socket = transport_socket.ok_or_else(|| Refusal::new("transport_socket", "missing"))?;
    Ok(TransportMatch { name: name.into(), criteria, transport: transport(socket, 0).at("transport_socket")? })
}

fn bind(message: core::BindConfig) -> Decoded<BindSettings> {
    let core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = message;
    refuse!(socket_options, local_address_selector, validate_network_namespaces);
    // Of addresses for the other family: there the platform chooses.
    let _ = (extra_source_addresses, additional_source_addresses);
    Ok(BindSettings {
        source: source_address.map(address::socket).transpose().at("source_address")?,
        freebind: bool_or(freebind, false),
    })
}

fn connection_options(message: Option<pb::UpstreamConnectionOptions>) -> Decoded<Option<TcpKeepalive>> {
    let Some(message) = message else { return Ok(None) };
    let pb::UpstreamConnectionOptions {
        tcp_keepalive,
        set_local_interface_name_on_upstream_connections,
        happy_eyeballs_config,
    } = message;
    // Happy eyeballs are always on where an endpoint has several addresses.
    let _ = (set_local_interface_name_on_upstream_connections, happy_eyeballs_config);
    Ok(tcp_keepalive.map(|keepalive| TcpKeepalive {
        probes: keepalive.keepalive_probes.map(|count| count.value),
        time: keepalive.keepalive_time.map(|seconds| Duration::from_secs(u64::from(seconds.value))),
        interval: keepalive.keepalive_interval.map(|seconds| Duration::from_secs(u64::from(seconds.value))),
    }))
}

/// How connections are opened ahead of need is our own affair.
fn preconnect(message: c::PreconnectPolicy) -> Decoded<()> {
    let c::PreconnectPolicy { per_upstream_preconnect_ratio, predictive_preconnect_ratio, preconnect_enabled_metadata } =
        message;
    let _ = (per_upstream_preconnect_ratio, predictive_preconnect_ratio);
    refuse!(preconnect_enabled_metadata);
    Ok(())
}
