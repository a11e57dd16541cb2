//! How names of headers are spelled on their way.

use crate::{
    build::{cluster, hcm, http_chain, listener},
    process::{Gateway, Options},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::envoy::{
        config::core::v3::{
            Http1ProtocolOptions, TypedExtensionConfig,
            http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat},
        },
        extensions::{
            http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig,
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                },
            },
        },
    },
};
use tombolo_tests_kit::{ads::Ads, free};

fn as_spelled() -> Http1ProtocolOptions {
    let formatter = TypedExtensionConfig {
        name: "preserve_case".into(),
        typed_config: Some(pack_any(PreserveCaseFormatterConfig::default())),
    };
    let format = HeaderKeyFormat { header_format: Some(HeaderFormat::StatefulFormatter(formatter)) };
    Http1ProtocolOptions { header_key_format: Some(format), ..Default::default() }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn names_reach_the_other_side_as_they_were_spelled() {
    let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = origin.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        let (mut stream, _) = origin.accept().await.unwrap();
        let seen = head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-aNSWER: 1\r\nContent-LENGTH: 0\r\n\r\n").await.unwrap();
        seen
    });
    let ads = Ads::start().await;
    let at = free();
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::HttpProtocolOptions(as_spelled())),
        })),
        ..Default::default()
    };
    let mut upstream = cluster("a");
    upstream
        .typed_extension_protocol_options
        .insert("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(), pack_any(options));
    crate::http::show(&ads, at, address);
    ads.set([("a", upstream)]);
    let mut manager = hcm("r");
    manager.http_protocol_options = Some(as_spelled());
    ads.set([("l", listener("l", at, vec![http_chain(manager)]))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;

    let mut client = TcpStream::connect(at).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHOST: h\r\nX-oDd: 1\r\nx-small: 2\r\n\r\n").await.unwrap();
    let answer = head(&mut client).await;
    let seen = answering.await.unwrap();
    for line in ["\r\nHOST: h\r\n", "\r\nX-oDd: 1\r\n", "\r\nx-small: 2\r\n", "\r\nx-forwarded-proto: http\r\n"] {
        assert!(seen.contains(line), "{line:?} in {seen}");
    }
    for line in ["\r\nX-aNSWER: 1\r\n", "\r\nContent-LENGTH: 0\r\n", "\r\nserver: envoy\r\n"] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
}
