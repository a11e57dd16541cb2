//! aioquic as the client: what must work, and every broken rule with the end that it asks for.

use super::{GATEWAY, World};
use std::{net::SocketAddr, path::Path};
use tokio::process::Command;
use tombolo_controlplane_api::util::pack_any;
use tombolo_tests_kit::{free, peers};
use tombolo_tests_protocols::{certificates::Authority, resources, scripted::Scripted, world};

/// The version that the script is written against.
const PACKAGE: &str = "aioquic==1.3.0";
/// Cases that the script has at least; fewer would say that it ended early.
const CASES: usize = 120;

/// What the script says at a gateway, and what memory the gateway took meanwhile.
async fn play(more: &[&str], least: usize) -> Option<u64> {
    if peers::left_out() {
        return None;
    }
    let world = World::start(2).await;
    let before = world.gateway.most_memory().unwrap();
    run(world.at, &world.authority, more, least).await;
    world.gateway.is_whole().await.unwrap();
    Some(world.gateway.most_memory().unwrap().saturating_sub(before))
}

/// The script against what listens there, which has a certificate of this authority.
async fn run(at: SocketAddr, authority: &Authority, more: &[&str], least: usize) {
    let python = tokio::task::spawn_blocking(|| peers::python(&[PACKAGE])).await.unwrap().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &authority.root).unwrap();
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/http3.py"))
        .args([at.ip().to_string(), at.port().to_string()])
        .arg(&root)
        .args(more)
        .output()
        .await
        .unwrap();
    peers::judge(&output, least);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_client_agrees() {
    play(&[], CASES).await;
}

/// Gaps in streams, connection ids without number, hellos from forged addresses: each costs what it may and nobody else
/// notices.
#[tokio::test(flavor = "multi_thread")]
async fn floods_stay_small() {
    let more = play(&["floods"], 4).await;
    assert!(more.is_none_or(|bytes| bytes < 32 << 20), "{more:?} bytes more");
}

/// The server ends in the middle of a body, with what it said before: that arrives, and then the reset.
#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_is_passed_on() {
    if peers::left_out() {
        return;
    }
    let authority = Authority::new().unwrap();
    let own = authority.sign(&["localhost", "127.0.0.1"]).unwrap();
    let (at, origin) = (free(), Scripted::start().await.unwrap());
    let resources = vec![
        pack_any(resources::raw_cluster("origin", resources::tcp_address(origin.address))),
        resources::http3_listener("h3", at, resources::server_tls(&own, None), resources::manager("origin")),
    ];
    let (gateway, _ads) = world::serve(GATEWAY, 1, resources).await.unwrap();
    run(at, &authority, &["half"], 2).await;
    gateway.is_whole().await.unwrap();
}
