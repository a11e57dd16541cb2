//! What ends when one side keeps still, or says much without saying anything; and what is tried again after a while.

use crate::{
    build::{self, action, cluster, duration, endpoints, hcm, http_chain, listener, routes, to},
    client::{Connection, get},
    http::show,
    origin::Origin,
    process::{Gateway, Options, PATIENCE, eventually},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tombolo_controlplane_api::{
    util::pack_any,
    xds::{
        envoy::{
            config::{
                core::v3::{
                    Address, BackoffStrategy, HttpProtocolOptions as Common, Pipe, UpstreamHttpProtocolOptions, address,
                },
                route::v3::Route,
            },
            extensions::{
                filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy},
                transport_sockets::tls::v3::UpstreamTlsContext,
                upstreams::http::v3::{
                    HttpProtocolOptions,
                    http_protocol_options::{
                        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                    },
                },
            },
        },
        google::protobuf::UInt32Value,
    },
};
use tombolo_tests_kit::{ads::Ads, free};

const SOON: Duration = Duration::from_millis(300);

/// A server of HTTP/1 that answers every request in its own way, and tells when it can say no more.
struct Odd {
    address: SocketAddr,
    /// Responses so far, and how many of them are known to be over.
    begun: Arc<AtomicU32>,
    over: u32,
    ended: mpsc::UnboundedReceiver<()>,
    task: JoinHandle<()>,
}

impl Odd {
    /// Says `first` once and `again` for ever, with pauses.
    async fn start(first: &'static [u8], again: Vec<u8>, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, ended) = mpsc::unbounded_channel();
        let begun = Arc::<AtomicU32>::default();
        let count = begun.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let (again, tell) = (again.clone(), tell.clone());
                tokio::spawn(async move {
                    let mut seen = Vec::new();
                    while !seen.ends_with(b"\r\n\r\n") && stream.read_buf(&mut seen).await.is_ok_and(|n| n > 0) {}
                    let mut said = stream.write_all(first).await;
                    while said.is_ok() {
                        if !pause.is_zero() {
                            tokio::time::sleep(pause).await;
                        }
                        said = stream.write_all(&again).await;
                    }
                    let _ = tell.send(());
                });
            }
        });
        Self { address, begun, over: 0, ended, task }
    }

    /// A body of which nobody sees the end.
    async fn endless() -> Self {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n";
        Self::start(head, vec![b'x'; 64 << 10], Duration::ZERO).await
    }

    /// Every response that was begun ends, and there is one.
    async fn ends(&mut self) {
        let begun = self.begun.load(SeqCst).max(self.over + 1);
        while self.over < begun {
            timeout(PATIENCE, self.ended.recv()).await.expect("nothing ends the response").unwrap();
            self.over += 1;
        }
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A gateway that sends everything to an address by one route.
async fn by(route: Route, to: SocketAddr) -> (Ads, Gateway, SocketAddr) {
    let (ads, at) = (Ads::start().await, free());
    show(&ads, at, to);
    ads.set([("r", routes("r", &[("*", vec![route])]))]);
    let gateway = Gateway::ready(&Options::new(ads.address)).await;
    (ads, gateway, at)
}

/// A route with clocks; `None`: switched off.
fn clocked(idle: Option<Duration>, whole: Option<Duration>) -> Route {
    let mut route = to("/", "a");
    let own = action(&mut route);
    own.idle_timeout = Some(duration(idle.unwrap_or_default()));
    own.timeout = Some(duration(whole.unwrap_or_default()));
    route
}

#[tokio::test]
async fn a_response_that_its_client_does_not_read_ends() {
    for (idle, whole) in [(Some(SOON), None), (None, Some(SOON))] {
        let mut origin = Odd::endless().await;
        let (_ads, _gateway, at) = by(clocked(idle, whole), origin.address).await;
        let mut deaf = TcpStream::connect(at).await.unwrap();
        deaf.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        origin.ends().await;
        // And so does the connection, after what was on its way.
        let mut rest = vec![0; 1 << 20];
        let drained = async { while matches!(deaf.read(&mut rest).await, Ok(1..)) {} };
        timeout(PATIENCE, drained).await.expect("the connection stays");
    }
}

#[tokio::test]
async fn a_stream_that_its_client_does_not_read_ends() {
    for (idle, whole) in [(Some(SOON), None), (None, Some(SOON))] {
        let mut origin = Odd::endless().await;
        let (_ads, _gateway, at) = by(clocked(idle, whole), origin.address).await;
        let io = TokioIo::new(TcpStream::connect(at).await.unwrap());
        let (mut send, connection) = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = || Request::get(format!("http://{at}/")).body(Full::default()).unwrap();
        // The clocks run from the beginning: on a busy machine an answer may come too late for them.
        let mut answered = async || loop {
            let response = send.send_request(request()).await.unwrap();
            if response.status() != 504 {
                break response;
            }
        };
        let response = answered().await;
        assert_eq!(response.status(), 200);
        origin.ends().await;
        drop(response);
        // It was the stream that ended, not the connection.
        assert_eq!(answered().await.status(), 200);
    }
}

const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

#[tokio::test]
async fn hints_for_ever_are_no_answer() {
    let mut origin = Odd::start(b"", HINT.repeat(100), Duration::ZERO).await;
    let (_ads, _gateway, at) = by(clocked(None, None), origin.address).await;
    assert_eq!(timeout(PATIENCE, get(at, "/")).await.expect("it goes on").unwrap().status, 502);
    origin.ends().await;
}

#[tokio::test]
async fn hints_do_not_keep_a_request_alive() {
    for (idle, whole) in [(Some(SOON), None), (None, Some(SOON))] {
        let mut origin = Odd::start(b"", HINT.to_vec(), SOON / 3).await;
        let (_ads, _gateway, at) = by(clocked(idle, whole), origin.address).await;
        assert_eq!(timeout(PATIENCE, get(at, "/")).await.expect("it goes on").unwrap().status, 504);
        origin.ends().await;
    }
}

#[tokio::test]
async fn trailers_that_never_end_do_not_keep_a_response_alive() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n";
    // Slow ones run into a clock, quick ones into a bound.
    for (idle, pause) in [(Some(SOON), SOON * 2), (None, Duration::ZERO)] {
        let mut origin = Odd::start(head, b"a: b\r\n".to_vec(), pause).await;
        let (_ads, _gateway, at) = by(clocked(idle, None), origin.address).await;
        // On a busy machine the head may come too late for the clock, too.
        let answer = loop {
            match timeout(PATIENCE, get(at, "/")).await.expect("it goes on") {
                Ok(late) if late.status == 504 => {}
                other => break other,
            }
        };
        assert!(answer.is_err());
        origin.ends().await;
    }
}

#[tokio::test]
async fn a_server_that_is_late_gets_the_connection_that_waited() {
    let at = free();
    let (ads, door) = (Ads::start().await, free());
    let pause = Some(duration(Duration::from_secs(3)));
    let proxy = TcpProxy {
        stat_prefix: "tcp".into(),
        cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster("a".into())),
        max_connect_attempts: Some(UInt32Value { value: 30 }),
        backoff_options: Some(BackoffStrategy { base_interval: pause, max_interval: pause }),
        ..Default::default()
    };
    let mut chain = build::tcp_chain("a");
    chain.filters = vec![build::filter("envoy.filters.network.tcp_proxy", pack_any(proxy))];
    ads.set([("a", cluster("a"))]);
    ads.set([("a", endpoints("a", &[at]))]);
    ads.set([("l", listener("l", door, vec![chain]))]);
    let gateway = Gateway::ready(&Options::new(ads.address)).await;
    let mut early = TcpStream::connect(door).await.unwrap();
    let none = "\ntombolo_gateway_upstream_connect_failures_total 0\n";
    eventually("it was tried", async || !gateway.metrics().await.contains(none)).await;
    // Whoever does not wait has tried for the last time long before this.
    for _ in 0..30 {
        let _ = gateway.metrics().await;
    }
    let origin = TcpListener::bind(at).await.unwrap();
    let (mut served, _) = timeout(PATIENCE, origin.accept()).await.expect("it is not tried again").unwrap();
    served.write_all(b"here").await.unwrap();
    let mut heard = [0; 4];
    timeout(PATIENCE, early.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"here");
}

#[tokio::test]
async fn a_path_that_cannot_be_listened_on_is_tried_again() {
    let origin = Origin::http1("a").await;
    let folder = tempfile::tempdir().unwrap();
    let door = folder.path().join("later").join("door");
    let (ads, at) = (Ads::start().await, free());
    show(&ads, at, origin.address);
    let pipe = Pipe { path: door.display().to_string(), mode: 0 };
    let mut own = listener("l", at, vec![http_chain(hcm("r"))]);
    own.address = Some(Address { address: Some(address::Address::Pipe(pipe)) });
    ads.set([("l", own)]);
    let gateway = Gateway::spawn(&Options::new(ads.address));
    let tried = "\ntombolo_gateway_listeners_unbound 1\n";
    let fails = async || get(gateway.admin, "/metrics").await.is_ok_and(|metrics| metrics.body.contains(tried));
    eventually("it cannot be listened on", fails).await;
    std::fs::create_dir(door.parent().unwrap()).unwrap();
    eventually("it is served", async || UnixStream::connect(&door).await.is_ok()).await;
    let mut connection = Connection::http1(UnixStream::connect(&door).await.unwrap()).await.unwrap();
    assert_eq!(connection.get("h", "/").await.unwrap().status, 200);
    eventually("nothing is missing", async || !fails().await).await;
}

/// A server's name may be told by a header of the request.
#[tokio::test]
async fn a_header_names_the_server_that_is_asked_for() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (ads, at) = (Ads::start().await, free());
    show(&ads, at, socket.local_addr().unwrap());
    let names = UpstreamHttpProtocolOptions {
        auto_sni: true,
        override_auto_sni_header: "x-server".into(),
        ..Default::default()
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: Some(Common::default()),
        upstream_http_protocol_options: Some(names),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::HttpProtocolOptions(Default::default())),
        })),
        ..Default::default()
    };
    let mut a = cluster("a");
    a.typed_extension_protocol_options
        .insert("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into(), pack_any(options));
    let tls = pack_any(UpstreamTlsContext::default());
    a.transport_socket = Some(build::socket("envoy.transport_sockets.tls", tls));
    ads.set([("a", a)]);
    let _gateway = Gateway::ready(&Options::new(ads.address)).await;
    for (header, asked) in [(Some("told.example"), "told.example"), (None, "host.example")] {
        let request = tokio::spawn(async move {
            let request = Request::get("/").header("host", "host.example");
            let request = header.iter().fold(request, |request, name| request.header("x-server", *name));
            Connection::open(at).await.send(request.body(Full::default()).unwrap()).await
        });
        let (mut stream, _) = timeout(PATIENCE, socket.accept()).await.unwrap().unwrap();
        let mut hello = Vec::new();
        // Names are in the clear: all of a hello is here when its record is.
        while hello.len() < 5 || hello.len() < 5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])) {
            assert!(stream.read_buf(&mut hello).await.unwrap() > 0);
        }
        let names = |name: &str| hello.windows(name.len()).any(|w| w == name.as_bytes());
        assert!(names(asked), "not asked for {asked}");
        assert_eq!(names("host.example"), header.is_none());
        drop(stream);
        request.abort();
    }
}
