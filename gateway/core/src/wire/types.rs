//! The types of messages that are understood. The documentation's table is generated from [`SUPPORTED`].

/// The kinds of resources that a gateway subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Load,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// SDS.
    Secret,
    /// SRDS.
    Scope,
    /// VHDS.
    Host,
    /// ECDS.
    Extension,
    /// RTDS.
    Runtime,
}

impl Kind {
    /// All, in the order in which they are subscribed to.
    pub const ALL: [Self; 9] = [
        Self::Runtime,
        Self::Cluster,
        Self::Load,
        Self::Listener,
        Self::Scope,
        Self::Routes,
        Self::Host,
        Self::Extension,
        Self::Secret,
    ];

    /// The type URL of the resources.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Load => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Routes => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Scope => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::Host => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        }
    }

    /// The kind of a type URL.
    #[must_use]
    pub fn parse(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == type_url)
    }

    /// True for kinds of which all resources are wanted always (CDS, LDS); of the others those that something refers to.
    #[must_use]
    pub const fn wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// One row of the table of supported types.
#[derive(Debug, Clone, Copy)]
pub struct Support {
    /// Message type without `type.googleapis.com/`.
    pub message: &'static str,
    /// Where it may stand.
    pub place: &'static str,
    /// What of it is left out, or empty.
    pub limits: &'static str,
}

const fn row(place: &'static str, message: &'static str, limits: &'static str) -> Support {
    Support { message, place, limits }
}

/// Everything that is understood. A message that is not here is refused by name, or skipped where Envoy would skip it
/// (an HTTP filter that is marked optional).
pub const SUPPORTED: &[Support] = &[
    row(
        "resource",
        "envoy.config.listener.v3.Listener",
        "TCP, Unix and internal sockets; no filter_chain_matcher, no FCDS",
    ),
    row("resource", "envoy.config.route.v3.RouteConfiguration", "no matcher trees, no cluster specifier plugins"),
    row("resource", "envoy.config.route.v3.ScopedRouteConfiguration", "on_demand scopes are loaded at once"),
    row("resource", "envoy.config.route.v3.VirtualHost", "for route tables with vhds, by the delta protocol"),
    row(
        "resource",
        "envoy.config.core.v3.TypedExtensionConfig",
        "HTTP, listener and network filters that do not end a chain",
    ),
    row("resource", "envoy.service.runtime.v3.Runtime", "layers that --rtds names"),
    row("resource", "envoy.config.cluster.v3.Cluster", "no LRS, no custom cluster types but those below"),
    row("resource", "envoy.config.endpoint.v3.ClusterLoadAssignment", "no LEDS"),
    row(
        "resource",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        "certificates and validation contexts, inline data",
    ),
    row(
        "network filter",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "RDS, SRDS or inline routes",
    ),
    row("network filter", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "no on-demand clusters"),
    row("network filter", "envoy.extensions.filters.network.sni_cluster.v3.SniCluster", ""),
    row("network filter", "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit", "no runtime"),
    row("network filter", "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit", "no share_key"),
    row("listener filter", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", "no JA3, no JA4"),
    row("listener filter", "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector", ""),
    row("listener filter", "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", "no TLV rules"),
    row("listener filter", "envoy.extensions.filters.listener.original_dst.v3.OriginalDst", ""),
    row("http filter", "envoy.extensions.filters.http.router.v3.Router", "no upstream logs, no upstream filters"),
    row("http filter", "envoy.extensions.filters.http.fault.v3.HTTPFault", "no runtime keys"),
    row("http filter", "envoy.extensions.filters.http.cors.v3.Cors", ""),
    row("http filter", "envoy.extensions.filters.http.csrf.v3.CsrfPolicy", "on routes too; keeps no statistics"),
    row(
        "http filter",
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "no dynamic descriptors, no shares of a cluster's limit",
    ),
    row(
        "http filter",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "other filters see requests as they came",
    ),
    row("http filter", "envoy.extensions.filters.http.set_metadata.v3.Config", "no typed metadata"),
    row(
        "http filter",
        "envoy.extensions.filters.http.header_to_metadata.v3.Config",
        "on routes too; keeps no statistics",
    ),
    row("http filter", "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig", "DNS only"),
    row(
        "http filter",
        "envoy.extensions.filters.http.compressor.v3.Compressor",
        "gzip, brotli and zstd; no runtime keys",
    ),
    row(
        "http filter",
        "envoy.extensions.filters.http.decompressor.v3.Decompressor",
        "gzip, brotli and zstd; no runtime keys",
    ),
    row("compression library", "envoy.extensions.compression.gzip.compressor.v3.Gzip", "compression_level"),
    row("compression library", "envoy.extensions.compression.gzip.decompressor.v3.Gzip", "max_inflate_ratio"),
    row("compression library", "envoy.extensions.compression.brotli.compressor.v3.Brotli", "quality and window_bits"),
    row("compression library", "envoy.extensions.compression.brotli.decompressor.v3.Brotli", ""),
    row("compression library", "envoy.extensions.compression.zstd.compressor.v3.Zstd", "no dictionaries"),
    row("compression library", "envoy.extensions.compression.zstd.decompressor.v3.Zstd", "no dictionaries"),
    row("http filter", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", ""),
    row("http filter", "envoy.extensions.filters.http.buffer.v3.Buffer", ""),
    row(
        "http filter",
        "envoy.extensions.filters.http.rbac.v3.RBAC",
        "no conditions in CEL, no matcher trees, no filter state, no claims of tokens",
    ),
    row("network filter", "envoy.extensions.filters.network.rbac.v3.RBAC", "as the HTTP filter; no delay_deny"),
    row("per-route config", "envoy.extensions.filters.http.rbac.v3.RBACPerRoute", ""),
    row("http filter", "envoy.extensions.filters.http.health_check.v3.HealthCheck", "no cache_time"),
    row("http filter", "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig", "accepted, keeps no statistics"),
    row("http filter", "envoy.extensions.filters.http.on_demand.v3.OnDemand", "virtual hosts only; no odcds"),
    row("http filter", "stats.PluginConfig", "istio.stats; also within a TypedStruct"),
    row("per-route config", "envoy.config.route.v3.FilterConfig", "disabled, or a config of a supported filter"),
    row("per-route config", "envoy.extensions.filters.http.cors.v3.CorsPolicy", ""),
    row("per-route config", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute", ""),
    row("per-route config", "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute", ""),
    row("per-route config", "envoy.extensions.filters.http.buffer.v3.BufferPerRoute", ""),
    row("per-route config", "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig", ""),
    row("transport socket", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", "TLS 1.2 and 1.3"),
    row("transport socket", "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "TLS 1.2 and 1.3"),
    row("transport socket", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", ""),
    row(
        "transport socket",
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        "no TLVs",
    ),
    row(
        "transport socket",
        "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        "host and cluster metadata",
    ),
    row(
        "certificate validator",
        "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        "trust_domains",
    ),
    row("protocol options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "no alternate protocols cache"),
    row("access logger", "envoy.extensions.access_loggers.file.v3.FileAccessLog", ""),
    row("access logger", "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", ""),
    row("access logger", "envoy.extensions.access_loggers.stream.v3.StderrAccessLog", ""),
    row(
        "cluster type",
        "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
        "DNS cache, no sub-clusters",
    ),
    row("cluster type", "envoy.extensions.clusters.aggregate.v3.ClusterConfig", ""),
    row("cluster type", "envoy.extensions.clusters.dns.v3.DnsCluster", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.random.v3.Random", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.maglev.v3.Maglev", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.pick_first.v3.PickFirst", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality", ""),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided", ""),
    row(
        "load balancing policy",
        "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost",
        "headers only",
    ),
    row("load balancing policy", "envoy.extensions.load_balancing_policies.subset.v3.Subset", "no redundant keys"),
    row(
        "load balancing policy",
        "tombolo.load_balancing_policies.peak_ewma.v1.PeakEwma",
        "our own, in a TypedStruct: decay (10s), unknown (0.030s)",
    ),
    row("DNS resolver", "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig", "no query cache"),
    row(
        "DNS resolver",
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
        "knows no TTL",
    ),
    row("request id", "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", ""),
    row("retry host predicate", "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", ""),
    row("retry host predicate", "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate", ""),
    row("retry priority", "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", ""),
    row("path match", "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", ""),
    row("path rewrite", "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig", ""),
    row(
        "internal redirect predicate",
        "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig",
        "",
    ),
    row(
        "internal redirect predicate",
        "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
        "",
    ),
    row(
        "internal redirect predicate",
        "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig",
        "",
    ),
    row("header formatter", "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig", ""),
];
