//! A server behind the gateway that notes what arrives, exactly, and takes nothing that leaves a doubt.
//!
//! Its HTTP/1 is a reader of its own: what it cannot read in one way only, it notes as unclean. Its HTTP/2 is a library's.
//! All its connections are served by one thread of its own, in turns: whoever was answered a few times knows that what
//! had reached the server before was noted.

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

/// What the server saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The head of a request.
    Head(Head),
    /// The rest of the request whose head came before on this connection, with the bytes of its body.
    Whole(usize, Vec<u8>),
    /// The request whose head came before on this connection broke off.
    Broken(usize),
    /// Bytes that can be read in more than one way, or in none.
    Unclean(usize, String),
}

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which connection.
    pub connection: usize,
    /// Method.
    pub method: String,
    /// Target: path and query.
    pub target: String,
    /// Host or authority.
    pub host: String,
    /// Other fields, in small letters.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// All values of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }
}

type Notes = Arc<Mutex<Vec<Seen>>>;

/// A running server.
#[derive(Debug)]
pub struct Recorder {
    /// Where it listens.
    pub address: SocketAddr,
    notes: Notes,
    /// Ends the thread when it is dropped.
    _alive: oneshot::Sender<()>,
}

impl Recorder {
    /// One that speaks HTTP/1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn http1() -> Result<Self> {
        Self::start(false).await
    }

    /// One that speaks HTTP/2.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn http2() -> Result<Self> {
        Self::start(true).await
    }

    async fn start(version2: bool) -> Result<Self> {
        let notes = Notes::default();
        let shared = notes.clone();
        let (_alive, over) = oneshot::channel::<()>();
        let (say, address) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        std::thread::Builder::new().name("recorder".into()).spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = over => {}
                    () = serve(version2, shared, say) => {}
                }
            });
        })?;
        Ok(Self { address: address.await??, notes, _alive })
    }

    /// Takes what was seen since the last time.
    #[must_use]
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(version2: bool, notes: Notes, say: oneshot::Sender<std::io::Result<SocketAddr>>) {
    let listener = match TcpListener::bind("127.0.0.1:0").await {
        Ok(listener) => listener,
        Err(error) => return drop(say.send(Err(error))),
    };
    if say.send(listener.local_addr()).is_err() {
        return;
    }
    for number in 0.. {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        if version2 {
            tokio::spawn(serve2(stream, notes.clone()));
        } else {
            tokio::spawn(serve1(stream, notes.clone(), number));
        }
    }
}

fn note(notes: &Notes, seen: Seen) {
    notes.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
}

async fn serve1(mut stream: TcpStream, notes: Notes, number: usize) {
    let mut input = Vec::new();
    loop {
        let Some(end) = head_end(&mut stream, &mut input).await else {
            if !input.is_empty() {
                note(&notes, Seen::Unclean(number, format!("a rest of {:?}", String::from_utf8_lossy(&input))));
            }
            return;
        };
        let bytes: Vec<u8> = input.drain(..end).collect();
        let (head, framing) = match read_head(&bytes, number) {
            Ok(read) => read,
            Err(reason) => return note(&notes, Seen::Unclean(number, reason)),
        };
        let to_head = head.method == "HEAD";
        note(&notes, Seen::Head(head));
        match read_body(&mut stream, &mut input, framing).await {
            Ok(Some(body)) => note(&notes, Seen::Whole(number, body)),
            Ok(None) => return note(&notes, Seen::Broken(number)),
            Err(reason) => return note(&notes, Seen::Unclean(number, reason)),
        }
        let answer = if to_head { "" } else { "ok" };
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{answer}");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn head_end(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
            return Some(end + 4);
        }
        if !matches!(stream.read_buf(input).await, Ok(1..)) {
            return None;
        }
    }
}

enum Framing {
    Length(usize),
    Chunked,
}

/// A head, read without any mercy.
fn read_head(bytes: &[u8], connection: usize) -> Result<(Head, Framing), String> {
    let mut lines = exact_lines(&bytes[..bytes.len() - 2])?.into_iter();
    let line = lines.next().unwrap_or_default();
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("the line {line:?}")) };
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("no colon in {line:?}"))?;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(token) {
            return Err(format!("the name {name:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
    let mut head = Head { connection, method: method.into(), target: target.into(), host: String::new(), fields };
    let framing = match (&head.all("content-length")[..], &head.all("transfer-encoding")[..]) {
        ([], []) => Framing::Length(0),
        ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => {
            Framing::Length(length.parse().map_err(|_| format!("the length {length}"))?)
        }
        ([], ["chunked"]) => Framing::Chunked,
        (lengths, codings) => return Err(format!("the lengths {lengths:?} and the codings {codings:?}")),
    };
    match &head.all("host")[..] {
        [host] => head.host = (*host).to_owned(),
        hosts => return Err(format!("the hosts {hosts:?}")),
    }
    Ok((head, framing))
}

/// Lines that end in CR LF and hold neither apart from that, nor any other control but the tab.
fn exact_lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text: String = bytes.iter().map(|b| char::from(*b)).collect();
    let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
    lines.pop();
    for line in &lines {
        if line.starts_with([' ', '\t']) || line.chars().any(|c| c != '\t' && (c < ' ' || c == '\x7f')) {
            return Err(format!("the line {line:?}"));
        }
    }
    Ok(lines)
}

/// `None` when it breaks off.
async fn read_body(stream: &mut TcpStream, input: &mut Vec<u8>, framing: Framing) -> Result<Option<Vec<u8>>, String> {
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => {
            if !fill(stream, input, length).await {
                return Ok(None);
            }
            body.extend(input.drain(..length));
        }
        Framing::Chunked => loop {
            let Some(end) = line_end(stream, input).await else { return Ok(None) };
            let line: Vec<u8> = input.drain(..end + 2).take(end).collect();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.is_empty() || !line.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(format!("the chunk size {line:?}"));
            }
            let size = usize::from_str_radix(&line, 16).map_err(|e| e.to_string())?;
            if size == 0 {
                break;
            }
            if !fill(stream, input, size + 2).await {
                return Ok(None);
            }
            body.extend(input.drain(..size));
            if input.drain(..2).ne(*b"\r\n") {
                return Err("a chunk without its end".into());
            }
        },
    }
    if matches!(framing, Framing::Chunked) {
        // Trailers.
        loop {
            let Some(end) = line_end(stream, input).await else { return Ok(None) };
            let line: Vec<u8> = input.drain(..end + 2).collect();
            if end == 0 {
                break;
            }
            exact_lines(&line)?;
        }
    }
    Ok(Some(body))
}

async fn line_end(stream: &mut TcpStream, input: &mut Vec<u8>) -> Option<usize> {
    loop {
        if let Some(end) = input.windows(2).position(|w| w == b"\r\n") {
            return Some(end);
        }
        if !matches!(stream.read_buf(input).await, Ok(1..)) {
            return None;
        }
    }
}

async fn fill(stream: &mut TcpStream, input: &mut Vec<u8>, length: usize) -> bool {
    while input.len() < length {
        if !matches!(stream.read_buf(input).await, Ok(1..)) {
            return false;
        }
    }
    true
}

async fn serve2(stream: TcpStream, notes: Notes) {
    let service = service_fn(move |request| answer2(request, notes.clone()));
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.max_header_list_size(1 << 20);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer2(request: Request<Incoming>, notes: Notes) -> Result<Response<Full<Bytes>>, Infallible> {
    static STREAMS: AtomicUsize = AtomicUsize::new(1 << 20);
    // Streams are to this reader what connections are to the other one.
    let number = STREAMS.fetch_add(1, Ordering::Relaxed);
    let (parts, body) = request.into_parts();
    let text = |value: &http::HeaderValue| value.as_bytes().iter().map(|b| char::from(*b)).collect();
    let fields: Vec<(String, String)> = parts.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
    let head = Head {
        connection: number,
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        host: parts.uri.authority().map_or_else(String::new, ToString::to_string),
        fields,
    };
    for name in ["connection", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection", "host"] {
        if !head.all(name).is_empty() {
            note(&notes, Seen::Unclean(number, format!("the field {name}")));
        }
    }
    note(&notes, Seen::Head(head));
    match body.collect().await {
        Ok(body) => note(&notes, Seen::Whole(number, body.to_bytes().to_vec())),
        Err(_) => note(&notes, Seen::Broken(number)),
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}
