//! Options of HTTP versions, towards clients and towards endpoints.

use super::{
    Refusal,
    any::{
        At, Decoded, bool_or, header_name, header_value, opt_duration, refuse, timeout, type_name, u32_or, unpack,
        within,
    },
};
use crate::config::{
    Http1Settings, Http1Upstream, Http2Settings, Http3Settings, HttpVersions, Underscores, UpstreamHttp,
};
use prost::Name as _;
use std::time::Duration;
use tombolo_controlplane_api::xds::envoy::{
    config::core::v3::{
        self as core, http_protocol_options::HeadersWithUnderscoresAction, http1_protocol_options as h1,
    },
    extensions::{
        http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
        upstreams::http::v3::{
            HttpProtocolOptions,
            http_protocol_options::{UpstreamProtocolOptions as U, explicit_http_config::ProtocolConfig},
        },
    },
};

/// How long idle connections live when nothing is said.
pub(super) const IDLE: Duration = Duration::from_secs(3600);

enum Case {
    Lower,
    Proper,
    Preserve,
}

fn key_format(format: Option<h1::HeaderKeyFormat>) -> Decoded<Case> {
    use h1::header_key_format::HeaderFormat as F;
    match format.and_then(|format| format.header_format) {
        None => Ok(Case::Lower),
        Some(F::ProperCaseWords(_)) => Ok(Case::Proper),
        Some(F::StatefulFormatter(extension)) => match extension.typed_config {
            Some(config) if type_name(&config) == PreserveCaseFormatterConfig::full_name() => {
                let PreserveCaseFormatterConfig { forward_reason_phrase, formatter_type_on_envoy_headers } =
                    unpack(&config)?;
                refuse!(forward_reason_phrase, formatter_type_on_envoy_headers);
                Ok(Case::Preserve)
            }
            _ => Err(Refusal::unsupported(format!("stateful_formatter {}", extension.name))),
        },
    }
}

/// HTTP/1 towards clients.
pub(super) fn http1_downstream(message: core::Http1ProtocolOptions) -> Decoded<Http1Settings> {
    let core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = message;
    // Which parser is used and whether a connection outlives an invalid request is not left to configuration.
    let _ = (override_stream_error_on_invalid_http_message, use_balsa_parser, send_fully_qualified_url);
    refuse!(ignore_http_11_upgrade);
    let case = key_format(header_key_format).at("header_key_format")?;
    let default_host = if default_host_for_http_10.is_empty() {
        None
    } else {
        Some(header_value(&default_host_for_http_10).at("default_host_for_http_10")?)
    };
    Ok(Http1Settings {
        accept_http_10,
        default_host,
        enable_trailers,
        proper_case: matches!(case, Case::Proper),
        preserve_case: matches!(case, Case::Preserve),
        allow_chunked_length,
        allow_absolute_url: bool_or(allow_absolute_url, true),
        allow_custom_methods,
    })
}

/// HTTP/1 towards endpoints.
pub(super) fn http1_upstream(message: core::Http1ProtocolOptions) -> Decoded<Http1Upstream> {
    let settings = http1_downstream(message)?;
    Ok(Http1Upstream {
        enable_trailers: settings.enable_trailers,
        proper_case: settings.proper_case,
        preserve_case: settings.preserve_case,
        allow_chunked_length: settings.allow_chunked_length,
    })
}

/// HTTP/2 in both directions.
pub(super) fn http2(message: core::Http2ProtocolOptions) -> Decoded<Http2Settings> {
    let core::Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = message;
    refuse!(allow_metadata, custom_settings_parameters);
    // Our codec has its own guards against floods, always on; which codec Envoy would take says nothing here.
    let _ = (
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        use_oghttp2_codec,
        max_metadata_size,
    );
    let _ = (max_inbound_priority_frames_per_stream, max_inbound_window_update_frames_per_data_frame_sent);
    let _ =
        (enable_huffman_encoding, max_header_field_size_kb, disallow_obs_text, stream_reset_burst, stream_reset_rate);
    let window = |value: Option<tombolo_controlplane_api::xds::google::protobuf::UInt32Value>, field: &str| {
        let value = value.map(|value| value.value);
        match value {
            Some(size) if !(65_535..=0x7fff_ffff).contains(&size) => Err(Refusal::new(field, format!("{size}"))),
            fine => Ok(fine),
        }
    };
    Ok(Http2Settings {
        header_table_size: u32_or(hpack_table_size, 4096),
        max_streams: within(max_concurrent_streams, 1..=0x7fff_ffff, "max_concurrent_streams")?,
        stream_window: window(initial_stream_window_size, "initial_stream_window_size")?,
        connection_window: window(initial_connection_window_size, "initial_connection_window_size")?,
        allow_connect,
        stream_error_on_invalid: override_stream_error_on_invalid_http_message
            .map_or(stream_error_on_invalid_http_messaging, |over| over.value),
        keepalive: connection_keepalive.map(keepalive).transpose().at("connection_keepalive")?.flatten(),
        max_outbound_frames: max_outbound_frames.map(|most| most.value),
    })
}

fn keepalive(message: core::KeepaliveSettings) -> Decoded<Option<(Duration, Duration)>> {
    let core::KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = message;
    let _ = (interval_jitter, connection_idle_interval);
    let interval = opt_duration(interval.as_ref(), "interval")?.filter(|interval| !interval.is_zero());
    let timeout = opt_duration(timeout.as_ref(), "timeout")?.ok_or_else(|| Refusal::new("timeout", "missing"))?;
    Ok(interval.map(|interval| (interval, timeout)))
}

/// HTTP/3 in both directions.
pub(super) fn http3(message: core::Http3ProtocolOptions) -> Decoded<Http3Settings> {
    let core::Http3ProtocolOptions {
        quic_protocol_options,
        override_stream_error_on_invalid_http_message,
        allow_extended_connect,
        allow_metadata,
        disable_qpack,
        disable_connection_flow_control_for_streams,
        disallow_obs_text,
    } = message;
    let _ = (override_stream_error_on_invalid_http_message, disallow_obs_text);
    refuse!(allow_metadata, disable_qpack, disable_connection_flow_control_for_streams);
    let settings = quic(quic_protocol_options.unwrap_or_default()).at("quic_protocol_options")?;
    Ok(Http3Settings { allow_connect: allow_extended_connect, ..settings })
}

/// QUIC beneath it.
pub(super) fn quic(message: core::QuicProtocolOptions) -> Decoded<Http3Settings> {
    let core::QuicProtocolOptions {
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        num_timeouts_to_trigger_port_migration,
        connection_keepalive,
        connection_options,
        client_connection_options,
        idle_network_timeout,
        max_packet_length,
        client_packet_writer,
        connection_migration,
        memory_reduction_timeout,
        enable_scone,
    } = message;
    refuse!(connection_options, client_connection_options, connection_migration, max_packet_length, enable_scone);
    // Hints about one implementation's inner life.
    let _ = (num_timeouts_to_trigger_port_migration, client_packet_writer, memory_reduction_timeout);
    let bounded =
        |value: Option<tombolo_controlplane_api::xds::google::protobuf::UInt32Value>, most: u32, field: &str| {
            match value.map(|value| value.value) {
                Some(value) if value == 0 || value > most => Err(Refusal::new(field, format!("{value}"))),
                fine => Ok(fine),
            }
        };
    let keepalive = connection_keepalive.unwrap_or_default();
    let idle = opt_duration(idle_network_timeout.as_ref(), "idle_network_timeout")?;
    if idle.is_some_and(|idle| !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&idle)) {
        return Err(Refusal::new("idle_network_timeout", "neither less than a second nor more than ten minutes"));
    }
    Ok(Http3Settings {
        max_streams: within(max_concurrent_streams, 1..=u32::MAX, "max_concurrent_streams")?,
        stream_window: bounded(initial_stream_window_size, 16 << 20, "initial_stream_window_size")?,
        connection_window: bounded(initial_connection_window_size, 24 << 20, "initial_connection_window_size")?,
        allow_connect: false,
        idle,
        keepalive: opt_duration(keepalive.max_interval.as_ref(), "connection_keepalive.max_interval")?
            .filter(|interval| !interval.is_zero()),
    })
}

/// What Envoy takes for a cluster that says nothing.
pub(super) fn plain_upstream() -> Decoded<UpstreamHttp> {
    Ok(UpstreamHttp {
        versions: HttpVersions::Http1,
        idle_timeout: Some(IDLE),
        max_connection_duration: None,
        max_stream: None,
        max_requests_per_connection: 0,
        max_headers: None,
        max_headers_kb: None,
        auto_sni: false,
        auto_san_validation: false,
        override_auto_sni_header: None,
        http1: Http1Upstream::default(),
        http2: http2(core::Http2ProtocolOptions::default())?,
        http3: Http3Settings::default(),
    })
}

/// HTTP towards endpoints.
pub(super) fn upstream(message: HttpProtocolOptions) -> Decoded<UpstreamHttp> {
    let HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = message;
    refuse!(header_validation_config, outlier_detection, request_mirror_policies, hash_policy, retry_policy);
    // A chain of nothing but the codec is Envoy's default.
    if http_filters.iter().any(|filter| filter.name != "envoy.filters.http.upstream_codec") {
        return Err(Refusal::unsupported("http_filters"));
    }
    let mut http = plain_upstream()?;
    common_upstream(common_http_protocol_options.unwrap_or_default(), &mut http).at("common_http_protocol_options")?;
    if let Some(options) = upstream_http_protocol_options {
        names_upstream(options, &mut http).at("upstream_http_protocol_options")?;
    }
    match upstream_protocol_options {
        Some(U::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(options)) => {
                http.http1 = http1_upstream(options).at("http_protocol_options")?
            }
            Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                http.versions = HttpVersions::Http2;
                http.http2 = http2(options).at("http2_protocol_options")?;
            }
            Some(ProtocolConfig::Http3ProtocolOptions(options)) => {
                http.versions = HttpVersions::Http3;
                http.http3 = http3(options).at("http3_protocol_options")?;
            }
            None => return Err(Refusal::new("explicit_http_config", "names no version")),
        },
        Some(U::UseDownstreamProtocolConfig(same)) => {
            if same.http3_protocol_options.is_some() {
                return Err(Refusal::unsupported("use_downstream_protocol_config.http3_protocol_options"));
            }
            http.versions = HttpVersions::SameAsDownstream;
            either(same.http_protocol_options, same.http2_protocol_options, &mut http)?;
        }
        Some(U::AutoConfig(auto)) => {
            if auto.alternate_protocols_cache_options.is_some() {
                return Err(Refusal::unsupported("auto_config.alternate_protocols_cache_options"));
            }
            if auto.http3_protocol_options.is_some() {
                return Err(Refusal::unsupported("auto_config.http3_protocol_options"));
            }
            http.versions = HttpVersions::Auto;
            either(auto.http_protocol_options, auto.http2_protocol_options, &mut http)?;
        }
        None => return Err(Refusal::new("upstream_protocol_options", "missing")),
    }
    Ok(http)
}

fn either(
    one: Option<core::Http1ProtocolOptions>,
    two: Option<core::Http2ProtocolOptions>,
    http: &mut UpstreamHttp,
) -> Decoded<()> {
    if let Some(options) = one {
        http.http1 = http1_upstream(options).at("http_protocol_options")?;
    }
    if let Some(options) = two {
        http.http2 = http2(options).at("http2_protocol_options")?;
    }
    Ok(())
}

/// What a cluster says in the older way, beside the newer extension.
pub(super) fn names_upstream(options: core::UpstreamHttpProtocolOptions, http: &mut UpstreamHttp) -> Decoded<()> {
    let core::UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } = options;
    http.auto_sni = auto_sni;
    if auto_san_validation && !auto_sni {
        // What is compared is the name that was asked for.
        return Err(Refusal::new("auto_san_validation", "without auto_sni"));
    }
    http.auto_san_validation = auto_san_validation;
    if !override_auto_sni_header.is_empty() {
        http.override_auto_sni_header = Some(header_name(&override_auto_sni_header).at("override_auto_sni_header")?);
    }
    Ok(())
}

/// The same for options common to all versions.
pub(super) fn common_upstream(message: core::HttpProtocolOptions, http: &mut UpstreamHttp) -> Decoded<()> {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = message;
    refuse!(max_connection_duration_jitter);
    // Means nothing towards endpoints.
    let _ = headers_with_underscores_action;
    http.idle_timeout = timeout(idle_timeout.as_ref(), Some(IDLE), "idle_timeout")?;
    http.max_connection_duration = timeout(max_connection_duration.as_ref(), None, "max_connection_duration")?;
    http.max_stream = timeout(max_stream_duration.as_ref(), None, "max_stream_duration")?;
    http.max_requests_per_connection = u32_or(max_requests_per_connection, 0);
    http.max_headers = within(max_headers_count, 1..=u32::MAX, "max_headers_count")?;
    http.max_headers_kb = within(max_response_headers_kb, 1..=8192, "max_response_headers_kb")?;
    Ok(())
}

pub(super) fn underscores(action: HeadersWithUnderscoresAction) -> Underscores {
    match action {
        HeadersWithUnderscoresAction::Allow => Underscores::Allow,
        HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
        HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
    }
}
