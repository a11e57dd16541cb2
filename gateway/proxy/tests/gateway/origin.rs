//! Servers behind the gateway.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub struct Origin {
    pub address: SocketAddr,
    pub requests: Arc<AtomicU32>,
    pub connections: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Origin {
    pub async fn http1(name: &'static str) -> Self {
        Self::start(name, false).await
    }

    pub async fn http2(name: &'static str) -> Self {
        Self::start(name, true).await
    }

    async fn start(name: &'static str, version2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections): (Arc<AtomicU32>, Arc<AtomicU32>) = Default::default();
        let (r, c) = (requests.clone(), connections.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                c.fetch_add(1, Ordering::SeqCst);
                let r = r.clone();
                let service = service_fn(move |request| answer(name, r.clone(), request));
                tokio::spawn(async move {
                    if version2 {
                        let _ = http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    } else {
                        let _ =
                            http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                    }
                });
            }
        });
        Self { address, requests, connections, task }
    }

    /// Takes bytes and gives them back in upper case.
    pub async fn tcp() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<AtomicU32> = Arc::default();
        let c = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                c.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(shout(stream));
            }
        });
        Self { address, requests: Arc::default(), connections, task }
    }

    pub fn count(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn shout(mut stream: TcpStream) {
    let mut buffer = [0; 1024];
    while let Ok(n) = stream.read(&mut buffer).await {
        if n == 0 {
            break;
        }
        buffer[..n].make_ascii_uppercase();
        if stream.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

type Body = BoxBody<Bytes, Infallible>;

fn text(status: u16, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// What it does is in the path: `/status/503`, `/sleep/200`, `/echo`, `/headers`, `/grpc`, `/flaky/2`, anything else: its name.
async fn answer(
    name: &'static str,
    count: Arc<AtomicU32>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let seen = count.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok());
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 64];
            while let Ok(n @ 1..) = io.read(&mut buffer).await {
                buffer[..n].make_ascii_uppercase();
                io.write_all(&buffer[..n]).await.unwrap();
            }
        });
        let mut response = text(101, String::new());
        response.headers_mut().insert("connection", "upgrade".parse().unwrap());
        response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        return Ok(response);
    }
    if let Some(place) = path.strip_prefix("/to/").and_then(|rest| rest.split_once('/')) {
        let _ = request.body_mut().collect().await;
        let mut response = text(place.0.parse().unwrap(), "elsewhere".into());
        let location = place.1.replace("%3A", ":").replace("%2F", "/");
        response.headers_mut().insert("location", location.parse().unwrap());
        return Ok(response);
    }
    if path == "/loop" {
        let mut response = text(302, "again".into());
        response.headers_mut().insert("location", "http://h/loop".parse().unwrap());
        return Ok(response);
    }
    if let Some(status) = number("/status/") {
        return Ok(text(u16::try_from(status).unwrap(), format!("{name} {status}")));
    }
    if let Some(millis) = number("/sleep/") {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
    if let Some(failures) = number("/flaky/")
        && u64::from(seen) < failures
    {
        return Ok(text(503, "not yet".into()));
    }
    if path == "/echo" {
        let body = request.into_body().collect().await.map_or_else(|_| Bytes::new(), |b| b.to_bytes());
        return Ok(Response::new(Full::new(body).boxed()));
    }
    if path == "/headers" {
        let mut lines: Vec<String> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap_or("?"))).collect();
        lines.push(format!("{} {}", request.method(), request.uri()));
        lines.sort();
        return Ok(text(200, lines.join("\n")));
    }
    if path == "/grpc" {
        let trailers =
            [("grpc-status".parse::<http::HeaderName>().unwrap(), "0".parse().unwrap())].into_iter().collect();
        let frames = [Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), Ok(Frame::trailers(trailers))];
        let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed());
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        return Ok(response);
    }
    Ok(text(200, name.to_owned()))
}
