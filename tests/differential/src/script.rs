//! What a case is made of: what a client does, what backends do. Data only; `client` and `backend` play it.

use serde_json::Value;

/// Header fields as they are written.
pub type Fields = Vec<(&'static str, &'static str)>;

/// What a backend does with one request.
#[derive(Debug, Clone, Default)]
pub struct Act {
    /// Answers with this; 200 when absent.
    pub status: Option<u16>,
    /// Further fields of the answer.
    pub headers: Fields,
    /// The body; the backend's name when absent.
    pub body: Option<Vec<u8>>,
    /// Trailers of the answer.
    pub trailers: Fields,
    /// Interim answers first.
    pub interim: Vec<(u16, Fields)>,
    /// Waits so many milliseconds before the answer.
    pub delay: u64,
    /// Waits so many milliseconds between head and body.
    pub body_delay: u64,
    /// How it ends.
    pub end: End,
    /// Sends these bytes instead of an answer, then closes (HTTP/1 and TCP).
    pub raw: Option<Vec<u8>>,
    /// Does the same for every further request of the case.
    pub always: bool,
    /// Answers at once and gives back what comes, piece by piece (HTTP/2).
    pub echo: bool,
    /// Answers an upgrade like any other request.
    pub no_upgrade: bool,
    /// Does not answer `expect: 100-continue`.
    pub no_continue: bool,
    /// Ends a gRPC answer in its head.
    pub trailers_only: bool,
}

/// How a backend ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum End {
    /// The connection stays.
    #[default]
    Keep,
    /// `connection: close`, and closes.
    Close,
    /// Resets the connection instead of an answer.
    Reset,
    /// Closes instead of an answer.
    Shut,
    /// Resets after half of the body.
    ResetInBody,
    /// Resets the HTTP/2 stream with this code instead of an answer.
    ResetStream(u32),
    /// Resets the HTTP/2 stream with this code after the body.
    ResetStreamInBody(u32),
    /// Says GOAWAY with the answer (HTTP/2).
    GoAway,
    /// Closes before it reads anything (TCP).
    ShutAtOnce,
}

/// An answer like any other.
#[must_use]
pub fn act() -> Act {
    Act::default()
}

impl Act {
    /// With a status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// With a field.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With a trailer.
    #[must_use]
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        self.trailers.push((name, value));
        self
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// After a delay.
    #[must_use]
    pub fn delay(mut self, millis: u64) -> Self {
        self.delay = millis;
        self
    }

    /// Ending so.
    #[must_use]
    pub fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// For all requests of the case.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// Bytes instead of an answer.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.raw = Some(bytes.to_vec());
        self
    }
}

/// What a backend says when its health is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// This status; a gRPC check hears SERVING with 200, NOT_SERVING with anything else.
    Status(u16),
    /// A gRPC check ends with this status.
    Grpc(&'static str),
    /// A gRPC check hears SERVING for this service alone, and that any other is unknown.
    Only(&'static str),
    /// Nothing.
    Silent,
}

/// What a raw client does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes bytes; `@CASE@` in them becomes the case's tag.
    Send(Vec<u8>),
    /// Waits so many milliseconds.
    Sleep(u64),
    /// Ends its half.
    Shut,
    /// Reads an HTTP/1 answer.
    Answer,
    /// Reads the answer to a HEAD.
    AnswerToHead,
    /// Reads an answer slowly: waits so many milliseconds before each read.
    AnswerSlowly(u64),
    /// Reads the answer to CONNECT, which has no body when it is a success.
    AnswerToConnect,
    /// Reads so many bytes.
    Read(usize),
    /// Reads until nothing comes any more.
    ReadEnd,
    /// Resets the connection.
    Reset,
    /// Takes a resource away: type and name.
    Remove(&'static str, &'static str),
    /// Shows a resource, new or changed.
    Put(Value),
    /// A backend is asked for its health from now on with this outcome.
    Health(u16, Health),
    /// Waits until a listener takes connections.
    Listens(u16),
    /// Asks with other connections for this path until the status comes.
    Until(&'static str, u16),
}

/// One request of an HTTP/2 or HTTP/3 client.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// The method; GET when empty.
    pub method: &'static str,
    /// The path; none for CONNECT.
    pub path: &'static str,
    /// The authority; `svc.test` when empty.
    pub authority: &'static str,
    /// The protocol of an extended CONNECT.
    pub protocol: &'static str,
    /// Further fields.
    pub headers: Fields,
    /// What follows the head; nothing: the request ends with it.
    pub body: Vec<Piece>,
    /// Does not wait for the answer before the next call.
    pub together: bool,
    /// What happens before it: waiting, and changes of resources.
    pub before: Vec<Piece>,
}

/// What follows the head of such a request.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Data.
    Data(Vec<u8>),
    /// Waits so many milliseconds.
    Sleep(u64),
    /// Waits until so many bytes of the answer are there.
    Await(usize),
    /// Ends with trailers.
    Trailers(Fields),
    /// Ends.
    End,
    /// Resets the stream with this code.
    Reset(u32),
    /// Takes a resource away: type and name.
    Remove(&'static str, &'static str),
    /// Shows a resource, new or changed.
    Put(Value),
}

/// What the client speaks.
#[derive(Debug, Clone)]
pub enum Client {
    /// Bytes.
    Raw(Vec<Step>),
    /// HTTP/2.
    Http2(Vec<Call>),
    /// HTTP/3.
    Http3(Vec<Call>),
}

/// TLS on the client's side.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Server name; none when empty.
    pub sni: &'static str,
    /// Application protocols.
    pub alpn: Vec<&'static str>,
    /// Only this version: 12 or 13.
    pub only: Option<u16>,
    /// Shows the certificate of this name, see `certs`.
    pub certificate: Option<&'static str>,
}

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name, unique in its scenario.
    pub name: &'static str,
    /// The listener that the client dials.
    pub on: u16,
    /// Dials the Unix socket of that number instead.
    pub unix: bool,
    /// TLS, when the client speaks it.
    pub tls: Option<Tls>,
    /// Sent before TLS.
    pub before: Vec<u8>,
    /// What the client does.
    pub client: Client,
    /// What backends do, in order, by their numbers.
    pub script: Vec<(u16, Act)>,
    /// Beginnings of facts that are not compared.
    pub ignore: &'static [&'static str],
    /// Waits so many milliseconds after it, for what happens late.
    pub settle: u64,
    /// The whole must take so many milliseconds: at least and at most.
    pub timing: Option<(u64, u64)>,
    /// So often; more than once compares counts only.
    pub repeat: u32,
}

/// A case of a client that sends and reads.
#[must_use]
pub fn raw(name: &'static str, steps: Vec<Step>) -> Case {
    Case {
        name,
        on: 0,
        unix: false,
        tls: None,
        before: Vec::new(),
        client: Client::Raw(steps),
        script: Vec::new(),
        ignore: &[],
        settle: 0,
        timing: None,
        repeat: 1,
    }
}

/// A case of one HTTP/1.1 request without a body.
#[must_use]
pub fn get(name: &'static str, path: &str, fields: &[(&str, &str)]) -> Case {
    raw(name, vec![Step::Send(request("GET", path, fields, b"")), Step::Answer])
}

/// A case of one HTTP/1.1 request with a body.
#[must_use]
pub fn post(name: &'static str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Case {
    raw(name, vec![Step::Send(request("POST", path, fields, body)), Step::Answer])
}

/// A case of HTTP/2 calls.
#[must_use]
pub fn http2(name: &'static str, calls: Vec<Call>) -> Case {
    Case { client: Client::Http2(calls), ..raw(name, Vec::new()) }
}

/// A case of HTTP/3 calls.
#[must_use]
pub fn http3(name: &'static str, calls: Vec<Call>) -> Case {
    Case { client: Client::Http3(calls), ..raw(name, Vec::new()) }
}

/// A call without a body.
#[must_use]
pub fn call(path: &'static str) -> Call {
    Call { path, ..Call::default() }
}

/// The bytes of a request. A `host` among the fields takes the place of `svc.test`.
#[must_use]
pub fn request(method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let named = |wanted: &str| fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !named("host") {
        text.push_str("host: svc.test\r\n");
    }
    text.push_str("x-case: @CASE@\r\n");
    if !body.is_empty() && !named("content-length") && !named("transfer-encoding") {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

impl Case {
    /// At another listener.
    #[must_use]
    pub fn on(mut self, listener: u16) -> Self {
        self.on = listener;
        self
    }

    /// At a Unix socket.
    #[must_use]
    pub fn unix(mut self, number: u16) -> Self {
        (self.on, self.unix) = (number, true);
        self
    }

    /// In TLS.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// After bytes of its own, before TLS.
    #[must_use]
    pub fn before(mut self, bytes: &[u8]) -> Self {
        self.before = bytes.to_vec();
        self
    }

    /// With a backend that acts next so.
    #[must_use]
    pub fn then(mut self, backend: u16, act: Act) -> Self {
        self.script.push((backend, act));
        self
    }

    /// Without these facts.
    #[must_use]
    pub fn ignoring(mut self, facts: &'static [&'static str]) -> Self {
        self.ignore = facts;
        self
    }

    /// Waiting after it.
    #[must_use]
    pub fn settling(mut self, millis: u64) -> Self {
        self.settle = millis;
        self
    }

    /// Within these times.
    #[must_use]
    pub fn within(mut self, least: u64, most: u64) -> Self {
        self.timing = Some((least, most));
        self
    }

    /// Many times.
    #[must_use]
    pub fn times(mut self, repeat: u32) -> Self {
        self.repeat = repeat;
        self
    }
}

/// Resources with the cases that they serve. Its name is unique.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Resources in JSON with `@type`, see `resource`.
    pub resources: Vec<serde_json::Value>,
    /// Backends that take bytes rather than HTTP; all others tell by themselves what is spoken.
    pub bytes: &'static [u16],
    /// How many backends there are.
    pub backends: u16,
    /// Its cases, played one after the other.
    pub cases: Vec<Case>,
    /// Milliseconds to wait before the first case, for example for health checks.
    pub warm: u64,
    /// A case changes what later ones see: where one differs, all are played again.
    pub stateful: bool,
    /// What each side says to its control plane is compared, too.
    pub wire: bool,
}

/// A scenario with two backends.
#[must_use]
pub fn scenario(name: &'static str, resources: Vec<serde_json::Value>, cases: Vec<Case>) -> Scenario {
    Scenario { name, resources, bytes: &[], backends: 2, cases, warm: 0, stateful: false, wire: false }
}
