//! Listeners and filter chains.

use super::{
    Refusal, address,
    any::{
        At, Decoded, bool_or, distinct, filled, metadata, opt_duration, port, refuse, texts, type_name, u32_or, unpack,
        within,
    },
    cluster::BUFFER,
    filter::inner_type,
    log, network, tls,
};
use crate::{
    chain::ChainIndex,
    config::{
        Address, Codec, Direction, DownstreamTls, FilterChain, FilterChainMatch, Listener, ListenerFilter,
        ProxyProtocolSettings, QuicSettings, SourceType, Terminal,
    },
};
use prost::Name as _;
use std::{sync::Arc, time::Duration};
use tombolo_controlplane_api::xds::envoy::{
    config::{
        core::v3::{
            TrafficDirection, TransportSocket, address::Address as PbAddress, proxy_protocol_config::Version,
            transport_socket::ConfigType as SocketConfig,
        },
        listener::v3::{
            self as pb, filter_chain_match::ConnectionSourceType, listener::ListenerSpecifier,
            listener_filter::ConfigType,
        },
    },
    extensions::{
        filters::listener::{
            http_inspector::v3::HttpInspector, original_dst::v3::OriginalDst, proxy_protocol::v3::ProxyProtocol,
            tls_inspector::v3::TlsInspector,
        },
        transport_sockets::{
            quic::v3::QuicDownstreamTransport, raw_buffer::v3::RawBuffer, tls::v3::DownstreamTlsContext,
        },
    },
};
use tombolo_controlplane_api::xds::google::protobuf::Any;

/// A listener. The exhaustive list keeps fields that nobody reads from slipping through.
pub(super) fn listener(message: pb::Listener) -> Decoded<Listener> {
    let direction = match message.traffic_direction() {
        TrafficDirection::Unspecified => Direction::Unspecified,
        TrafficDirection::Inbound => Direction::Inbound,
        TrafficDirection::Outbound => Direction::Outbound,
    };
    let pb::Listener {
        name,
        address: place,
        additional_addresses,
        stat_prefix,
        stats_matcher,
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata: meta,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction: _,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = message;
    refuse!(
        fcds_config,
        filter_chain_matcher,
        per_connection_buffer_high_watermark_timeout,
        socket_options,
        enable_mptcp
    );
    refuse!(tcp_fast_open_queue_length, api_listener, tcp_keepalive);
    if connection_balance_config.as_ref().is_some_and(|balance| balance.balance_type.is_none()) {
        return Err(Refusal::new("connection_balance_config.balance_type", "missing"));
    }
    // How connections spread over workers, how many are accepted at once and what is counted is our own affair; when a listener
    // goes it always drains.
    let _ =
        (stats_matcher, drain_type, connection_balance_config, max_connections_to_accept_per_socket_event, reuse_port);
    let _ = enable_reuse_port;
    let _ = (ignore_global_conn_limit, bypass_overload_manager);
    if name.is_empty() {
        return Err(Refusal::new("name", "empty"));
    }
    let quic = udp_listener_config.map(quic).transpose().at("udp_listener_config")?;
    let over_quic = quic.is_some();
    let chains = filter_chains.into_iter().enumerate();
    let chains = chains.map(|(at, c)| chain(c, over_quic).map(Arc::new).nth("filter_chains", at));
    let chains: Box<[Arc<FilterChain>]> = chains.collect::<Decoded<_>>()?;
    let index = ChainIndex::new(&chains).map_err(|(first, second)| {
        Refusal::new(
            format!("filter_chains[{second}]"),
            format!("matches the same connections as filter_chains[{first}]"),
        )
    })?;
    let default_chain =
        default_filter_chain.map(|c| chain(c, over_quic).map(Arc::new)).transpose().at("default_filter_chain")?;
    if chains.is_empty() && default_chain.is_none() {
        return Err(Refusal::new("filter_chains", "empty"));
    }
    let filters =
        listener_filters.into_iter().enumerate().map(|(at, f)| listener_filter(f).nth("listener_filters", at));
    let filters = filters.collect::<Decoded<Box<[ListenerFilter]>>>()?;
    let bind = deprecated_v1.and_then(|old| old.bind_to_port).or(bind_to_port);
    let more = additional_addresses.iter().filter_map(|more| more.address.as_ref());
    let ipv4_compat = place.iter().chain(more).any(takes_ipv4);
    let addresses = addresses(place, additional_addresses, listener_specifier, over_quic)?;
    if addresses.iter().any(|address| matches!(address, Address::Pipe(..))) {
        bare(&filters, chains.iter().chain(&default_chain))?;
    }
    Ok(Listener {
        name: name.into(),
        addresses,
        stat_prefix: stat_prefix.into(),
        chains,
        index,
        default_chain,
        filters,
        filters_timeout: filters_timeout(listener_filters_timeout.as_ref())?,
        continue_on_filters_timeout: continue_on_listener_filters_timeout,
        buffer_limit: u32_or(per_connection_buffer_limit_bytes, BUFFER),
        direction,
        bind_to_port: bool_or(bind, true),
        use_original_dst: bool_or(use_original_dst, false),
        transparent: bool_or(transparent, false),
        freebind: bool_or(freebind, false),
        ipv4_compat,
        backlog: tcp_backlog_size.map(|size| size.value),
        max_connections: None,
        quic,
        access_logs: log::all(access_log)?,
        metadata: metadata(meta.as_ref()).at("metadata")?,
    })
}

fn takes_ipv4(place: &tombolo_controlplane_api::xds::envoy::config::core::v3::Address) -> bool {
    matches!(&place.address, Some(PbAddress::SocketAddress(socket)) if socket.ipv4_compat)
}

/// Over Unix sockets there is neither TLS nor a look ahead: who asks for them must not be served without.
fn bare<'c>(filters: &[ListenerFilter], mut chains: impl Iterator<Item = &'c Arc<FilterChain>>) -> Decoded<()> {
    if !filters.is_empty() {
        return Err(Refusal::new("listener_filters", "not over a Unix socket"));
    }
    if chains.any(|chain| chain.tls.is_some()) {
        return Err(Refusal::new("filter_chains", "no TLS over a Unix socket"));
    }
    Ok(())
}

fn filters_timeout(
    value: Option<&tombolo_controlplane_api::xds::google::protobuf::Duration>,
) -> Decoded<Option<Duration>> {
    super::any::timeout(value, Some(Duration::from_secs(15)), "listener_filters_timeout")
}

fn addresses(
    main: Option<tombolo_controlplane_api::xds::envoy::config::core::v3::Address>,
    more: Vec<pb::AdditionalAddress>,
    specifier: Option<ListenerSpecifier>,
    quic: bool,
) -> Decoded<Box<[Address]>> {
    if let Some(ListenerSpecifier::InternalListener(_)) = specifier {
        return Ok([Address::Internal].into());
    }
    let main = main.ok_or_else(|| Refusal::new("address", "missing"))?;
    let mut all = vec![address::listener(main, quic).at("address")?];
    for (at, another) in more.into_iter().enumerate() {
        if another.socket_options.is_some() || another.tcp_keepalive.is_some() {
            return Err(Refusal::unsupported(format!("additional_addresses[{at}].socket_options")));
        }
        let place =
            another.address.ok_or_else(|| Refusal::new(format!("additional_addresses[{at}].address"), "missing"))?;
        all.push(address::listener(place, quic).nth("additional_addresses", at)?);
    }
    Ok(all.into())
}

fn chain(message: pb::FilterChain, quic: bool) -> Decoded<FilterChain> {
    let pb::FilterChain {
        filter_chain_match,
        filters,
        use_proxy_proto,
        metadata: meta,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = message;
    refuse!(use_proxy_proto);
    let (filters, terminal) = network::chain(filters)?;
    fits(&terminal, quic).at("filters")?;
    if quic && transport_socket.is_none() {
        return Err(Refusal::new("transport_socket", "missing: QUIC is never plain"));
    }
    Ok(FilterChain {
        name: name.into(),
        matches: chain_match(filter_chain_match.unwrap_or_default()).at("filter_chain_match")?,
        tls: transport_socket.map(|t| transport(t, quic)).transpose().at("transport_socket")?.flatten().map(Arc::new),
        tls_timeout: opt_duration(transport_socket_connect_timeout.as_ref(), "transport_socket_connect_timeout")?,
        filters,
        terminal,
        metadata: metadata(meta.as_ref()).at("metadata")?,
    })
}

/// HTTP/3 is what is spoken over QUIC, and nowhere else.
fn fits(terminal: &Terminal, quic: bool) -> Decoded<()> {
    let http3 = matches!(terminal, Terminal::Http(hcm) if hcm.codec == Codec::Http3);
    match (http3, quic) {
        (true, false) => Err(Refusal::new("codec_type", "HTTP3 on a listener without QUIC")),
        (false, true) => Err(Refusal::new("codec_type", "a listener with QUIC serves HTTP3")),
        _ => Ok(()),
    }
}

fn quic(message: pb::UdpListenerConfig) -> Decoded<QuicSettings> {
    let pb::UdpListenerConfig { downstream_socket_config, quic_options, udp_packet_packet_writer_config } = message;
    // How datagrams are read and written is our own affair.
    let _ = (downstream_socket_config, udp_packet_packet_writer_config);
    let options = quic_options.ok_or_else(|| Refusal::unsupported("datagrams without quic_options"))?;
    quic_options_of(options).at("quic_options")
}

fn quic_options_of(message: pb::QuicProtocolOptions) -> Decoded<QuicSettings> {
    let pb::QuicProtocolOptions {
        quic_protocol_options,
        idle_timeout,
        crypto_handshake_timeout,
        enabled,
        packets_to_read_to_connection_count_ratio,
        crypto_stream_config,
        proof_source_config,
        connection_id_generator_config,
        server_preferred_address_config,
        send_disable_active_migration,
        connection_debug_visitor_config,
        save_cmsg_config,
        reject_new_connections,
        max_sessions_per_event_loop,
    } = message;
    refuse!(proof_source_config, server_preferred_address_config, connection_debug_visitor_config, save_cmsg_config);
    refuse!(send_disable_active_migration);
    // Which streams carry the handshake and how connection ids are made is our own affair, as is how much is read at once.
    let _ = (crypto_stream_config, connection_id_generator_config);
    let _ = (packets_to_read_to_connection_count_ratio, max_sessions_per_event_loop);
    let enabled = enabled.is_none_or(|flag| bool_or(flag.default_value, true));
    Ok(QuicSettings {
        http3: super::protocol::quic(quic_protocol_options.unwrap_or_default()).at("quic_protocol_options")?,
        idle: opt_duration(idle_timeout.as_ref(), "idle_timeout")?.filter(|idle| !idle.is_zero()),
        handshake: opt_duration(crypto_handshake_timeout.as_ref(), "crypto_handshake_timeout")?,
        refuses: reject_new_connections || !enabled,
    })
}

/// `None` for plaintext.
fn transport(message: TransportSocket, quic: bool) -> Decoded<Option<DownstreamTls>> {
    let Some(SocketConfig::TypedConfig(config)) = message.config_type else {
        return if message.name == "envoy.transport_sockets.raw_buffer" {
            Ok(None)
        } else {
            Err(Refusal::new("typed_config", format!("missing for {}", message.name)))
        };
    };
    let kind = type_name(&config);
    if quic != (kind == QuicDownstreamTransport::full_name()) {
        return Err(Refusal::new("typed_config", "QUIC needs its own transport, and nothing else takes that"));
    }
    if kind == RawBuffer::full_name() {
        Ok(None)
    } else if kind == DownstreamTlsContext::full_name() {
        tls::downstream(unpack(&config)?).map(Some).at("typed_config")
    } else if kind == QuicDownstreamTransport::full_name() {
        let QuicDownstreamTransport { downstream_tls_context, enable_early_data, enable_resumption } = unpack(&config)?;
        // 0-RTT can be replayed; it stays off.
        let _ = enable_early_data;
        let context =
            downstream_tls_context.ok_or_else(|| Refusal::new("typed_config.downstream_tls_context", "missing"))?;
        let mut context = tls::downstream(context).at("typed_config.downstream_tls_context")?;
        context.disable_tickets |= !bool_or(enable_resumption, true);
        Ok(Some(context))
    } else {
        Err(Refusal::unsupported(format!("typed_config.{kind}")))
    }
}

fn chain_match(message: pb::FilterChainMatch) -> Decoded<FilterChainMatch> {
    let source_type = match message.source_type() {
        ConnectionSourceType::Any => SourceType::Any,
        ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
        ConnectionSourceType::External => SourceType::External,
    };
    let pb::FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type: _,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = message;
    refuse!(address_suffix, suffix_len);
    for (at, name) in server_names.iter().enumerate() {
        if name.trim_start_matches("*.").contains('*') || name == "*" {
            return Err(Refusal::new(format!("server_names[{at}]"), "a star may only stand for the first labels"));
        }
    }
    distinct(&server_names, "server_names")?;
    distinct(&application_protocols, "application_protocols")?;
    distinct(&prefix_ranges, "prefix_ranges")?;
    distinct(&direct_source_prefix_ranges, "direct_source_prefix_ranges")?;
    distinct(&source_prefix_ranges, "source_prefix_ranges")?;
    distinct(&source_ports, "source_ports")?;
    let ports = source_ports.iter().map(|value| port(*value)).collect::<Result<Box<[u16]>, _>>();
    Ok(FilterChainMatch {
        destination_port: within(destination_port, 1..=65_535, "destination_port")?
            .map(port)
            .transpose()
            .at("destination_port")?,
        destinations: address::ranges(prefix_ranges, "prefix_ranges")?,
        server_names: server_names.iter().map(|name| Arc::from(name.to_ascii_lowercase())).collect(),
        transport_protocol: transport_protocol.into(),
        application_protocols: texts(&application_protocols),
        direct_sources: address::ranges(direct_source_prefix_ranges, "direct_source_prefix_ranges")?,
        source_type,
        sources: address::ranges(source_prefix_ranges, "source_prefix_ranges")?,
        source_ports: ports.at("source_ports")?,
    })
}

fn listener_filter(message: pb::ListenerFilter) -> Decoded<ListenerFilter> {
    let pb::ListenerFilter { name, filter_disabled, config_type } = message;
    refuse!(filter_disabled);
    let name = filled(name).at("name")?;
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(source)) => {
            return super::extension::source(&name, source).map(ListenerFilter::Discovered).at("config_discovery");
        }
        None => return Err(Refusal::new("typed_config", format!("missing for {name}"))),
    };
    let known = known_filter(&config).at("typed_config")?;
    known.ok_or_else(|| Refusal::unsupported(format!("{name} ({})", inner_type(&config))))
}

/// `None` for filters that we do not have.
pub(super) fn known_filter(config: &Any) -> Decoded<Option<ListenerFilter>> {
    let kind = type_name(config);
    Ok(Some(if kind == TlsInspector::full_name() {
        tls_inspector(unpack(config)?)?
    } else if kind == HttpInspector::full_name() {
        ListenerFilter::HttpInspector
    } else if kind == OriginalDst::full_name() {
        ListenerFilter::OriginalDst
    } else if kind == ProxyProtocol::full_name() {
        ListenerFilter::ProxyProtocol(proxy_protocol(unpack(config)?)?)
    } else {
        return Ok(None);
    }))
}

fn tls_inspector(message: TlsInspector) -> Decoded<ListenerFilter> {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = message;
    if bool_or(enable_ja3_fingerprinting, false) {
        return Err(Refusal::unsupported("enable_ja3_fingerprinting"));
    }
    if bool_or(enable_ja4_fingerprinting, false) {
        return Err(Refusal::unsupported("enable_ja4_fingerprinting"));
    }
    // How a hello is read is our own affair, and a broken one is always the end of a connection.
    let _ = (initial_read_buffer_size, close_connection_on_client_hello_parsing_errors, max_client_hello_size);
    Ok(ListenerFilter::TlsInspector)
}

fn proxy_protocol(message: ProxyProtocol) -> Decoded<ProxyProtocolSettings> {
    let ProxyProtocol {
        rules,
        allow_requests_without_proxy_protocol,
        pass_through_tlvs,
        disallowed_versions,
        stat_prefix,
        tlv_location,
    } = message;
    refuse!(rules, tlv_location);
    // What else a header brings is passed on to nobody.
    let _ = (stat_prefix, pass_through_tlvs);
    let denied = |version: Version| disallowed_versions.contains(&(version as i32));
    let (deny_v1, deny_v2) = (denied(Version::V1), denied(Version::V2));
    if deny_v1 && deny_v2 {
        return Err(Refusal::new("disallowed_versions", "no version is left"));
    }
    Ok(ProxyProtocolSettings { optional: allow_requests_without_proxy_protocol, deny_v1, deny_v2 })
}
