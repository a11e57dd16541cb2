//! Connections that were on their way elsewhere: redirected by the kernel to a gateway that asks where they were going,
//! over IPv4 and IPv6, in a network namespace of the test's own.

use crate::{serve, sink::Sink};
use socket2::{Domain, Socket, Type};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                cluster::v3::{
                    Cluster,
                    cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
                },
                core::v3::CidrRange,
                listener::v3::{FilterChainMatch, Listener},
            },
            extensions::filters::listener::original_dst::v3::OriginalDst,
        },
        google::protobuf::UInt32Value,
    },
};
use tombolo_tests_protocols::{
    recorder::{Recorder, Seen},
    resources,
    wire1::{PATIENCE, Wire},
    world,
};

/// Said to the test within the namespace.
const INSIDE: &str = "TOMBOLO_TESTS_INSIDE";
const REDIRECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/redirect.py");
/// Where redirected connections arrive.
const DOOR: u16 = 15001;
const MARK: u32 = 1;

/// How to get a namespace here: unshare's arguments; `None` where the kernel forbids it.
async fn namespace() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&["--net"], &["--map-root-user", "--net"]];
    for way in ways {
        let tried = Command::new("unshare").args(way).arg("true").output().await;
        if tried.is_ok_and(|output| output.status.success()) {
            return Some(way);
        }
    }
    None
}

#[tokio::test]
async fn captured_connections_go_where_they_were_going() {
    let Some(way) = namespace().await else {
        return world::left_out("the kernel gives this test no network namespace, so nothing was captured").unwrap();
    };
    let test: PathBuf = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(way)
        .arg("sh")
        .args(["-c", &format!("python3 {REDIRECT} {DOOR} {MARK} && exec \"$0\" \"$@\"")])
        .arg(test)
        .args(["capture::within_a_namespace", "--exact", "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(300), output).await.unwrap().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// Everything goes on to where it was going, except for what goes to one address, which goes nowhere, and to one port,
/// which is HTTP.
fn door(name: &str, at: &str, http: u16) -> Listener {
    let mut listener = resources::tcp_listener(name, at.parse().unwrap(), "pass");
    listener.listener_filters = vec![resources::listener_filter(pack_any(OriginalDst {}))];
    let mut hole = resources::tcp_chain("hole");
    let range = |ip: &str| CidrRange { address_prefix: ip.into(), prefix_len: Some(UInt32Value { value: 32 }) };
    hole.filter_chain_match = Some(FilterChainMatch { prefix_ranges: vec![range("127.0.0.3")], ..Default::default() });
    hole.name = "hole".into();
    let mut web =
        resources::http_listener(name, at.parse().unwrap(), resources::manager("pass")).filter_chains.remove(0);
    web.filter_chain_match =
        Some(FilterChainMatch { destination_port: Some(UInt32Value { value: u32::from(http) }), ..Default::default() });
    web.name = "web".into();
    listener.filter_chains.extend([hole, web]);
    listener
}

/// A connection of a captured client.
async fn captured(to: &str) -> std::io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_mark(MARK)?;
    socket.set_nonblocking(true)?;
    let stream = tokio::net::TcpSocket::from_std_stream(socket.into());
    stream.connect(to).await
}

/// What the server says it read; nothing when the connection ends.
async fn said(mut stream: TcpStream) -> String {
    let mut read = Vec::new();
    let _ = stream.write_all(b"payload").await;
    let _ = stream.shutdown().await;
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("the connection ends");
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs within the namespace of the test above"]
async fn within_a_namespace() {
    assert!(std::env::var_os(INSIDE).is_some(), "not within a namespace");
    let (four, six) = (Sink::at("127.0.0.2:0").await, Sink::at("[::1]:0").await);
    let recorder = Recorder::http1().await.unwrap();
    let http = recorder.address.port();
    let mut pass = Cluster { name: "pass".into(), lb_policy: LbPolicy::ClusterProvided as i32, ..Default::default() };
    pass.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32));
    let hole = Cluster {
        name: "hole".into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        ..Default::default()
    };
    let (gateway, _ads) = serve(vec![
        pack_any(pass),
        pack_any(hole),
        pack_any(door("four", &format!("0.0.0.0:{DOOR}"), http)),
        pack_any(door("six", &format!("[::]:{DOOR}"), http)),
    ])
    .await;
    for sink in [&four, &six] {
        for _ in 0..3 {
            assert_eq!(said(captured(&sink.address.to_string()).await.unwrap()).await, "payload");
        }
        assert_eq!(sink.taken(), 3, "{}", sink.address);
    }
    // The black hole, a port where nobody listens, and clients that come to the door by themselves.
    for to in [&format!("127.0.0.3:{}", four.address.port()), "127.0.0.2:9", "[::1]:9"] {
        assert_eq!(said(captured(to).await.unwrap()).await, "", "{to}");
    }
    for to in [format!("127.0.0.1:{DOOR}"), format!("[::1]:{DOOR}"), format!("127.0.0.2:{DOOR}")] {
        assert_eq!(said(TcpStream::connect(&to).await.unwrap()).await, "", "{to}");
        assert_eq!(said(captured(&to).await.unwrap()).await, "", "{to}, captured");
    }
    assert_eq!((four.taken(), six.taken()), (3, 3));
    // HTTP is read on its way, and goes on to where it was going whatever it says of hosts.
    let mut wire = Wire::new(captured(&recorder.address.to_string()).await.unwrap());
    for path in ["/one", "/two"] {
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: elsewhere\r\n\r\n").as_bytes()).await;
        assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 200);
        let seen = recorder.take();
        assert!(matches!(&seen[0], Seen::Head(head) if head.target == path && head.host == "elsewhere"), "{seen:?}");
    }
    gateway.is_whole().await.unwrap();
}
