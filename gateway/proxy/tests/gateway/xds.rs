//! The gateway and its control plane.

use crate::{
    build::{cluster, endpoints, hcm, http_chain, listener, routes, to},
    client::{get, get_host},
    http::{show, simple},
    origin::Origin,
    process::{Gateway, Options, eventually},
};
use tombolo_tests_kit::{
    ads::{Ads, Settings},
    free,
};

#[tokio::test]
async fn both_variants_follow_changes() {
    for sotw in [false, true] {
        let (a, b) = (Origin::http1("a").await, Origin::http1("b").await);
        let ads = Ads::start().await;
        let at = free();
        ads.set([("c", cluster("c"))]);
        ads.set([("c", endpoints("c", &[a.address]))]);
        ads.set([("r", routes("r", &[("*", vec![to("/", "c")])]))]);
        ads.set([("l", listener("l", at, vec![http_chain(hcm("r"))]))]);
        let _gateway = Gateway::ready(&Options { sotw, ..Options::new(ads.address) }).await;
        assert_eq!(get(at, "/").await.unwrap().body, "a", "sotw: {sotw}");
        ads.set([("c", endpoints("c", &[b.address]))]);
        eventually("the new endpoint serves", async || get(at, "/").await.unwrap().body == "b").await;
        let other = free();
        ads.set([("m", listener("m", other, vec![http_chain(hcm("r"))]))]);
        eventually("the new listener serves", async || get(other, "/").await.is_ok_and(|r| r.body == "b")).await;
        eventually("the old listener is gone", async || get(at, "/").await.is_err()).await;
    }
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_its_neighbours_serve() {
    let origin = Origin::http1("a").await;
    let (ads, _gateway, at) = simple(&origin, |_, _| {}).await;
    let mut bad = cluster("bad");
    bad.lrs_server = Some(crate::build::ads());
    ads.set([("a", cluster("a")), ("bad", bad), ("b", cluster("b"))]);
    ads.set([("a", endpoints("a", &[origin.address])), ("b", endpoints("b", &[origin.address]))]);
    ads.set([("r", routes("r", &[("*", vec![to("/", "b")])]))]);
    ads.refused("bad").await;
    eventually("its neighbour serves", async || get(at, "/").await.unwrap().status == 200).await;
}

#[tokio::test]
async fn losing_the_control_plane_stops_change_not_traffic() {
    let origin = Origin::http1("a").await;
    let (ads, gateway, at) = simple(&origin, |_, _| {}).await;
    let address = ads.stop();
    for _ in 0..20 {
        assert_eq!(get(at, "/").await.unwrap().status, 200);
    }
    let back = Ads::start_at(address, Settings::default()).await;
    back.set([("a", cluster("a"))]);
    back.set([("a", endpoints("a", &[origin.address]))]);
    back.set([("r", routes("r", &[("new", vec![to("/", "a")])]))]);
    back.set([("l", listener("l", at, vec![http_chain(hcm("r"))]))]);
    eventually("the change after the reconnect is there", async || get_host(at, "old", "/").await.status == 404).await;
    let openings = back.openings();
    let clusters = openings.iter().find(|(t, _)| t.ends_with("Cluster")).unwrap();
    assert!(clusters.1.contains_key("a"), "what is held is said again: {openings:?}");
    drop(gateway);
}

#[tokio::test]
async fn a_restart_without_control_plane_serves_from_disk() {
    let origin = Origin::http1("a").await;
    let state = tempfile::tempdir().unwrap();
    let ads = Ads::start().await;
    let at = free();
    show(&ads, at, origin.address);
    let options = Options { state: Some(state.path()), ..Options::new(ads.address) };
    let gateway = Gateway::ready(&options).await;
    eventually("the state is written", async || {
        std::fs::read_dir(state.path()).unwrap().any(|f| !f.unwrap().file_name().to_string_lossy().starts_with('.'))
    })
    .await;
    // Written at most once a second: everything must be in what is on disk.
    let dump = async || std::fs::read(state.path().join("last-good-config.pb")).unwrap_or_default();
    eventually("the routes are in it", async || dump().await.windows(18).any(|w| w == b"RouteConfiguration")).await;
    assert!(gateway.terminate().await.success());
    let dead = ads.stop();
    let _gateway = Gateway::ready(&Options { state: Some(state.path()), ..Options::new(dead) }).await;
    assert_eq!(get(at, "/").await.unwrap().body, "a");
}

#[tokio::test]
async fn a_taken_port_is_waited_for() {
    let origin = Origin::http1("a").await;
    let busy = free();
    let taken = std::net::TcpListener::bind(busy).unwrap();
    let (ads, gateway, at) = simple(&origin, |_, _| {}).await;
    ads.set([
        ("l".to_owned(), listener("l", at, vec![http_chain(hcm("r"))])),
        ("busy".to_owned(), listener("busy", busy, vec![http_chain(hcm("r"))])),
    ]);
    eventually("the conflict shows", async || gateway.metrics().await.contains("tombolo_gateway_listeners_unbound 1"))
        .await;
    assert_eq!(get(at, "/").await.unwrap().status, 200, "its neighbour serves");
    drop(taken);
    eventually("it binds when it can", async || get(busy, "/").await.is_ok_and(|r| r.status == 200)).await;
}
