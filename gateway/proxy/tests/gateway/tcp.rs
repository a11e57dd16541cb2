//! Bytes through the gateway.

use crate::{
    build::{self, cluster, endpoints, inspecting, listener, tcp_chain},
    client::get,
    origin::Origin,
    process::{Gateway, Options, eventually},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{envoy::extensions::filters::network::connection_limit::v3::ConnectionLimit, google::protobuf::UInt64Value},
};
use tombolo_tests_kit::{ads::Ads, free};

#[tokio::test]
async fn bytes_pass_and_halves_close_apart() {
    let origin = Origin::tcp().await;
    let ads = Ads::start().await;
    let at = free();
    ads.set([("a", cluster("a"))]);
    ads.set([("a", endpoints("a", &[origin.address]))]);
    ads.set([("l", listener("l", at, vec![tcp_chain("a")]))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    let sent = "quiet ".repeat(50_000);
    let (mut read, mut write) = stream.split();
    let (answer, ()) = tokio::join!(
        async {
            let mut answer = String::new();
            read.read_to_string(&mut answer).await.unwrap();
            answer
        },
        async {
            write.write_all(sent.as_bytes()).await.unwrap();
            write.shutdown().await.unwrap();
        }
    );
    assert_eq!(answer, sent.to_uppercase());
}

/// What a server answers to a word, nothing when the connection is closed.
async fn says(stream: &mut TcpStream) -> String {
    let mut answer = [0; 5];
    let said = async {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut answer).await
    };
    if said.await.is_ok() { String::from_utf8_lossy(&answer).into_owned() } else { String::new() }
}

#[tokio::test]
async fn a_chain_has_no_more_connections_than_it_may() {
    let origin = Origin::tcp().await;
    let ads = Ads::start().await;
    let at = free();
    ads.set([("a", cluster("a"))]);
    ads.set([("a", endpoints("a", &[origin.address]))]);
    let limit = ConnectionLimit {
        stat_prefix: "x".into(),
        max_connections: Some(UInt64Value { value: 2 }),
        ..Default::default()
    };
    let mut chain = tcp_chain("a");
    chain.filters.insert(0, build::filter("envoy.filters.network.connection_limit", pack_any(limit)));
    ads.set([("l", listener("l", at, vec![chain]))]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        assert_eq!(says(&mut stream).await, "HELLO");
        served.push(stream);
    }
    assert_eq!(says(&mut TcpStream::connect(at).await.unwrap()).await, "");
    assert_eq!(says(&mut served[1]).await, "HELLO");
    served.pop();
    eventually("a place is free again", async || says(&mut TcpStream::connect(at).await.unwrap()).await == "HELLO")
        .await;
}

#[tokio::test]
async fn who_was_still_looked_at_when_the_listener_changed_is_served_by_what_it_is_now() {
    let origin = Origin::tcp().await;
    let ads = Ads::start().await;
    let at = free();
    ads.set([("a", cluster("a")), ("none", cluster("none"))]);
    ads.set([("a", endpoints("a", &[origin.address])), ("none", endpoints("none", &[]))]);
    ads.set([("l", inspecting(listener("l", at, vec![tcp_chain("a")])))]);
    let gateway = Gateway::ready(&Options::new(ads.address)).await;
    let mut silent = TcpStream::connect(at).await.unwrap();
    eventually("the silent one is looked at", async || {
        get(gateway.admin, "/metrics").await.unwrap().body.contains("\ntombolo_gateway_downstream_connections 1\n")
    })
    .await;
    // What the listener allowed before, it allows no longer.
    ads.set([("l", inspecting(listener("l", at, vec![tcp_chain("none")])))]);
    eventually("it changed", async || says(&mut TcpStream::connect(at).await.unwrap()).await.is_empty()).await;
    assert_eq!(says(&mut silent).await, "");
}
