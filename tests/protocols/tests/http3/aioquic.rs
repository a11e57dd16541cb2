//! aioquic as the client: what must work, and every broken rule with the end that it asks for.

use super::World;
use tokio::process::Command;
use tombolo_tests_kit::peers;

/// The version that the script is written against.
const PACKAGE: &str = "aioquic==1.3.0";
/// Cases that the script has at least; fewer would say that it ended early.
const CASES: usize = 120;

/// What the script says at a gateway, and what memory the gateway took meanwhile.
async fn play(more: &[&str], least: usize) -> Option<u64> {
    if peers::left_out() {
        return None;
    }
    let python = tokio::task::spawn_blocking(|| peers::python(&[PACKAGE])).await.unwrap().unwrap();
    let world = World::start(2).await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, &world.authority.root).unwrap();
    let before = world.gateway.most_memory().unwrap();
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/http3.py"))
        .args([world.at.ip().to_string(), world.at.port().to_string()])
        .arg(&root)
        .args(more)
        .output()
        .await
        .unwrap();
    peers::judge(&output, least);
    world.gateway.is_whole().await.unwrap();
    Some(world.gateway.most_memory().unwrap().saturating_sub(before))
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
