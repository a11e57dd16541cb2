//! The stand-in over real sockets: each protocol on one port, and what each query parameter does.

use super::{Me, WorkloadArgs, echo, query, serve};
use crate::http::{Answer, Ask, ask};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

struct Running {
    me: Arc<Me>,
    at: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(name: &str, http_proxy: Option<SocketAddr>) -> Running {
    let args = WorkloadArgs {
        name: name.to_owned(),
        namespace: "shop".into(),
        site: "east".into(),
        service_account: "buyer".into(),
        labels: vec![("app".into(), name.into()), ("version".into(), "v2".into())],
        listen: vec![],
        tls_listen: vec![],
        tls_certificate: None,
        tls_key: None,
        http_proxy,
        drain_seconds: 60,
    };
    // Nobody else's, even after it is closed.
    let listener = TcpListener::bind(tombolo_tests_kit::free()).await.unwrap();
    let at = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let me = Arc::new(Me::new(&args));
    let task = tokio::spawn(serve::accept(me.clone(), listener, None, stop.clone()));
    Running { me, at, stop, task }
}

async fn get(at: SocketAddr, path: &str, headers: &[(&'static str, &str)], http2: bool) -> Answer {
    let mut request = Ask::get(at, path.parse().unwrap());
    for (name, value) in headers {
        request.headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    request.http2 = http2;
    ask(request).await.unwrap()
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[tokio::test]
async fn says_who_it_is_and_what_it_received() {
    let echo = start("reviews-0", None).await;
    let xfcc = r#"By=spiffe://a/x;Hash=1,By=spiffe://b/y;Subject="CN=a,b;c";URI=spiffe://east.local/ns/shop/sa/web"#;
    let headers = [("x-forwarded-client-cert", xfcc), ("x-twice", "1"), ("x-twice", "2")];
    for http2 in [false, true] {
        let seen = json(&get(echo.at, "/a/b?x=1&y=a%20b", &headers, http2).await);
        assert_eq!(seen["workload"], "reviews-0");
        assert_eq!(seen["site"], "east");
        assert_eq!(seen["version"], "v2");
        assert_eq!(seen["labels"]["app"], "reviews-0");
        assert_eq!(seen["path"], "/a/b");
        assert_eq!(seen["query"]["y"], "a b");
        assert_eq!(seen["headers"]["x-twice"][1], "2");
        assert_eq!(seen["peer"], "spiffe://east.local/ns/shop/sa/web");
        assert_eq!(seen["host"], echo.at.to_string());
        assert_eq!(seen["protocol"], if http2 { "HTTP/2" } else { "HTTP/1.1" });
    }
}

#[tokio::test]
async fn without_a_sidecar_there_is_no_peer() {
    assert_eq!(echo::peer(&HeaderMap::new()), "");
}

#[tokio::test]
async fn shapes_its_answer() {
    let echo = start("a", None).await;
    assert_eq!(get(echo.at, "/?status=503", &[], false).await.status, 503);
    assert_eq!(get(echo.at, "/?size=70000", &[], true).await.body.len(), 70_000);
    let before = std::time::Instant::now();
    get(echo.at, "/?delay=120ms", &[], false).await;
    assert!(before.elapsed() >= Duration::from_millis(120));
    let refused = get(echo.at, "/?delay=soon", &[], false).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("delay=soon"), "{}", refused.text());
}

#[tokio::test]
async fn flaky_fails_by_request_id() {
    let echo = start("a", None).await;
    let mut seen = vec![];
    for _ in 0..3 {
        seen.push(get(echo.at, "/?flaky=2", &[("x-request-id", "r1")], false).await.status.as_u16());
    }
    assert_eq!(seen, [503, 503, 200]);
    assert_eq!(get(echo.at, "/?flaky=1", &[("x-request-id", "r2")], false).await.status, 503);
}

#[tokio::test]
async fn counts_the_request_body() {
    let echo = start("a", None).await;
    let mut request = Ask::get(echo.at, "/".parse().unwrap());
    request.method = http::Method::POST;
    request.body = vec![b'x'; 100_000].into();
    assert_eq!(json(&ask(request).await.unwrap())["body_bytes"], 100_000);
}

#[tokio::test]
async fn calls_on_through_its_proxy_with_trace_headers_only() {
    // The second stand-in plays the proxy: it sees the absolute URI that a proxy sees.
    let proxy = start("proxy", None).await;
    let echo = start("a", Some(proxy.at)).await;
    let headers = [("traceparent", "00-1-2-01"), ("x-b3-traceid", "7"), ("authorization", "Bearer x")];
    let seen = json(&get(echo.at, "/?call=http://reviews:9080/p?status=418", &headers, false).await);
    let called = &seen["called"][0];
    assert_eq!(called["status"], 418);
    assert_eq!(called["answer"]["workload"], "proxy");
    assert_eq!(called["answer"]["host"], "reviews:9080");
    assert_eq!(called["answer"]["path"], "/p");
    assert_eq!(called["answer"]["headers"]["traceparent"], "00-1-2-01");
    assert_eq!(called["answer"]["headers"]["x-b3-traceid"], "7");
    assert!(called["answer"]["headers"].get("authorization").is_none());
}

#[tokio::test]
async fn a_failed_call_is_part_of_the_answer() {
    let echo = start("a", Some("127.0.0.1:1".parse().unwrap())).await;
    let answer = get(echo.at, "/?call=http://x/&call=ftp://y/", &[], false).await;
    assert_eq!(answer.status, 200);
    let seen = json(&answer);
    assert_eq!(seen["called"][0]["status"], 0);
    assert!(seen["called"][1]["error"].as_str().unwrap().contains("only http://"));
}

#[tokio::test]
async fn answers_grpc_with_a_message_and_trailers() {
    let echo = start("a", None).await;
    let mut request = Ask::get(echo.at, "/pkg.Service/Method".parse().unwrap());
    request.method = http::Method::POST;
    request.headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    request.body = vec![0, 0, 0, 0, 0].into();
    request.http2 = true;
    let answer = ask(request).await.unwrap();
    assert_eq!(answer.trailers["grpc-status"], "0");
    let length = u32::from_be_bytes(answer.body[1..5].try_into().unwrap()) as usize;
    assert_eq!(length, answer.body.len() - 5);
    assert_eq!(answer.body[5], 0x0a);
    let start = answer.body.iter().position(|b| *b == b'{').unwrap();
    let seen: Value = serde_json::from_slice(&answer.body[start..]).unwrap();
    assert_eq!(seen["protocol"], "gRPC");
    assert_eq!(seen["path"], "/pkg.Service/Method");
}

#[tokio::test]
async fn echoes_bytes_that_are_not_http() {
    let echo = start("a", None).await;
    let mut stream = TcpStream::connect(echo.at).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    let mut back = [0; 6];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello\n");
    stream.write_all(&[0xff; 100]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = vec![];
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, [0xff; 100]);
}

#[tokio::test]
async fn finishes_open_requests_when_told_to_stop() {
    let echo = start("a", None).await;
    let open =
        tokio::spawn(async move { get(echo.at, "/?delay=200ms", &[("x-request-id", "open")], false).await.status });
    // Stop only when the request is known to be inside.
    while !echo.me.flaky.lock().unwrap().knows("open") {
        tokio::task::yield_now().await;
    }
    echo.stop.cancel();
    assert_eq!(open.await.unwrap(), 200);
    echo.task.await.unwrap();
    // A child that another test just forked has the socket until it becomes another program.
    let closed = async {
        while TcpStream::connect(echo.at).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed).await.expect("nobody listens any more");
}

#[test]
fn tells_protocols_apart() {
    let check = |first: &[u8], expect| assert_eq!(serve::spoken(first), expect, "{first:?}");
    check(b"GET / HTTP/1.1", serve::Spoken::Http1);
    check(b"G", serve::Spoken::Unknown);
    check(b"P", serve::Spoken::Unknown);
    check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", serve::Spoken::Http2);
    check(b"PRIVATE", serve::Spoken::Bytes);
    check(b"hello", serve::Spoken::Bytes);
    check(&[0x16, 3, 1], serve::Spoken::Bytes);
}

#[test]
fn decodes_queries() {
    let check = |text: &str, expect: &[(&str, &str)]| {
        let expect: Vec<_> = expect.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(query::pairs(text), expect, "{text}");
    };
    check("", &[]);
    check("a=1&&b", &[("a", "1"), ("b", "")]);
    check("call=http%3A%2F%2Fx%2F%3Fa%3D1&x=%zz+", &[("call", "http://x/?a=1"), ("x", "%zz ")]);
    check("x=%", &[("x", "%")]);
    assert!(query::wishes(&query::pairs("status=99")).is_err());
    assert_eq!(query::wishes(&query::pairs("delay=0.5")).unwrap().delay, Duration::from_millis(500));
}
