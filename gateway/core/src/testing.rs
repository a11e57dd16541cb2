//! Small things that tests of several modules are made of.

use crate::{
    config::{
        Codec, Hcm, Http1Settings, Http2Settings, Limits, PathSettings, PortStripping, RequestId, RouteSource,
        ServerHeader, Timeouts, Underscores, Xfcc, XfccDetails,
    },
    head::{ConnInfo, Head},
};
use http::{HeaderName, HeaderValue};
use std::{sync::Arc, time::Duration};

pub(crate) fn head(path: &str, headers: &[(&str, &str)]) -> Head {
    let mut head = Head { authority: "svc.test".into(), path: path.into(), ..Head::default() };
    for (name, value) in headers {
        head.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    head
}

pub(crate) fn conn() -> ConnInfo {
    let peer = Some("127.0.0.1:40000".parse().unwrap());
    ConnInfo { remote: peer, direct_remote: peer, local: Some("127.0.0.1:80".parse().unwrap()), ..ConnInfo::default() }
}

pub(crate) fn hcm() -> Hcm {
    Hcm {
        stat_prefix: "t".into(),
        codec: Codec::Auto,
        routes: RouteSource::Named(Arc::from("t")),
        filters: Box::default(),
        access_logs: Box::default(),
        use_remote_address: false,
        trusted_hops: 0,
        skip_xff_append: false,
        internal: crate::config::InternalAddresses::default(),
        xfcc: Xfcc::Sanitize,
        xfcc_details: XfccDetails::default(),
        path: PathSettings::default(),
        strip_port: PortStripping::Keep,
        strip_trailing_dot: false,
        server_name: HeaderValue::from_static("envoy"),
        server_header: ServerHeader::Overwrite,
        via: None,
        append_x_forwarded_port: false,
        append_local_overload: false,
        scheme_overwrite: None,
        timeouts: Timeouts {
            idle: None,
            max_connection: None,
            max_stream: None,
            stream_idle: Some(Duration::from_secs(300)),
            request: None,
            request_headers: None,
            drain: Duration::from_secs(5),
            delayed_close: Duration::from_secs(1),
        },
        limits: Limits { headers_kb: 60, headers: 100, requests_per_connection: 0, underscores: Underscores::Allow },
        upgrades: Box::default(),
        request_id: RequestId { generate: true, preserve_external: false, in_response: false, pack_trace_reason: true },
        add_user_agent: false,
        proxy_100_continue: false,
        stream_error_on_invalid: false,
        http1: Http1Settings {
            accept_http_10: false,
            default_host: None,
            enable_trailers: false,
            proper_case: false,
            preserve_case: false,
            allow_chunked_length: false,
            allow_absolute_url: true,
            allow_custom_methods: false,
        },
        http2: Http2Settings {
            header_table_size: 4096,
            max_streams: None,
            stream_window: None,
            connection_window: None,
            allow_connect: false,
            stream_error_on_invalid: false,
            keepalive: None,
            max_outbound_frames: None,
        },
        http3: None,
        local_replies: Box::default(),
        local_reply_body: None,
        mesh_stats: false,
    }
}
