//! WebSocket through gateways: over HTTP/1, over extended CONNECT between two gateways, and by clients that come with
//! HTTP/2 and HTTP/3. Both peers are libraries of others.

use crate::serve;
use std::{net::SocketAddr, process::Stdio};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tombolo_controlplane_api::xds::google::protobuf::Duration;
use tombolo_tests_kit::{free, peers};
use tombolo_tests_protocols::{certificates::Authority, resources};

const PACKAGES: &[&str] = &["websockets==17.4", "wsproto==1.3.2", "h2==4.4.1", "aioquic==1.3.0"];
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/websocket.py");
/// Cases that the script has at least.
const CASES: usize = 200;

/// The server's process and where it listens.
async fn server(python: &std::path::Path) -> (Child, SocketAddr) {
    let mut child = Command::new(python)
        .args([SCRIPT, "server"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port: u16 = lines.next_line().await.unwrap().expect("a port").parse().unwrap();
    (child, ([127, 0, 0, 1], port).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn independent_peers_talk_through_gateways() {
    if peers::left_out() {
        return;
    }
    let python = tokio::task::spawn_blocking(|| peers::python(PACKAGES)).await.unwrap().unwrap();
    let (_server, origin) = server(&python).await;
    let authority = Authority::new().unwrap();
    let own = authority.sign(&["localhost"]).unwrap();
    let manager = |cluster| {
        let mut hcm = resources::manager(cluster);
        resources::allow_upgrade(&mut hcm, "websocket");
        hcm
    };
    let mut impatient = manager("server");
    impatient.stream_idle_timeout = Some(Duration { seconds: 0, nanos: 300_000_000 });
    let [one, pair, two, three, closed, idle] = std::array::from_fn(|_| free());
    let (gateway, _ads) = serve(vec![
        resources::http1_cluster("server", origin),
        resources::http2_cluster("second gateway", two),
        resources::plain_listener("one", one, manager("server")),
        resources::plain_listener("pair", pair, manager("second gateway")),
        resources::plain_listener("two", two, manager("server")),
        resources::http3_listener("three", three, resources::server_tls(&own, None), manager("server")),
        resources::plain_listener("closed", closed, resources::manager("server")),
        resources::plain_listener("idle", idle, impatient),
    ])
    .await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &authority.root).unwrap();
    let places = [("one", one), ("pair", pair), ("two", two), ("three", three), ("closed", closed), ("idle", idle)];
    let output = Command::new(&python)
        .args([SCRIPT, "client"])
        .args(places.map(|(name, at)| format!("{name}={}", at.port())))
        .arg(&root)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    peers::judge(&output, CASES);
    gateway.is_whole().await.unwrap();
}
