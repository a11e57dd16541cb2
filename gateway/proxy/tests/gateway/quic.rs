//! Clients over QUIC while the configuration changes.

use crate::{
    build::{self, address, hcm, http_chain, routes},
    process::{Gateway, Options, PATIENCE, eventually},
    tls::{Authority, Leaf, authority, certificate, install},
};
use quinn::{ClientConfig, Connection, Endpoint, crypto::rustls::QuicClientConfig};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::timeout;
use tombolo_controlplane_api::{
    util::pack_any,
    xds::envoy::{
        config::{
            core::v3::{Address, address as at},
            listener::v3::{Listener, QuicProtocolOptions, UdpListenerConfig},
        },
        extensions::{
            filters::network::http_connection_manager::v3::http_connection_manager::CodecType,
            transport_sockets::{
                quic::v3::QuicDownstreamTransport,
                tls::v3::{CommonTlsContext, DownstreamTlsContext},
            },
        },
    },
};
use tombolo_tests_kit::{ads::Ads, free};

fn over_udp(place: SocketAddr) -> Address {
    let mut address = address(place);
    let Some(at::Address::SocketAddress(socket)) = &mut address.address else { panic!("no socket") };
    socket.protocol = 1;
    address
}

fn listener(name: &str, place: SocketAddr, leaf: &Leaf) -> Listener {
    let mut hcm = hcm("r");
    hcm.codec_type = CodecType::Http3 as i32;
    let common = CommonTlsContext { tls_certificates: vec![certificate(leaf)], ..Default::default() };
    let tls = DownstreamTlsContext { common_tls_context: Some(common), ..Default::default() };
    let transport = QuicDownstreamTransport { downstream_tls_context: Some(tls), ..Default::default() };
    let mut chain = http_chain(hcm);
    chain.transport_socket = Some(build::socket("envoy.transport_sockets.quic", pack_any(transport)));
    let quic = QuicProtocolOptions::default();
    Listener {
        name: name.into(),
        address: Some(over_udp(place)),
        filter_chains: vec![chain],
        udp_listener_config: Some(UdpListenerConfig { quic_options: Some(quic), ..Default::default() }),
        ..Default::default()
    }
}

async fn connect(endpoint: &Endpoint, to: SocketAddr, authority: &Authority, name: &str) -> Option<Connection> {
    connect_in(PATIENCE, endpoint, to, authority, name).await
}

async fn connect_in(
    patience: Duration,
    endpoint: &Endpoint,
    to: SocketAddr,
    authority: &Authority,
    name: &str,
) -> Option<Connection> {
    let mut tls = rustls::ClientConfig::builder().with_root_certificates(authority.store()).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut settings = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(1)));
    transport.max_idle_timeout(Some(PATIENCE.try_into().unwrap()));
    settings.transport_config(Arc::new(transport));
    let connecting = endpoint.connect_with(settings, to, name).unwrap();
    timeout(patience, connecting).await.ok()?.ok()
}

/// Clients of the listener before may stay for long: those who come are served all the same, and who is there is not cut off.
#[tokio::test]
async fn a_listener_in_anothers_place_is_served_beside_those_who_stay() {
    install();
    let authority = authority();
    let ads = Ads::start().await;
    let place = free();
    ads.set([("r", routes("r", &[]))]);
    ads.set([("one", listener("one", place, &authority.leaf(&["one.test"])))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut stay = Vec::new();
    for _ in 0..8 {
        let connection = connect(&endpoint, place, &authority, "one.test").await.unwrap();
        // A request that has begun and goes on for long.
        let (mut request, answer) = connection.open_bi().await.unwrap();
        request.write_all(&[1]).await.unwrap();
        stay.push((connection, request, answer));
    }
    ads.set([("two", listener("two", place, &authority.leaf(&["two.test"])))]);
    eventually("the other listener is served", async || {
        connect_in(Duration::from_secs(2), &endpoint, place, &authority, "two.test").await.is_some()
    })
    .await;
    for _ in 0..8 {
        assert!(connect(&endpoint, place, &authority, "two.test").await.is_some());
    }
    assert!(stay.iter().all(|(connection, ..)| connection.close_reason().is_none()));
}
