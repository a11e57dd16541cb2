//! The connection manager.

use super::{
    Refusal, address,
    any::{
        At, Decoded, bool_or, duration, header_value, known, opt_duration, refuse, timeout, type_name, u32_or, unpack,
        within,
    },
    filter, local_reply, log, protocol, route, scope,
    split::split,
    tracing,
};
use crate::config::{
    Codec, EscapedSlashes, FetchTimeout, Hcm, HttpFilterKind, InternalAddresses, Limits, PathSettings, PortStripping,
    RequestId, RouteSource, RouteTable, SchemeOverwrite, ServerHeader, Timeouts, Upgrade, Xfcc, XfccDetails,
};
use crate::head::Scheme;
use http::HeaderValue;
use prost::Name as _;
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::envoy::{
    config::core::v3::{self as core, scheme_header_transformation::Transformation},
    extensions::{
        filters::network::http_connection_manager::v3::{
            self as pb,
            http_connection_manager::{
                self as h, CodecType, ForwardClientCertDetails, ForwardClientCertFormat, PathWithEscapedSlashesAction,
                RouteSpecifier, ServerHeaderTransformation, StripPortMode,
            },
        },
        request_id::uuid::v3::UuidRequestIdConfig,
    },
};

/// Number of the field of routes that are written in the connection manager.
const ROUTES: u32 = 4;

/// A connection manager from its bytes.
pub(super) fn encoded(bytes: &[u8]) -> Decoded<Hcm> {
    let apart = split(bytes, ROUTES)?;
    let message: pb::HttpConnectionManager = apart.message()?;
    match (&apart.items[..], &message.route_specifier) {
        ([routes], None) => manager(message, Some(routes)),
        ([], _) => manager(message, None),
        // Written more than once, or one of several choices: the message's own rules say what counts.
        _ => manager(super::any::decode(bytes)?, None),
    }
}

/// A connection manager, and its routes where they are not in the message. The exhaustive list keeps fields that nobody reads from
/// slipping through.
fn manager(message: pb::HttpConnectionManager, written: Option<&[u8]>) -> Decoded<Hcm> {
    let codec = codec(known(message.codec_type).at("codec_type")?);
    let server_header = server_header(known(message.server_header_transformation).at("server_header_transformation")?);
    let xfcc = xfcc(known(message.forward_client_cert_details).at("forward_client_cert_details")?);
    let escaped_slashes = escaped_slashes(message.path_with_escaped_slashes_action());
    let pb::HttpConnectionManager {
        codec_type: _,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation: _,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details: _,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action: _,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = message;
    refuse!(stream_flush_timeout, drain_timeout_jitter, original_ip_detection_extensions, proxy_status_config);
    refuse!(
        early_header_mutation_extensions,
        forward_client_cert_matcher,
        path_normalization_options,
        forward_proto_config
    );
    refuse!(represent_ipv4_remote_address_as_ipv4_mapped_ipv6, typed_header_validation_config);
    refuse!(access_log_flush_interval, flush_access_log_on_new_request, access_log_options);
    // A connection that has lived its time is always drained safely; PROXY protocol state goes nowhere from here.
    let _ = (append_local_overload, http1_safe_max_connection_duration, add_proxy_protocol_connection_state);
    if stat_prefix.is_empty() {
        return Err(Refusal::new("stat_prefix", "empty"));
    }
    let common = common_http_protocol_options.unwrap_or_default();
    let headers_kb = within(max_request_headers_kb, 1..=8192, "max_request_headers_kb")?.unwrap_or(60);
    let (limits, connection) = common_options(common, headers_kb).at("common_http_protocol_options")?;
    let filters = filter::chain(http_filters)?;
    let strip_port = match strip_port_mode {
        Some(StripPortMode::StripAnyHostPort(true)) if strip_matching_host_port => {
            return Err(Refusal::new("strip_any_host_port", "beside strip_matching_host_port"));
        }
        Some(StripPortMode::StripAnyHostPort(true)) => PortStripping::Any,
        _ if strip_matching_host_port => PortStripping::Matching,
        _ => PortStripping::Keep,
    };
    let kinds: Vec<_> = upgrade_configs.iter().map(|one| one.upgrade_type.to_ascii_lowercase()).collect();
    super::any::distinct(&kinds, "upgrade_configs")?;
    let upgrades = upgrade_configs.into_iter().enumerate().map(|(at, u)| upgrade(u).nth("upgrade_configs", at));
    let ids = request_ids(request_id_extension).at("request_id_extension")?;
    let (routes, fetch_timeout) = match written {
        Some(bytes) => inline(route::encoded(bytes, route::Comes::Written))?,
        None => routes(route_specifier)?,
    };
    Ok(Hcm {
        local_reply: local_reply_config.map(local_reply::config).transpose().at("local_reply_config")?.map(Arc::new),
        tracing: tracing.map(tracing::sampling).transpose().at("tracing")?,
        stat_prefix: stat_prefix.into(),
        codec,
        routes,
        fetch_timeout,
        mesh_stats: filters.iter().any(|filter| matches!(filter.kind, HttpFilterKind::MeshStats)),
        filters,
        access_logs: log::all(access_log)?,
        use_remote_address: bool_or(use_remote_address, false),
        trusted_hops: xff_num_trusted_hops,
        skip_xff_append,
        internal: internal_addresses(internal_address_config.unwrap_or_default()).at("internal_address_config")?,
        xfcc,
        xfcc_details: xfcc_details(set_current_client_cert_details.unwrap_or_default())
            .at("set_current_client_cert_details")?,
        path: PathSettings { normalize: bool_or(normalize_path, false), merge_slashes, escaped_slashes },
        strip_port,
        strip_trailing_dot: strip_trailing_host_dot,
        server_name: if server_name.is_empty() {
            HeaderValue::from_static("envoy")
        } else {
            header_value(&server_name).at("server_name")?
        },
        server_header,
        via: if via.is_empty() { None } else { Some(header_value(&via).at("via")?) },
        append_x_forwarded_port,
        scheme_overwrite: scheme_header_transformation
            .map(scheme)
            .transpose()
            .at("scheme_header_transformation")?
            .flatten(),
        timeouts: Timeouts {
            stream_idle: timeout(stream_idle_timeout.as_ref(), Some(Duration::from_secs(300)), "stream_idle_timeout")?,
            request: timeout(request_timeout.as_ref(), None, "request_timeout")?,
            request_headers: timeout(request_headers_timeout.as_ref(), None, "request_headers_timeout")?,
            drain: opt_duration(drain_timeout.as_ref(), "drain_timeout")?.unwrap_or(Duration::from_secs(5)),
            delayed_close: match &delayed_close_timeout {
                None => Duration::from_secs(1),
                Some(wait) => duration(wait).at("delayed_close_timeout")?,
            },
            ..connection
        },
        limits,
        upgrades: upgrades.collect::<Decoded<_>>()?,
        request_id: RequestId {
            generate: bool_or(generate_request_id, true),
            preserve_external: preserve_external_request_id,
            in_response: always_set_request_id_in_response,
            pack_trace_reason: ids.0,
            samples: ids.1,
        },
        add_user_agent: bool_or(add_user_agent, false),
        proxy_100_continue,
        stream_error_on_invalid: bool_or(stream_error_on_invalid_http_message, false),
        http1: protocol::http1_downstream(http_protocol_options.unwrap_or_default()).at("http_protocol_options")?,
        http2: protocol::http2(http2_protocol_options.unwrap_or_default()).at("http2_protocol_options")?,
        http3: http3_protocol_options.map(protocol::http3).transpose().at("http3_protocol_options")?,
    })
}

fn codec(kind: CodecType) -> Codec {
    match kind {
        CodecType::Auto => Codec::Auto,
        CodecType::Http1 => Codec::Http1,
        CodecType::Http2 => Codec::Http2,
        CodecType::Http3 => Codec::Http3,
    }
}

fn server_header(transformation: ServerHeaderTransformation) -> ServerHeader {
    match transformation {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    }
}

fn xfcc(details: ForwardClientCertDetails) -> Xfcc {
    match details {
        ForwardClientCertDetails::Sanitize => Xfcc::Sanitize,
        ForwardClientCertDetails::ForwardOnly => Xfcc::ForwardOnly,
        ForwardClientCertDetails::AppendForward => Xfcc::AppendForward,
        ForwardClientCertDetails::SanitizeSet => Xfcc::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => Xfcc::AlwaysForwardOnly,
    }
}

fn escaped_slashes(action: PathWithEscapedSlashesAction) -> EscapedSlashes {
    match action {
        PathWithEscapedSlashesAction::ImplementationSpecificDefault | PathWithEscapedSlashesAction::KeepUnchanged => {
            EscapedSlashes::Keep
        }
        PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::Reject,
        PathWithEscapedSlashesAction::UnescapeAndRedirect => EscapedSlashes::Redirect,
        PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::Unescape,
    }
}

fn common_options(message: core::HttpProtocolOptions, headers_kb: u32) -> Decoded<(Limits, Timeouts)> {
    let underscores = protocol::underscores(message.headers_with_underscores_action());
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action: _,
        max_requests_per_connection,
    } = message;
    refuse!(max_connection_duration_jitter);
    // Means nothing towards clients.
    let _ = max_response_headers_kb;
    let limits = Limits {
        headers_kb,
        headers: within(max_headers_count, 1..=u32::MAX, "max_headers_count")?.unwrap_or(100),
        requests_per_connection: u32_or(max_requests_per_connection, 0),
        underscores,
    };
    let timeouts = Timeouts {
        idle: timeout(idle_timeout.as_ref(), Some(protocol::IDLE), "idle_timeout")?,
        max_connection: timeout(max_connection_duration.as_ref(), None, "max_connection_duration")?,
        max_stream: timeout(max_stream_duration.as_ref(), None, "max_stream_duration")?,
        stream_idle: None,
        request: None,
        request_headers: None,
        drain: Duration::ZERO,
        delayed_close: Duration::ZERO,
    };
    Ok((limits, timeouts))
}

fn inline(table: Decoded<RouteTable>) -> Decoded<(RouteSource, FetchTimeout)> {
    let table = Arc::new(table.at("route_config")?);
    if table.more_hosts.is_some() {
        return Err(Refusal::new("route_config.vhds", "only in routes that come by RDS"));
    }
    Ok((RouteSource::Inline(table), FetchTimeout::default()))
}

fn routes(specifier: Option<RouteSpecifier>) -> Decoded<(RouteSource, FetchTimeout)> {
    match specifier {
        Some(RouteSpecifier::RouteConfig(table)) => inline(route::table(table, route::Comes::Written)),
        Some(RouteSpecifier::Rds(rds)) => {
            let source = rds.config_source.ok_or_else(|| Refusal::new("rds.config_source", "missing"))?;
            let wait = super::any::over_ads(&source).at("rds.config_source")?;
            Ok((RouteSource::Named(rds.route_config_name.into()), wait))
        }
        Some(RouteSpecifier::ScopedRoutes(scoped)) => scope::routes(scoped).at("scoped_routes"),
        None => Err(Refusal::new("route_specifier", "missing")),
    }
}

fn internal_addresses(message: h::InternalAddressConfig) -> Decoded<InternalAddresses> {
    let h::InternalAddressConfig { unix_sockets, cidr_ranges } = message;
    Ok(InternalAddresses { unix_sockets, ranges: address::ranges(cidr_ranges, "cidr_ranges")? })
}

fn xfcc_details(message: h::SetCurrentClientCertDetails) -> Decoded<XfccDetails> {
    let json = message.format() == ForwardClientCertFormat::Json;
    let h::SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format: _ } = message;
    if json {
        return Err(Refusal::unsupported("format JSON"));
    }
    refuse!(issuer);
    Ok(XfccDetails { subject: bool_or(subject, false), cert, chain, dns, uri })
}

fn scheme(message: core::SchemeHeaderTransformation) -> Decoded<Option<SchemeOverwrite>> {
    let core::SchemeHeaderTransformation { match_upstream, transformation } = message;
    match transformation {
        Some(Transformation::SchemeToOverwrite(scheme)) => match scheme.as_str() {
            "http" => Ok(Some(SchemeOverwrite::Fixed(Scheme::Http))),
            "https" => Ok(Some(SchemeOverwrite::Fixed(Scheme::Https))),
            other => Err(Refusal::new("scheme_to_overwrite", format!("{other:?} is neither http nor https"))),
        },
        None => Ok(match_upstream.then_some(SchemeOverwrite::MatchUpstream)),
    }
}

fn upgrade(message: h::UpgradeConfig) -> Decoded<Upgrade> {
    let h::UpgradeConfig { upgrade_type, filters, enabled } = message;
    refuse!(filters);
    Ok(Upgrade { kind: upgrade_type.into(), enabled: bool_or(enabled, true) })
}

/// Whether the reason for tracing is packed into ids, and whether ids decide about sampling.
fn request_ids(extension: Option<pb::RequestIdExtension>) -> Decoded<(bool, bool)> {
    let Some(config) = extension.and_then(|extension| extension.typed_config) else { return Ok((true, true)) };
    if type_name(&config) != UuidRequestIdConfig::full_name() {
        return Err(Refusal::unsupported(type_name(&config)));
    }
    let UuidRequestIdConfig { pack_trace_reason, use_request_id_for_trace_sampling } = unpack(&config)?;
    Ok((bool_or(pack_trace_reason, true), bool_or(use_request_id_for_trace_sampling, true)))
}
