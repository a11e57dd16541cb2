//! HTTP through the gateway.

use crate::{
    build::{self, action, cluster, duration, endpoints, hcm, http_chain, listener, routes, to},
    client::{Connection, get, get_host},
    origin::Origin,
    process::{Gateway, Options, eventually},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tombolo_tests_kit::{ads::Ads, free};

/// Shows one listener with one route to one origin: `l`, `r` and `a`.
pub fn show(ads: &Ads, at: SocketAddr, origin: SocketAddr) {
    ads.set([("a", cluster("a"))]);
    ads.set([("a", endpoints("a", &[origin]))]);
    ads.set([("r", routes("r", &[("*", vec![to("/", "a")])]))]);
    ads.set([("l", listener("l", at, vec![http_chain(hcm("r"))]))]);
}

/// A gateway that serves that, as far as the test changes nothing of it.
pub async fn simple(origin: &Origin, change: impl FnOnce(&Ads, SocketAddr)) -> (Ads, Gateway, SocketAddr) {
    let ads = Ads::start().await;
    let at = free();
    show(&ads, at, origin.address);
    change(&ads, at);
    let gateway = Gateway::ready(&Options::new(ads.address)).await;
    (ads, gateway, at)
}

#[tokio::test]
async fn a_request_goes_by_the_route_and_comes_back() {
    let origin = Origin::http1("a").await;
    let (_ads, gateway, at) = simple(&origin, |_, _| {}).await;
    let got = get(at, "/x").await.unwrap();
    assert_eq!((got.status, got.body.as_str()), (200, "a"));
    assert_eq!(got.header("server"), "envoy");
    assert!(!got.header("x-envoy-upstream-service-time").is_empty());
    let seen = get(at, "/headers").await.unwrap().body;
    assert!(seen.contains("x-forwarded-proto: http") && seen.contains("x-request-id: "), "{seen}");
    assert!(get(gateway.admin, "/inventory").await.unwrap().body.contains("\"clusters\""));
}

#[tokio::test]
async fn connections_to_the_origin_are_kept() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |_, _| {}).await;
    let mut connection = Connection::open(at).await;
    for n in 0..20 {
        assert_eq!(connection.get("h", "/").await.unwrap().status, 200, "request {n}");
    }
    assert_eq!(origin.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn bodies_travel_in_every_pairing_of_versions() {
    let (one, two) = (Origin::http1("one").await, Origin::http2("two").await);
    let (_ads, _gateway, at) = simple(&one, |ads, _| {
        ads.set([("a", cluster("a")), ("b", build::http2(cluster("b")))]);
        ads.set([("a", endpoints("a", &[one.address])), ("b", endpoints("b", &[two.address]))]);
        ads.set([("r", routes("r", &[("one", vec![to("/", "a")]), ("two", vec![to("/", "b")])]))]);
    })
    .await;
    let body = "x".repeat(300_000);
    for host in ["one", "two"] {
        for version2 in [false, true] {
            let io = TcpStream::connect(at).await.unwrap();
            let mut connection =
                if version2 { Connection::http2(io).await.unwrap() } else { Connection::http1(io).await.unwrap() };
            assert_eq!(connection.get(host, "/").await.unwrap().body, host);
            let request =
                Request::post("/echo").header("host", host).body(Full::new(Bytes::from(body.clone()))).unwrap();
            let got = connection.send(request).await.unwrap();
            assert_eq!((got.status, got.body.len()), (200, body.len()), "to {host}, HTTP/2 {version2}");
        }
    }
}

#[tokio::test]
async fn grpc_trailers_pass() {
    let origin = Origin::http2("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, _| ads.set([("a", build::http2(cluster("a")))])).await;
    let mut connection = Connection::http2(TcpStream::connect(at).await.unwrap()).await.unwrap();
    let got = connection.get("h", "/grpc").await.unwrap();
    assert_eq!(got.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn failures_have_envoys_words() {
    let origin = Origin::http1("a").await;
    let (ads, _gateway, at) =
        simple(&origin, |ads, _| ads.set([("r", routes("r", &[("known", vec![to("/", "a")])]))])).await;
    assert_eq!(get_host(at, "unknown", "/").await.status, 404);
    ads.set([("a", endpoints("a", &[free()]))]);
    eventually("the origin is unreachable", async || {
        get_host(at, "known", "/").await.body.contains("remote connection failure")
    })
    .await;
    ads.set([("a", endpoints("a", &[]))]);
    eventually("there is no endpoint", async || get_host(at, "known", "/").await.body == "no healthy upstream").await;
}

#[tokio::test]
async fn a_failed_try_is_tried_again() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, _| {
        let mut route = to("/", "a");
        action(&mut route).retry_policy = Some(build::retry("5xx", 3));
        ads.set([("r", routes("r", &[("*", vec![route])]))]);
    })
    .await;
    let got = get(at, "/flaky/2").await.unwrap();
    assert_eq!((got.status, origin.count()), (200, 3));
    let request = Request::post("/status/500").header("host", "h").body(Full::new(Bytes::from("again"))).unwrap();
    let got = Connection::open(at).await.send(request).await.unwrap();
    assert_eq!((got.status, origin.count()), (500, 7), "the last answer counts when tries are used up");
}

#[tokio::test]
async fn slow_origins_time_out() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |ads, _| {
        let mut route = to("/sleep", "a");
        action(&mut route).timeout = Some(duration(Duration::from_millis(100)));
        ads.set([("r", routes("r", &[("*", vec![route, to("/", "a")])]))]);
    })
    .await;
    let got = get(at, "/sleep/100000").await.unwrap();
    assert_eq!((got.status, got.body.as_str()), (504, "upstream request timeout"));
    assert_eq!(get(at, "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn the_proxy_form_is_understood() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) =
        simple(&origin, |ads, _| ads.set([("r", routes("r", &[("reviews:9080", vec![to("/", "a")])]))])).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream
        .write_all(b"GET http://reviews:9080/ HTTP/1.1\r\nhost: elsewhere\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\na"), "{answer}");
}

#[tokio::test]
async fn websockets_become_tunnels() {
    let origin = Origin::http1("a").await;
    let (_ads, _gateway, at) = simple(&origin, |_, _| {}).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let mut echo = [0; 5];
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"HELLO");
}

#[tokio::test]
async fn draining_loses_no_request() {
    let origin = Origin::http1("a").await;
    let (_ads, mut gateway, at) = simple(&origin, |_, _| {}).await;
    let mut kept = Connection::open(at).await;
    kept.get("h", "/").await.unwrap();
    let slow = tokio::spawn(async move { get(at, "/sleep/600").await });
    eventually("the slow request is under way", async || origin.count() >= 2).await;
    gateway.signal();
    let last = kept.get("h", "/").await;
    if let Ok(last) = last {
        assert_eq!(last.status, 200);
    }
    assert_eq!(slow.await.unwrap().unwrap().status, 200);
    assert!(gateway.exited().await.success());
    assert!(TcpStream::connect(at).await.is_err());
}

#[tokio::test]
async fn metrics_have_istios_labels() {
    let origin = Origin::http1("a").await;
    let (_ads, gateway, at) = simple(&origin, |ads, at| {
        let mut hcm = hcm("r");
        hcm.http_filters.insert(0, build::mesh_stats());
        ads.set([("l", listener("l", at, vec![http_chain(hcm)]))]);
    })
    .await;
    for path in ["/", "/status/503", "/"] {
        get(at, path).await.unwrap();
    }
    let mut ok = String::new();
    // A request may be counted a moment after its answer is here.
    eventually("all are counted", async || {
        let metrics = gateway.metrics().await;
        let find = |code: &str| {
            metrics
                .lines()
                .find(|l| l.starts_with("istio_requests_total{") && l.contains(&format!("response_code=\"{code}\"")))
                .map(str::to_owned)
        };
        ok = find("200").unwrap_or_default();
        ok.ends_with(" 2") && find("503").is_some_and(|line| line.ends_with(" 1"))
    })
    .await;
    assert!(ok.contains("reporter=\"source\"") && ok.contains("source_workload=\"test\""), "{ok}");
}
