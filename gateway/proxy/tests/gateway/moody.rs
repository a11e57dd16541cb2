//! Servers with moods: what they say to requests and to health checks changes while a test runs.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Frame, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinHandle,
};

/// Speaks HTTP/1. `/healthz` gets `health`, everything else `status` and the server's name; `/slow` only when it is let go.
pub struct Moody {
    pub address: SocketAddr,
    pub status: Arc<AtomicU16>,
    pub health: Arc<AtomicU16>,
    /// Header lines of every answer.
    pub headers: Arc<Mutex<String>>,
    pub checks: Arc<AtomicU32>,
    pub connections: Arc<AtomicU32>,
    /// So many answers to `/slow` may go out.
    pub let_go: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Moody {
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, health) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
        let headers = Arc::<Mutex<String>>::default();
        let (checks, connections): (Arc<AtomicU32>, Arc<AtomicU32>) = Default::default();
        let let_go = Arc::new(Semaphore::new(0));
        let shared = (status.clone(), health.clone(), headers.clone(), checks.clone(), let_go.clone());
        let counted = connections.clone();
        let task = tokio::spawn(async move {
            let (status, health, headers, checks, let_go) = shared;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, SeqCst);
                let mood = (status.clone(), health.clone(), headers.clone(), checks.clone(), let_go.clone());
                tokio::spawn(serve(stream, name, mood));
            }
        });
        Self { address, status, health, headers, checks, connections, let_go, task }
    }
}

impl Drop for Moody {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Mood = (Arc<AtomicU16>, Arc<AtomicU16>, Arc<Mutex<String>>, Arc<AtomicU32>, Arc<Semaphore>);

async fn serve(mut stream: TcpStream, name: &'static str, (status, health, headers, checks, let_go): Mood) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while !seen.windows(4).any(|w| w == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(n @ 1..) => seen.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&seen).into_owned();
        seen.clear();
        let checked = head.contains(" /healthz");
        let code = if checked { health.load(SeqCst) } else { status.load(SeqCst) };
        if checked {
            checks.fetch_add(1, SeqCst);
        }
        if head.contains(" /slow") {
            let_go.acquire().await.unwrap().forget();
        }
        let more = headers.lock().unwrap().clone();
        let answer = format!("HTTP/1.1 {code} x\r\ncontent-length: {}\r\n{more}\r\n{name}", name.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Speaks the gRPC health protocol: says the number that it holds.
pub async fn grpc_health(number: Arc<AtomicU8>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let number = number.clone();
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let number = number.load(SeqCst);
                async move {
                    let asked = request.uri().path() == "/grpc.health.v1.Health/Check";
                    let body = if asked { vec![0, 0, 0, 0, 2, 8, number] } else { b"served".to_vec() };
                    let trailers =
                        [("grpc-status".parse::<http::HeaderName>().unwrap(), "0".parse().unwrap())].into_iter();
                    let mut frames = vec![Ok::<_, Infallible>(Frame::data(Bytes::from(body)))];
                    if asked {
                        frames.push(Ok(Frame::trailers(trailers.collect())));
                    }
                    Ok::<_, Infallible>(Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed()))
                }
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, task)
}

/// A name server that knows one thing: the addresses of every name, or a code of failure.
pub struct Names {
    pub address: SocketAddr,
    /// IPv4 addresses, how long they count, and a response code; [`SILENT`] for none.
    pub script: Arc<Mutex<(Vec<[u8; 4]>, u32, u8)>>,
    pub questions: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

/// No response at all.
pub const SILENT: u8 = 255;

impl Names {
    pub async fn start(addresses: &[[u8; 4]], ttl: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let script = Arc::new(Mutex::new((addresses.to_vec(), ttl, 0)));
        let questions = Arc::<AtomicU32>::default();
        let (told, count) = (script.clone(), questions.clone());
        let task = tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (n, from) = socket.recv_from(&mut buffer).await.unwrap();
                let question = &buffer[..n];
                let is_a = question[n - 4..n - 2] == [0, 1];
                if is_a {
                    count.fetch_add(1, SeqCst);
                }
                let (addresses, ttl, code) = told.lock().unwrap().clone();
                if code == SILENT {
                    continue;
                }
                let addresses = if is_a && code == 0 { addresses } else { Vec::new() };
                let mut out = question.to_vec();
                (out[2], out[3], out[7]) = (0x81, 0x80 | code, u8::try_from(addresses.len()).unwrap());
                for address in addresses {
                    out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
                    out.extend_from_slice(&ttl.to_be_bytes());
                    out.extend_from_slice(&[0, 4]);
                    out.extend_from_slice(&address);
                }
                socket.send_to(&out, from).await.unwrap();
            }
        });
        Self { address, script, questions, task }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}
