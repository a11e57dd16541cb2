//! Where a gateway listens: when it does, and other places than IPv4, which are Unix sockets and IPv6, on either side.

use crate::{GATEWAY, serve, sink::Sink};
use std::{
    net::{Ipv6Addr, SocketAddr},
    path::Path,
};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::core::v3::{address, proxy_protocol_config::Version},
            extensions::filters::listener::proxy_protocol::v3::ProxyProtocol,
        },
        google::protobuf::Any,
    },
};
use tombolo_tests_kit::{ads::Ads, free};
use tombolo_tests_protocols::{
    certificates::Authority,
    gateway::Gateway,
    recorder::Recorder,
    resources::{self, pipe},
    wire1::Wire,
    world::{self, Place, Probe},
};

const REQUEST: &[u8] = b"GET /probe HTTP/1.1\r\nhost: a\r\n\r\n";

/// A server that listens on a Unix socket and hands every connection to another.
fn behind(path: &Path, recorder: &Recorder) {
    let (listener, to) = (UnixListener::bind(path).unwrap(), recorder.address);
    tokio::spawn(async move {
        while let Ok((mut one, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut two) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut one, &mut two).await;
                }
            });
        }
    });
}

/// More listeners than can be opened between a `/ready` that is believed and a connection.
const MANY: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_that_it_is_ready_can_connect() {
    let places: Vec<SocketAddr> = (0..MANY).map(|_| free()).collect();
    let resources = places.iter().map(|at| pack_any(resources::tcp_listener(&at.to_string(), *at, "none")));
    let (_gateway, _ads) = serve(resources.collect()).await;
    for at in places {
        TcpStream::connect(at).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_are_served_and_reached() {
    let folder = tempfile::tempdir().unwrap();
    let (door, origin) = (folder.path().join("door"), folder.path().join("origin"));
    let recorder = Recorder::http1().await.unwrap();
    behind(&origin, &recorder);
    let place = Place { at: free(), recorder };
    let mut http = resources::http_listener("door", place.at, resources::manager("origin"));
    http.address = Some(pipe(&door));
    let (gateway, _ads) = serve(vec![
        pack_any(resources::raw_cluster("origin", pipe(&origin))),
        pack_any(http),
        resources::plain_listener("tcp", place.at, resources::manager("origin")),
    ])
    .await;
    Probe::open(place.at).await.unwrap().ask().await.unwrap();
    let mut wire = Wire::new(UnixStream::connect(&door).await.unwrap());
    for _ in 0..3 {
        wire.send(REQUEST).await;
        assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 200);
    }
    wire.send(b"GET / HTTP/1.1\nhost: a\n\n").await;
    assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 400);
    gateway.is_whole().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_served_without_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (door, origin) = (folder.path().join("door"), folder.path().join("origin"));
    let at = free();
    let listener = |change: &dyn Fn(&mut tombolo_controlplane_api::xds::envoy::config::listener::v3::Listener)| -> Any {
        let mut listener = resources::http_listener("door", at, resources::manager("origin"));
        listener.address = Some(pipe(&door));
        change(&mut listener);
        pack_any(listener)
    };
    let own = Authority::new().unwrap().sign(&["localhost"]).unwrap();
    let tls = listener(&|listener| {
        listener.filter_chains[0].transport_socket = resources::tls_socket(resources::server_tls(&own, None));
    });
    let header = listener(&|listener| {
        listener.listener_filters = vec![resources::listener_filter(pack_any(ProxyProtocol::default()))];
    });
    for (resource, wanted) in [(tls, "no TLS over a Unix socket"), (header, "not over a Unix socket")] {
        let ads = Ads::start().await;
        ads.set_any([resource]);
        let ready = Gateway::ready(Path::new(GATEWAY), ads.address, 1);
        tokio::pin!(ready);
        let refusal = tokio::select! {
            refusal = ads.refused(wanted) => refusal.1,
            _ = async { let _gateway = ready.as_mut().await; std::future::pending::<()>().await } => unreachable!(),
        };
        assert!(refusal.contains(wanted), "{refusal}");
    }
    // A cluster that wants a header does without its Unix endpoint rather than without the header.
    let recorder = Recorder::http1().await.unwrap();
    behind(&origin, &recorder);
    let mut cluster = resources::raw_cluster("origin", pipe(&origin));
    cluster.transport_socket = resources::proxy_socket(Version::V1);
    let (_gateway, _ads) =
        serve(vec![pack_any(cluster), resources::plain_listener("tcp", at, resources::manager("origin"))]).await;
    let mut wire = Wire::new(TcpStream::connect(at).await.unwrap());
    wire.send(REQUEST).await;
    assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 503);
    assert!(recorder.take().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_is_served_and_reached() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return world::left_out("this machine has no IPv6").unwrap();
    }
    let at = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), free().port());
    let sink = Sink::at("[::1]:0").await;
    let mut told = resources::raw_cluster("told", resources::tcp_address(sink.address));
    told.transport_socket = resources::proxy_socket(Version::V1);
    let (_gateway, _ads) = serve(vec![pack_any(told), pack_any(resources::tcp_listener("six", at, "told"))]).await;
    let (port, read) = crate::sink::told(at, [b"payload"]).await;
    let expected = format!("PROXY TCP6 ::1 ::1 {port} {}\r\npayload", at.port());
    assert_eq!(String::from_utf8_lossy(&read), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_address_of_ipv6_is_not_every_address_of_ipv4_unless_that_is_asked_for() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return world::left_out("this machine has no IPv6").unwrap();
    }
    let recorder = Recorder::http1().await.unwrap();
    let listener = |name: &str, port: u16, compat: bool| {
        let at = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let mut listener = resources::http_listener(name, at, resources::manager("origin"));
        let place = listener.address.as_mut().and_then(|address| address.address.as_mut());
        let Some(address::Address::SocketAddress(place)) = place else { panic!("no address") };
        place.ipv4_compat = compat;
        pack_any(listener)
    };
    let (six, both, pair) = (free().port(), free().port(), free().port());
    let four = format!("0.0.0.0:{pair}").parse().unwrap();
    let (_gateway, _ads) = serve(vec![
        resources::http1_cluster("origin", recorder.address),
        listener("six", six, false),
        listener("both", both, true),
        listener("pair six", pair, false),
        resources::plain_listener("pair four", four, resources::manager("origin")),
    ])
    .await;
    for at in [format!("[::1]:{six}"), format!("[::1]:{both}"), format!("127.0.0.1:{both}")] {
        Probe::open(at.parse().unwrap()).await.unwrap().ask().await.unwrap();
    }
    for at in [format!("[::1]:{pair}"), format!("127.0.0.1:{pair}")] {
        Probe::open(at.parse().unwrap()).await.unwrap().ask().await.unwrap();
    }
    assert!(TcpStream::connect(format!("127.0.0.1:{six}")).await.is_err());
}
