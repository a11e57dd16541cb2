//! How an upstream speaks HTTP.

use super::{
    pb::{any, duration, uint},
    wire::{core, protobuf, upstream_http},
};
use crate::intent::ConnectionPool;
use std::collections::HashMap;
use upstream_http::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};

const NAME: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

type Options = HashMap<String, protobuf::Any>;

/// Options by connection pool. `repeats`: the client's protocol is used; `dynamic`: the upstream resolves the host of each request, so
/// that a TLS server must be asked for, and prove to be, that host.
pub(super) fn of(pool: &ConnectionPool, http2: bool, repeats: bool, dynamic: bool) -> Options {
    let http2_options = core::Http2ProtocolOptions {
        max_concurrent_streams: pool.max_concurrent_streams.and_then(uint),
        ..Default::default()
    };
    let protocol = if repeats { repeating(http2_options) } else { explicit(http2.then_some(http2_options)) };
    let host_is_name =
        core::UpstreamHttpProtocolOptions { auto_sni: true, auto_san_validation: true, ..Default::default() };
    let options = upstream_http::HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: pool.http_idle_timeout.map(duration),
            max_connection_duration: pool.max_connection_duration.map(duration),
            max_requests_per_connection: pool.max_requests_per_connection.filter(|n| *n > 0).and_then(uint),
            ..Default::default()
        }),
        upstream_http_protocol_options: dynamic.then_some(host_is_name),
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    HashMap::from([(NAME.to_owned(), any(&options))])
}

/// For the application beside a sidecar: `None` repeats the protocol of the client.
pub(super) fn of_application(http2: Option<bool>) -> Options {
    of(&ConnectionPool::default(), http2 == Some(true), http2.is_none(), false)
}

fn explicit(http2: Option<core::Http2ProtocolOptions>) -> UpstreamProtocolOptions {
    let config = match http2 {
        Some(options) => ProtocolConfig::Http2ProtocolOptions(options),
        None => ProtocolConfig::HttpProtocolOptions(core::Http1ProtocolOptions::default()),
    };
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

fn repeating(http2: core::Http2ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(core::Http1ProtocolOptions::default()),
        http2_protocol_options: Some(http2),
        http3_protocol_options: None,
    })
}
