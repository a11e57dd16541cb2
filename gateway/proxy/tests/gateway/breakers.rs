//! Circuit breakers: bounds that all workers share, and what each of them counts.

use crate::{
    build::{cluster, endpoints, listener, tcp_chain},
    client::{Connection, get},
    moody::Moody,
    origin::Origin,
    process::{Gateway, Options, eventually},
    upstream::behind,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tombolo_controlplane_api::xds::{
    envoy::config::cluster::v3::{CircuitBreakers, Cluster, circuit_breakers::Thresholds},
    google::protobuf::UInt32Value,
};
use tombolo_tests_kit::{ads::Ads, free};

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// `a`, which tells how much of its bounds is left.
fn bounded(limits: Thresholds) -> Cluster {
    let thresholds = vec![Thresholds { track_remaining: true, ..limits }];
    Cluster { circuit_breakers: Some(CircuitBreakers { thresholds, ..Default::default() }), ..cluster("a") }
}

/// How much is left of one bound.
async fn left(gateway: &Gateway, resource: &str) -> u32 {
    let name = "tombolo_gateway_cluster_breaker_remaining{cluster=\"a\",priority=\"default\",";
    let metrics = gateway.metrics().await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name}resource=\"{resource}\"}} ")));
    line.unwrap().parse().unwrap()
}

/// A server of HTTP/1 that answers nothing before it is told to.
struct Holding {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    answers: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Holding {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answers, told) = watch::channel(false);
        let connections = Arc::<AtomicUsize>::default();
        let count = connections.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let mut told = told.clone();
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while let Ok(1..) = stream.read_buf(&mut seen).await {
                        if seen.ends_with(b"\r\n\r\n") {
                            seen.clear();
                            told.wait_for(|told| *told).await.unwrap();
                            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                        }
                    }
                });
            }
        });
        Self { address, connections, answers, task }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const WORKERS: usize = 4;
const MANY: usize = 48;

/// Every worker may have one connection, without which it could serve nobody; beyond that the bound is one for all of them.
#[tokio::test]
async fn workers_share_the_bounds_of_a_cluster() {
    let origin = Holding::start().await;
    let bound = 3;
    let limits = Thresholds { max_connections: number(3), max_pending_requests: number(1000), ..Default::default() };
    let more = ["--workers", &WORKERS.to_string()];
    let (_ads, gateway, at) = behind([bounded(limits)], [endpoints("a", &[origin.address])], &more).await;
    let requests: Vec<_> = (0..MANY).map(|_| tokio::spawn(async move { get(at, "/").await.unwrap().status })).collect();
    eventually("each request has a connection or waits for one", async || {
        let waiting = 1000 - left(&gateway, "pending_requests").await;
        usize::try_from(waiting).unwrap() + origin.connections.load(SeqCst) == MANY
    })
    .await;
    let open = origin.connections.load(SeqCst);
    assert!((bound..bound + WORKERS).contains(&open), "{open} connections");
    assert_eq!(left(&gateway, "connections").await, 0);
    origin.answers.send(true).unwrap();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(origin.connections.load(SeqCst), open, "those there are serve all of them");
}

async fn with_tcp(a: Cluster, to: SocketAddr, more: &[&str]) -> (Ads, Gateway, SocketAddr) {
    let (ads, at) = (Ads::start().await, free());
    ads.set([("a", a)]);
    ads.set([("a", endpoints("a", &[to]))]);
    ads.set([("l", listener("l", at, vec![tcp_chain("a")]))]);
    let mut options = Options::new(ads.address);
    options.more = more.iter().map(|s| (*s).to_owned()).collect();
    let gateway = Gateway::ready(&options).await;
    (ads, gateway, at)
}

/// A connection through the gateway if there is one behind it.
async fn served(at: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut answer = [0];
    stream.write_all(b"x").await.ok()?;
    stream.read_exact(&mut answer).await.ok()?;
    Some(stream)
}

#[tokio::test]
async fn workers_share_the_bound_of_tcp_connections() {
    let origin = Origin::tcp().await;
    let limits = Thresholds { max_connections: number(3), ..Default::default() };
    let (_ads, gateway, at) = with_tcp(bounded(limits), origin.address, &["--workers", &WORKERS.to_string()]).await;
    let mut open = Vec::new();
    for _ in 0..MANY {
        open.extend(served(at).await);
    }
    assert_eq!((open.len(), origin.connections.load(SeqCst)), (3, 3));
    open.pop();
    eventually("one place is free", async || left(&gateway, "connections").await == 1).await;
    assert!(served(at).await.is_some());
}

#[tokio::test]
async fn a_tcp_connection_waits_for_its_server_like_a_request() {
    let origin = Origin::tcp().await;
    let limits = Thresholds { max_pending_requests: number(0), ..Default::default() };
    let (_ads, gateway, at) = with_tcp(bounded(limits), origin.address, &[]).await;
    assert!(served(at).await.is_none());
    assert_eq!((origin.connections.load(SeqCst), left(&gateway, "connections").await), (0, 1024));
}

/// A request that waits for a connection is one of those that wait, not one of those under way: when its turn comes there is room.
#[tokio::test]
async fn requests_that_wait_are_not_under_way() {
    let origin = Holding::start().await;
    let limits = Thresholds { max_connections: number(1), max_requests: number(1), ..Default::default() };
    let (_ads, gateway, at) = behind([bounded(limits)], [endpoints("a", &[origin.address])], &[]).await;
    let requests: Vec<_> = (0..3).map(|_| tokio::spawn(async move { get(at, "/").await.unwrap().status })).collect();
    eventually("two wait", async || left(&gateway, "pending_requests").await == 1022).await;
    assert_eq!(left(&gateway, "requests").await, 0);
    origin.answers.send(true).unwrap();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
}

/// `a` with one pool, where each client has its own.
fn one_pool() -> Cluster {
    let limits = Thresholds { max_connection_pools: number(1), ..Default::default() };
    Cluster { connection_pool_per_downstream_connection: true, ..bounded(limits) }
}

#[tokio::test]
async fn an_idle_pool_makes_room_for_another() {
    let one = Moody::start("one").await;
    let (_ads, _gateway, at) = behind([one_pool()], [endpoints("a", &[one.address])], &[]).await;
    // Both clients stay, and with them their pools could.
    let (mut first, mut second) = (Connection::open(at).await, Connection::open(at).await);
    for _ in 0..2 {
        assert_eq!(first.get("h", "/").await.unwrap().status, 200);
        assert_eq!(second.get("h", "/").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_pool_in_use_makes_no_room() {
    let held = Holding::start().await;
    let (_ads, _gateway, at) = behind([one_pool()], [endpoints("a", &[held.address])], &[]).await;
    let request = tokio::spawn(async move { get(at, "/").await.unwrap().status });
    eventually("one is under way", async || held.connections.load(SeqCst) == 1).await;
    let refused = get(at, "/").await.unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (503, "no healthy upstream"));
    held.answers.send(true).unwrap();
    assert_eq!(request.await.unwrap(), 200);
}

#[tokio::test]
async fn metrics_name_a_cluster_as_it_wants_to_be_named() {
    let origin = Origin::http1("a").await;
    let a = Cluster { alt_stat_name: "front door".into(), ..bounded(Thresholds::default()) };
    let (_ads, gateway, at) = behind([a], [endpoints("a", &[origin.address])], &[]).await;
    assert_eq!(get(at, "/").await.unwrap().status, 200);
    let metrics = gateway.metrics().await;
    let line =
        "tombolo_gateway_cluster_breaker_remaining{cluster=\"front door\",priority=\"default\",resource=\"retries\"} 3";
    assert!(metrics.contains(line) && !metrics.contains("cluster=\"a\""), "{metrics}");
    let clusters = get(gateway.admin, "/clusters").await.unwrap().body;
    assert!(clusters.starts_with("a::observability_name::front door\n"), "{clusters}");
}
