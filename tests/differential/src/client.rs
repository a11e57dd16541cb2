//! Clients: raw sockets that send the same bytes to both sides and write down what comes back.

use crate::{
    backend::{Stage, brief},
    certs::certs,
    http1::{Duplex, Gone, Message, Wire},
    place::Place,
    script::{Case, Client, Piece, Step, Tls},
    world::World,
};
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::{Value, json};
use socket2::{SockRef, Socket};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UnixStream},
};
use tombolo_tests_kit::trusting;

/// How long a client waits for anything.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long it waits for what must come.
const MORE_PATIENCE: Duration = Duration::from_secs(30);
/// How long it waits at the end for the connection to close.
const LINGER: Duration = Duration::from_millis(130);

/// Facts by name.
pub type Facts = BTreeMap<String, Value>;

/// What a client saw, and its port.
pub struct Outcome {
    /// What it saw.
    pub facts: Facts,
    /// Its port, by which the access log names it.
    pub port: u16,
}

struct Dialled {
    stream: Box<dyn Duplex>,
    socket: Option<Socket>,
    port: u16,
}

/// Where a client plays.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// Its side.
    pub world: &'a World,
    /// The places of its scenario there.
    pub place: &'a Place,
    /// What its backends share.
    pub stage: &'a Stage,
    /// What its requests say in `x-case`.
    pub tag: &'a str,
}

impl Scene<'_> {
    /// Takes a resource away.
    pub fn remove(&self, kind: &str, name: &str) {
        self.world.ads.remove(&format!("{}{kind}", crate::resource::URL), &self.place.fill(name));
    }

    /// Shows a resource.
    ///
    /// # Panics
    /// When the table has one that is none.
    pub fn put(&self, resource: &Value) {
        let filled = self.place.fill_json(resource);
        crate::ads::put(&self.world.ads, crate::resource::encode(&[filled]).expect("a resource of a table is one"));
    }

    /// Plays what is not about one request.
    pub async fn change(&self, piece: &Piece) {
        match piece {
            Piece::Sleep(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
            Piece::Remove(kind, name) => self.remove(kind, name),
            Piece::Put(resource) => self.put(resource),
            Piece::Data(_) | Piece::Await(_) | Piece::Trailers(_) | Piece::End | Piece::Reset(_) => {}
        }
    }

    /// Waits until a listener takes connections; false when it never does.
    async fn listens(&self, listener: u16) -> bool {
        let deadline = std::time::Instant::now() + MORE_PATIENCE;
        while std::time::Instant::now() < deadline {
            if TcpStream::connect(self.place.listener(listener)).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Asks for a path until a status comes; false when it never does.
    async fn until(&self, listener: u16, path: &str, status: u16) -> bool {
        let request = format!("GET {path} HTTP/1.1\r\nhost: svc.test\r\nx-case: until\r\nconnection: close\r\n\r\n");
        let deadline = std::time::Instant::now() + MORE_PATIENCE;
        while std::time::Instant::now() < deadline {
            if let Ok(stream) = TcpStream::connect(self.place.listener(listener)).await {
                let mut wire = Wire::new(Box::new(stream), PATIENCE);
                wire.write(request.as_bytes()).await;
                if wire.answer(false).await.is_ok_and(|answer| answer.status() == status) {
                    return true;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

/// Plays the client of a case once.
pub async fn play(scene: Scene<'_>, case: &Case) -> Outcome {
    let mut facts = Facts::new();
    let place = scene.place;
    if let Client::Http3(calls) = &case.client {
        let port = crate::http3::run(scene, case, calls, &mut facts).await;
        return Outcome { facts, port };
    }
    let dialled = match dial(place, case, &mut facts).await {
        Ok(dialled) => dialled,
        Err(port) => return Outcome { facts, port },
    };
    let port = dialled.port;
    match &case.client {
        Client::Raw(steps) => {
            let mut session =
                Session { wire: Wire::new(dialled.stream, PATIENCE), facts, answers: 0, on: case.on, scene };
            session.run(steps, dialled.socket).await;
            facts = session.facts;
        }
        Client::Http2(calls) => crate::http2::run(scene, dialled.stream, calls, &mut facts).await,
        Client::Http3(_) => {}
    }
    Outcome { facts, port }
}

/// Connects; an error is the port of a connection that failed later.
async fn dial(place: &Place, case: &Case, facts: &mut Facts) -> Result<Dialled, u16> {
    if case.unix {
        let Ok(stream) = UnixStream::connect(place.socket(case.on)).await else {
            facts.insert("connect".into(), json!("failed"));
            return Err(0);
        };
        return Ok(Dialled { stream: Box::new(stream), socket: None, port: 0 });
    }
    let Ok(mut tcp) = TcpStream::connect(place.listener(case.on)).await else {
        facts.insert("connect".into(), json!("failed"));
        return Err(0);
    };
    let _ = tcp.set_nodelay(true);
    let port = tcp.local_addr().map_or(0, |a| a.port());
    let socket = SockRef::from(&tcp).try_clone().ok();
    let _ = tcp.write_all(place.fill(&String::from_utf8_lossy(&case.before)).as_bytes()).await;
    let Some(tls) = &case.tls else { return Ok(Dialled { stream: Box::new(tcp), socket, port }) };
    match secure(tcp, tls, facts).await {
        Some(stream) => Ok(Dialled { stream, socket, port }),
        None => Err(port),
    }
}

async fn secure(tcp: TcpStream, tls: &Tls, facts: &mut Facts) -> Option<Box<dyn Duplex>> {
    let name = if tls.sni.is_empty() { "127.0.0.1" } else { tls.sni };
    let name = ServerName::try_from(name).expect("names of the tables are names");
    let connector = tokio_rustls::TlsConnector::from(client_config(tls));
    let done = tokio::time::timeout(PATIENCE, connector.connect(name, tcp)).await;
    let Ok(Ok(stream)) = done else {
        facts.insert("tls".into(), json!(if done.is_err() { "quiet" } else { "failed" }));
        return None;
    };
    let connection = stream.get_ref().1;
    let shown = connection.peer_certificates().and_then(|c| c.first()).map(|c| certs().name(c));
    facts.insert("tls.certificate".into(), json!(shown));
    facts.insert("tls.alpn".into(), json!(connection.alpn_protocol().map(String::from_utf8_lossy)));
    facts.insert("tls.version".into(), json!(format!("{:?}", connection.protocol_version())));
    Some(Box::new(stream))
}

pub(crate) fn client_config(tls: &Tls) -> Arc<ClientConfig> {
    let versions: &[&rustls::SupportedProtocolVersion] = match tls.only {
        Some(12) => &[&rustls::version::TLS12],
        Some(_) => &[&rustls::version::TLS13],
        None => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    // Which certificate was shown is a fact, not a reason to leave.
    let builder = trusting(versions);
    let mut config = match tls.certificate.map(|name| certs().of(name)) {
        Some(made) => builder.with_client_auth_cert(made.der(), made.key()).expect("a certificate made here"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = tls.alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

struct Session<'a> {
    wire: Wire,
    facts: Facts,
    answers: u32,
    on: u16,
    scene: Scene<'a>,
}

impl Session<'_> {
    async fn run(&mut self, steps: &[Step], socket: Option<Socket>) {
        for step in steps {
            if !self.step(step, socket.as_ref()).await {
                return;
            }
        }
        self.wire.deadline = std::time::Instant::now() + LINGER;
        let (extra, gone) = self.wire.rest().await;
        self.fact("closed", json!(gone != Gone::Quiet));
        if !extra.is_empty() {
            self.fact("extra", json!(self.scene.place.plain(&brief(&extra))));
        }
    }

    fn fact(&mut self, name: &str, value: Value) {
        self.facts.insert(name.to_owned(), value);
    }

    /// Takes one step; false ends the session.
    async fn step(&mut self, step: &Step, socket: Option<&Socket>) -> bool {
        match step {
            Step::Send(bytes) => {
                let bytes = replace(bytes, b"@CASE@", self.scene.tag.as_bytes());
                let bytes = replace(&bytes, b"$ip", self.scene.place.ip.as_bytes());
                self.wire.write(&bytes).await;
            }
            Step::Sleep(millis) => tokio::time::sleep(Duration::from_millis(*millis)).await,
            Step::Shut => {
                let _ = self.wire.stream.shutdown().await;
            }
            Step::Answer => return self.answer(false).await,
            Step::AnswerToHead => return self.answer(true).await,
            Step::AnswerToConnect => return self.answer(true).await,
            Step::AnswerSlowly(millis) => {
                self.wire.pace = Duration::from_millis(*millis);
                let more = self.answer(false).await;
                self.wire.pace = Duration::ZERO;
                return more;
            }
            Step::Read(n) => {
                let read = self.wire.exact(*n).await;
                let text = match &read {
                    Ok(bytes) => brief(bytes),
                    Err(gone) => format!("{} then {}", brief(&self.wire.buffer), gone.word()),
                };
                self.answers += 1;
                let name = format!("read{}", self.answers);
                self.fact(&name, json!(text));
                return read.is_ok();
            }
            Step::ReadEnd => {
                let (bytes, gone) = self.wire.rest().await;
                self.answers += 1;
                let name = format!("read{}", self.answers);
                self.fact(&name, json!(format!("{} then {}", brief(&bytes), gone.word())));
                return false;
            }
            Step::Reset => {
                if let Some(socket) = socket {
                    let _ = socket.set_linger(Some(Duration::ZERO));
                }
                return false;
            }
            Step::Remove(kind, name) => self.scene.remove(kind, name),
            Step::Put(resource) => self.scene.put(resource),
            Step::Health(backend, health) => self.scene.stage.set_health(*backend, *health),
            Step::Listens(n) => {
                let listens = self.scene.listens(*n).await;
                self.fact(&format!("listens {n}"), json!(listens));
            }
            Step::Until(path, status) => {
                let came = self.scene.until(self.on, path, *status).await;
                self.fact(&format!("until {path} {status}"), json!(came));
            }
        }
        true
    }

    async fn answer(&mut self, bare: bool) -> bool {
        self.answers += 1;
        let prefix = if self.answers == 1 { "answer".to_owned() } else { format!("answer{}", self.answers) };
        match self.wire.answer(bare).await {
            Ok(message) => {
                let whole = message.broken.is_none();
                note_message(self.scene.place, &mut self.facts, &prefix, &message);
                whole
            }
            Err(gone) => {
                let rest = brief(&self.wire.buffer);
                self.fact(&prefix, json!(format!("{rest}{}", gone.word())));
                false
            }
        }
    }
}

fn replace(bytes: &[u8], word: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == word[0] && bytes[at..].starts_with(word) {
            out.extend_from_slice(by);
            at += word.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// Fields as they are compared: their order says nothing.
#[must_use]
pub fn plain_fields(place: &Place, fields: &[(String, String)]) -> Value {
    let mut plain: Vec<(String, String)> = fields.iter().map(|(n, v)| place.plain_header(n, v)).collect();
    plain.sort();
    json!(plain.iter().map(|(n, v)| format!("{n}: {v}")).collect::<Vec<_>>())
}

fn note_message(place: &Place, facts: &mut Facts, prefix: &str, message: &Message) {
    let mut put = |name: &str, value: Value| facts.insert(format!("{prefix}.{name}"), value);
    put("line", json!(message.line));
    put("headers", plain_fields(place, &message.headers));
    put("body", json!(place.plain(&brief(&message.body))));
    if !message.trailers.is_empty() {
        put("trailers", plain_fields(place, &message.trailers));
    }
    if let Some(broken) = &message.broken {
        put("broken", json!(broken));
    }
    for (n, (line, fields)) in message.interim.iter().enumerate() {
        put(&format!("interim{n}"), json!([line.split(' ').nth(1), plain_fields(place, fields)]));
    }
}
