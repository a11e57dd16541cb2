//! Short constructors for messages that every kind of output uses.

use super::wire::{core, matcher, protobuf, types};
use crate::intent::{Fraction, TextMatch};
use prost::{Message, Name};
use std::{net::SocketAddr, time::Duration};
use tombolo_controlplane_api::node;

pub(super) fn duration(time: Duration) -> protobuf::Duration {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    protobuf::Duration { seconds, nanos: i32::try_from(time.subsec_nanos()).unwrap_or(0) }
}

pub(super) fn uint(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

pub(super) fn uint64(value: u64) -> Option<protobuf::UInt64Value> {
    Some(protobuf::UInt64Value { value })
}

pub(super) fn boolean(value: bool) -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value })
}

pub(super) fn any<T: Name + Message>(message: &T) -> protobuf::Any {
    protobuf::Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

pub(super) fn extension<T: Name + Message>(name: &str, message: &T) -> core::TypedExtensionConfig {
    core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(message)) }
}

pub(super) fn address(at: SocketAddr) -> core::Address {
    host_address(&at.ip().to_string(), at.port())
}

pub(super) fn host_address(host: &str, port: u16) -> core::Address {
    let socket = core::SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..Default::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

pub(super) fn pipe(path: &str) -> core::Address {
    let pipe = core::Pipe { path: path.to_owned(), mode: 0 };
    core::Address { address: Some(core::address::Address::Pipe(pipe)) }
}

/// From the same stream as everything else.
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// From the proxy's own side, which alone holds its private key.
pub(super) fn own_sds() -> core::ConfigSource {
    let grpc = core::grpc_service::EnvoyGrpc { cluster_name: node::SDS_UPSTREAM.to_owned(), ..Default::default() };
    let source = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core::ApiVersion::V3.into(),
        set_node_on_first_message_only: true,
        grpc_services: vec![core::GrpcService {
            target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
            ..Default::default()
        }],
        ..Default::default()
    };
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        initial_fetch_timeout: Some(protobuf::Duration::default()),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(source)),
        ..Default::default()
    }
}

pub(super) fn percent(value: f64) -> types::Percent {
    types::Percent { value }
}

pub(super) fn fraction(part: Fraction) -> types::FractionalPercent {
    types::FractionalPercent {
        numerator: part.0,
        denominator: types::fractional_percent::DenominatorType::Million.into(),
    }
}

pub(super) fn runtime_fraction(part: Fraction) -> core::RuntimeFractionalPercent {
    core::RuntimeFractionalPercent { default_value: Some(fraction(part)), runtime_key: String::new() }
}

pub(super) fn regex(pattern: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: pattern.to_owned(), engine_type: None }
}

/// `None` for a test of presence, which each place says in its own way.
pub(super) fn string_matcher(test: &TextMatch) -> Option<matcher::StringMatcher> {
    use matcher::string_matcher::MatchPattern;
    let pattern = match test {
        TextMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        TextMatch::Prefix(text) | TextMatch::SegmentPrefix(text) => MatchPattern::Prefix(text.clone()),
        TextMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern)),
        TextMatch::Present => return None,
    };
    Some(matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) })
}

pub(super) fn exact(text: &str) -> matcher::StringMatcher {
    let pattern = matcher::string_matcher::MatchPattern::Exact(text.to_owned());
    matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) }
}

pub(super) fn inline(text: &[u8]) -> core::DataSource {
    core::DataSource { specifier: Some(core::data_source::Specifier::InlineBytes(text.to_vec())), ..Default::default() }
}

pub(super) fn file(path: &str) -> core::DataSource {
    core::DataSource { specifier: Some(core::data_source::Specifier::Filename(path.to_owned())), ..Default::default() }
}

pub(super) fn transport_socket<T: Name + Message>(name: &str, message: &T) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(message))),
    }
}
