//! Scripted backends: they tell by the first bytes what is spoken to them, write down all of it and act as the case says. Owns
//! the stage that the backends of a scenario share.

mod bytes;
mod health;
mod version1;
mod version2;

pub(crate) use version2::{collect, map, send, why};

use crate::{
    certs::certs,
    http1::Duplex,
    place::Place,
    script::{Act, Case, Client, Health, Scenario},
};
use anyhow::Result;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use socket2::{SockRef, Socket};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener},
    sync::watch,
    task::JoinSet,
};

/// What one backend saw of one request or connection.
pub type Seen = Arc<Mutex<BTreeMap<String, Value>>>;

/// What the backends of a scenario on one side share.
#[derive(Default)]
pub struct Stage {
    inner: Mutex<Inner>,
    /// The client has something of an answer, or would not say so.
    has_some: watch::Sender<bool>,
    /// What health checks hear, and what they asked.
    health: Mutex<BTreeMap<u16, Health>>,
    checks: Mutex<BTreeMap<u16, BTreeSet<String>>>,
}

#[derive(Default)]
struct Inner {
    tag: String,
    script: BTreeMap<u16, VecDeque<Act>>,
    seen: Vec<Seen>,
}

impl Stage {
    /// Begins a case.
    ///
    /// # Panics
    /// Never: nobody panics with the lock.
    pub fn begin(&self, tag: &str, case: &Case) {
        self.has_some.send_replace(matches!(case.client, Client::Raw(_)));
        let mut inner = self.inner.lock().expect("nobody panics with it");
        *inner = Inner { tag: tag.to_owned(), ..Inner::default() };
        for (backend, act) in &case.script {
            inner.script.entry(*backend).or_default().push_back(act.clone());
        }
    }

    /// The client of streams got some of a body.
    pub fn has_some(&self) {
        self.has_some.send_replace(true);
    }

    /// Before an answer is broken off: what the reset of a stream overtakes is lost, and whether it does would be up to chance.
    async fn until_it_has_some(&self) {
        // A proxy may also keep what it has until it has more.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.has_some.subscribe().wait_for(|has| *has)).await;
    }

    /// What was seen since the case began.
    ///
    /// # Panics
    /// Never: nobody panics with the lock.
    #[must_use]
    pub fn seen(&self) -> Vec<BTreeMap<String, Value>> {
        let inner = self.inner.lock().expect("nobody panics with it");
        inner.seen.iter().map(|seen| seen.lock().expect("nobody panics with it").clone()).collect()
    }

    /// A backend is healthy, or not, from now on.
    ///
    /// # Panics
    /// Never: nobody panics with the lock.
    pub fn set_health(&self, backend: u16, health: Health) {
        self.health.lock().expect("nobody panics with it").insert(backend, health);
    }

    /// The health checks of each backend, whenever they came.
    ///
    /// # Panics
    /// Never: nobody panics with the lock.
    #[must_use]
    pub fn checks(&self) -> BTreeMap<u16, BTreeSet<String>> {
        self.checks.lock().expect("nobody panics with it").clone()
    }

    /// A health check arrives.
    fn check(&self, backend: u16, line: &str, mut fields: Vec<String>) -> Health {
        fields.sort();
        let asked = format!("{line} [{}]", fields.join(", "));
        self.checks.lock().expect("nobody panics with it").entry(backend).or_default().insert(asked);
        self.health.lock().expect("nobody panics with it").get(&backend).copied().unwrap_or(Health::Status(200))
    }

    /// A request of the case with this tag arrives. One of an earlier case takes nothing of the script.
    fn take(&self, backend: u16, tag: Option<&str>) -> (Act, Seen) {
        let mut inner = self.inner.lock().expect("nobody panics with it");
        let mine = tag.is_none_or(|tag| tag == inner.tag);
        let seen = Seen::default();
        note(&seen, "backend", json!(backend));
        if !mine {
            return (Act::default(), seen);
        }
        inner.seen.push(seen.clone());
        let Some(acts) = inner.script.get_mut(&backend) else { return (Act::default(), seen) };
        let act = match acts.front() {
            Some(act) if act.always => act.clone(),
            _ => acts.pop_front().unwrap_or_default(),
        };
        (act, seen)
    }
}

/// Writes a fact down.
fn note(seen: &Seen, fact: &str, value: Value) {
    seen.lock().expect("nobody panics with it").insert(fact.to_owned(), value);
}

/// A connection to a backend.
struct Connection {
    backend: u16,
    stage: Arc<Stage>,
    stream: Box<dyn Duplex>,
    /// The socket beneath, to break it off; Unix sockets have none.
    socket: Option<Socket>,
    /// What was learned before the first request: PROXY header, TLS.
    facts: BTreeMap<String, Value>,
}

impl Connection {
    /// Breaks off.
    fn reset(self) {
        if let Some(socket) = &self.socket {
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

/// The backends of a scenario on one side; they end when this is dropped.
pub struct Backends {
    /// What they share.
    pub stage: Arc<Stage>,
    _tasks: JoinSet<()>,
}

impl Backends {
    /// Listens.
    ///
    /// # Errors
    /// When a port is taken.
    pub async fn start(scenario: &Scenario, place: &Place) -> Result<Self> {
        let (stage, mut tasks) = (Arc::new(Stage::default()), JoinSet::new());
        for n in 0..scenario.backends {
            let listener = TcpListener::bind(place.backend(n)).await?;
            let bytes = scenario.bytes.contains(&n);
            tasks.spawn(accept(listener, n, bytes, stage.clone()));
        }
        let text = serde_json::to_string(&scenario.resources)?;
        if text.contains("$u9") {
            let listener = UnixListener::bind(place.socket(9))?;
            tasks.spawn(accept_unix(listener, stage.clone()));
        }
        Ok(Self { stage, _tasks: tasks })
    }
}

async fn accept(listener: TcpListener, backend: u16, bytes: bool, stage: Arc<Stage>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let stage = stage.clone();
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let socket = SockRef::from(&stream).try_clone().ok();
            if bytes {
                let facts = BTreeMap::new();
                bytes::serve(Connection { backend, stage, stream: Box::new(stream), socket, facts }).await;
            } else if let Some(connection) = recognise(backend, stage, stream, socket).await {
                serve(connection).await;
            }
        });
    }
}

async fn accept_unix(listener: UnixListener, stage: Arc<Stage>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let stage = stage.clone();
        connections.spawn(async move {
            let facts = [("unix".to_owned(), json!(true))].into();
            serve(Connection { backend: 9, stage, stream: Box::new(stream), socket: None, facts }).await;
        });
    }
}

/// Takes a PROXY header and TLS off.
async fn recognise(backend: u16, stage: Arc<Stage>, mut tcp: TcpStream, socket: Option<Socket>) -> Option<Connection> {
    let mut facts = BTreeMap::new();
    let mut first = [0; 1];
    tcp.peek(&mut first).await.ok()?;
    if matches!(first[0], b'P' | b'\r') {
        let mut start = [0; 6];
        while tcp.peek(&mut start).await.ok()? < 6 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if &start == b"PROXY " || start[0] == b'\r' {
            facts.insert("proxy".into(), json!(proxy_header(&mut tcp, start[0] == b'P').await?));
            tcp.peek(&mut first).await.ok()?;
        }
    }
    if first[0] != 0x16 {
        return Some(Connection { backend, stage, stream: Box::new(tcp), socket, facts });
    }
    let tls = match tokio_rustls::TlsAcceptor::from(server_config()).accept(tcp).await {
        Ok(tls) => tls,
        Err(_) => {
            let (_, seen) = stage.take(backend, None);
            note(&seen, "tls", json!("failed"));
            return None;
        }
    };
    let connection = tls.get_ref().1;
    let peer = connection.peer_certificates().and_then(|c| c.first()).map(|c| certs().name(c));
    facts.insert("tls.sni".into(), json!(connection.server_name()));
    facts.insert("tls.alpn".into(), json!(connection.alpn_protocol().map(String::from_utf8_lossy)));
    facts.insert("tls.version".into(), json!(format!("{:?}", connection.protocol_version())));
    facts.insert("tls.peer".into(), json!(peer));
    Some(Connection { backend, stage, stream: Box::new(tls), socket, facts })
}

async fn proxy_header(tcp: &mut TcpStream, v1: bool) -> Option<String> {
    let mut header = Vec::new();
    if v1 {
        while !header.ends_with(b"\n") {
            header.push(tcp.read_u8().await.ok()?);
        }
        let text = String::from_utf8_lossy(&header).into_owned();
        // The client's port is another in each run.
        let mut words: Vec<&str> = text.split_whitespace().collect();
        if words.len() == 6 {
            words[4] = "<port>";
        }
        return Some(words.join(" "));
    }
    header.resize(16, 0);
    tcp.read_exact(&mut header).await.ok()?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
    tcp.read_exact(&mut rest).await.ok()?;
    if header[13] != 0x11 || rest.len() < 12 {
        return Some(format!("v2 {:02x} {:02x} {rest:?}", header[12], header[13]));
    }
    let ip = |at: usize| std::net::Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]);
    let port = u16::from_be_bytes([rest[10], rest[11]]);
    Some(format!("v2 {:02x} {} {}:{port} {:?}", header[12], ip(0), ip(4), &rest[12..]))
}

/// Serves HTTP of the version that is spoken.
async fn serve(mut connection: Connection) {
    let mut start = [0; 3];
    if connection.stream.read_exact(&mut start).await.is_err() {
        return;
    }
    let stream = std::mem::replace(&mut connection.stream, Box::new(tokio::io::empty()));
    connection.stream = Box::new(Prefixed { start: start.to_vec(), stream });
    if &start == b"PRI" { version2::serve(connection).await } else { version1::serve(connection).await }
}

fn server_config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let mut roots = rustls::RootCertStore::empty();
            for pem in [&certs().ca, &certs().other_ca] {
                let pem = crate::certs::Identity { chain: pem.clone(), key: String::new() };
                roots.add_parsable_certificates(pem.der());
            }
            let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .allow_unauthenticated()
                .build()
                .expect("roots made here");
            let mut config = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .expect("the provider has both versions")
                .with_client_cert_verifier(clients)
                .with_cert_resolver(Arc::new(BySni));
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Arc::new(config)
        })
        .clone()
}

/// The provider of all TLS in this test.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Shows the certificate that the name asks for.
#[derive(Debug)]
struct BySni;

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = match hello.server_name() {
            Some("other.test") => "backend-other",
            Some("svc.test") => "svc",
            _ => "backend",
        };
        let made = certs().of(name);
        CertifiedKey::from_der(made.der(), made.key(), &provider()).ok().map(Arc::new)
    }
}

/// A stream of which the first bytes were read.
struct Prefixed {
    start: Vec<u8>,
    stream: Box<dyn Duplex>,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.start.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.start.len().min(buf.remaining());
        buf.put_slice(&self.start[..n]);
        self.start.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A body as it is written down: whole when short, by length and hash otherwise.
#[must_use]
pub fn brief(body: &[u8]) -> String {
    if body.len() <= 400 {
        return body.iter().map(|b| char::from(*b)).collect();
    }
    let hash = body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    format!("{} bytes, {hash:016x}", body.len())
}
