//! One connection to an upstream.
//!
//! Owns the exchange on it: the request's head goes out with what of its body is here, the rest is pumped while the
//! response is waited for and read. Whoever polls the response drives both directions. Says whether the connection can
//! serve again; where it goes then is the pool's business.

use super::{GEAR, link::Link};
use crate::{
    codec::{Broken, Incoming, MOST_INTERIM, SendError, Spelling, Tunnel},
    http::body::{Body, BodyError},
    net::stream::Stream,
    upstream::pool::Books,
};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Response, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};
use tombolo_gateway_core::failure::{Failure, Kind};
use tombolo_gateway_http1::{
    Case, Decoded, Decoder, Framing, LAST_CHUNK, RequestLine, ResponseHead, Rules, Scanner, Version, chunk_start,
    parse_response, request_head, trailers,
};

/// Room for the head of a response with a small body.
const HEAD_ROOM: usize = 4 * 1024;
/// Room for more of a body.
const BODY_ROOM: usize = 16 * 1024;

/// A connection.
pub(crate) struct Client {
    inner: RefCell<Inner>,
    _books: Books,
}

struct Inner {
    link: Link,
    rules: Rules,
    case: Case,
    scanner: Scanner,
    decoder: Decoder,
    pump: Option<Pump>,
    /// The last response allows another request.
    reusable: bool,
    /// The server asked for the request's body.
    continued: bool,
    /// Interim responses so far.
    interim: u32,
    /// Counts requests, so that a body that outlived its own reads nothing of the next.
    turn: u64,
}

/// The rest of a request's body.
struct Pump {
    body: Body,
    framing: Framing,
}

/// A request as it is written.
pub(crate) struct Outbound<'a> {
    /// Request line and host.
    pub(crate) line: RequestLine<'a>,
    /// Fields.
    pub(crate) headers: &'a HeaderMap,
    /// How the body is framed.
    pub(crate) framing: Framing,
    /// The connection may become a tunnel.
    pub(crate) tunnel: bool,
    /// Told of a 100 (Continue).
    pub(crate) proceed: Option<&'a dyn Fn(HeaderMap)>,
}

impl Outbound<'_> {
    /// The server may answer before it has taken the body.
    fn expects(&self) -> bool {
        self.framing != Framing::None && self.headers.contains_key(header::EXPECT)
    }
}

impl Client {
    /// A fresh connection.
    pub(crate) fn new(stream: Stream, rules: Rules, case: Case, books: Books) -> Rc<Self> {
        let inner = Inner {
            link: Link::new(stream),
            rules,
            case,
            scanner: Scanner::new(),
            decoder: Decoder::new(Framing::None),
            pump: None,
            reusable: true,
            continued: false,
            interim: 0,
            turn: 0,
        };
        Rc::new(Self { inner: RefCell::new(inner), _books: books })
    }

    /// Whether an idle connection is still there. Costs a system call only when something arrived.
    pub(crate) fn is_alive(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        let link = &mut inner.link;
        let mut cx = Context::from_waker(Waker::noop());
        // Whatever an idle server says, it is not an answer to what will be asked.
        !link.ended && link.input.is_empty() && link.poll_read(&mut cx, 64).is_pending()
    }

    /// Whether the last exchange left it fit for another.
    pub(crate) fn is_reusable(&self) -> bool {
        let inner = self.inner.borrow();
        inner.reusable
            && inner.pump.is_none()
            && inner.decoder.is_over()
            && inner.link.is_flushed()
            && inner.link.input.is_empty()
            && !inner.link.ended
    }

    /// The connection itself, once the response's head was read.
    pub(crate) fn take_tunnel(&self) -> Option<Tunnel> {
        let stream = self.inner.borrow_mut().link.take()?;
        Some(Tunnel::Upstream(Box::new(stream)))
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// When the connection ends, the server breaks the rules, or the client's body breaks off.
    pub(crate) async fn send(self: &Rc<Self>, out: Outbound<'_>, body: Body) -> Result<Response<Incoming>, SendError> {
        let to_head = out.line.method == "HEAD";
        let mut body = Some(body);
        std::future::poll_fn(|cx| {
            if let Some(body) = body.take() {
                self.inner.borrow_mut().begin(cx, &out, body);
            }
            self.poll_head(cx, &out, to_head)
        })
        .await
    }

    fn poll_head(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        out: &Outbound<'_>,
        to_head: bool,
    ) -> Poll<Result<Response<Incoming>, SendError>> {
        let mut inner = self.inner.borrow_mut();
        inner.poll_pump(cx).map_err(sent)?;
        loop {
            let head = ready!(inner.poll_response(cx, to_head)).map_err(sent)?;
            if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                inner.interim += 1;
                if inner.interim > MOST_INTERIM {
                    return Poll::Ready(Err(sent(Failure::new(Kind::UpstreamProtocol))));
                }
                if head.status == StatusCode::CONTINUE {
                    inner.continued = true;
                    if let Some(proceed) = out.proceed {
                        proceed(head.headers);
                    }
                }
                continue;
            }
            // A CONNECT names nothing to switch to: it becomes a tunnel by success alone.
            let agreed = if out.line.method == "CONNECT" {
                head.status.is_success()
            } else {
                head.status == StatusCode::SWITCHING_PROTOCOLS
            };
            let tunnel = out.tunnel && agreed;
            if head.status == StatusCode::SWITCHING_PROTOCOLS && !tunnel {
                return Poll::Ready(Err(sent(Failure::new(Kind::UpstreamProtocol))));
            }
            let incoming =
                if tunnel { Incoming::Empty } else { inner.begin_body(&head).unwrap_or_else(|| self.body(inner.turn)) };
            // Whatever a server makes of an upgrade that it did not agree to, nobody else is to be part of it; and whether
            // one that did not ask for a body waits for it, or takes it for a request, only it knows.
            inner.reusable &= !out.tunnel && (inner.continued || !out.expects());
            let mut response = Response::new(incoming);
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers;
            if let Some(spelled) = head.spelled {
                response.extensions_mut().insert(Spelling(spelled));
            }
            return Poll::Ready(Ok(response));
        }
    }

    fn body(self: &Rc<Self>, turn: u64) -> Incoming {
        Incoming::Http1Client(ClientBody { client: self.clone(), turn })
    }
}

fn sent(failure: Failure) -> SendError {
    SendError { failure, unsent: false }
}

impl Inner {
    /// Writes the head with what of the body is here.
    fn begin(&mut self, cx: &mut Context<'_>, out: &Outbound<'_>, mut body: Body) {
        let link = &mut self.link;
        self.turn += 1;
        self.scanner = Scanner::new();
        self.reusable = false;
        self.continued = false;
        self.interim = 0;
        let mut ended = body.is_end_stream();
        let (mut data, mut fields) = (Bytes::new(), None);
        if !ended {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => data = piece,
                    Err(frame) => fields = frame.into_trailers().ok(),
                },
                Poll::Ready(None) => ended = true,
                // The head goes out all the same: that is how far the request came.
                Poll::Ready(Some(Err(_))) | Poll::Pending => {}
            }
        }
        let over = ended || fields.is_some() || body.is_end_stream();
        let mut framing = out.framing;
        let case = self.case;
        let written = GEAR.with_borrow_mut(|gear| {
            gear.out.clear();
            request_head(out.line, out.headers, framing, case, &mut gear.out);
            let mut tail: &[u8] = b"";
            match &mut framing {
                Framing::Chunked => {
                    if let Some(fields) = &fields {
                        trailers(fields, case, &mut gear.out);
                    } else if !data.is_empty() {
                        let (line, length) = chunk_start(data.len());
                        gear.out.extend_from_slice(&line[..length]);
                        tail = if over { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                    } else if over {
                        tail = LAST_CHUNK;
                    }
                }
                Framing::Length(left) => *left = left.saturating_sub(data.len() as u64),
                Framing::None | Framing::UntilClose => {}
            }
            link.send(cx, &gear.out, data, tail)
        });
        self.pump = (!over).then_some(Pump { body, framing });
        if written.is_err() {
            // The server may have answered before it closed.
            self.pump = None;
        }
    }

    /// Moves what can be moved of the request's body.
    fn poll_pump(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let link = &mut self.link;
        if self.pump.is_none() && link.is_flushed() {
            return Ok(());
        }
        loop {
            match link.poll_flush(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.pump = None;
                    return Ok(());
                }
            }
            let Some(pump) = &mut self.pump else { return Ok(()) };
            let written = match Pin::new(&mut pump.body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(frame))) => pump.write(cx, link, frame),
                Poll::Ready(Some(Err(error))) => {
                    self.pump = None;
                    return Err(Failure::new(match error {
                        BodyError::Downstream => Kind::DownstreamDisconnect,
                        BodyError::Upstream | BodyError::Timeout | BodyError::Behind => Kind::LocalReset,
                    }));
                }
                Poll::Ready(None) => pump.finish(cx, link).map(|()| true),
            };
            match written {
                Ok(false) => {}
                // Done, or the server takes nothing more; it may have answered.
                Ok(true) | Err(_) => self.pump = None,
            }
        }
    }

    /// Reads the next head.
    fn poll_response(&mut self, cx: &mut Context<'_>, to_head: bool) -> Poll<Result<ResponseHead, Failure>> {
        let link = &mut self.link;
        loop {
            let protocol = |_| Failure::new(Kind::UpstreamProtocol);
            if let Some(found) = self.scanner.find(&link.input, self.rules.max_bytes).map_err(protocol)? {
                let mut bytes = link.first(found.end);
                bytes.advance(found.start);
                self.scanner = Scanner::new();
                let parsed = GEAR
                    .with_borrow_mut(|gear| parse_response(&bytes, &self.rules, &mut gear.names, to_head))
                    .map_err(protocol);
                link.tidy();
                return Poll::Ready(parsed);
            }
            let empty = link.input.is_empty();
            match ready!(link.poll_read(cx, HEAD_ROOM)) {
                Ok(1..) => {}
                Ok(_) | Err(_) => {
                    let kind = if empty { Kind::UpstreamClosed } else { Kind::UpstreamProtocol };
                    return Poll::Ready(Err(Failure::new(kind)));
                }
            }
        }
    }

    /// What the head says of the body; `Some` when there is none, or all of it is here.
    fn begin_body(&mut self, head: &ResponseHead) -> Option<Incoming> {
        let keeps = match head.version {
            Version::Http11 => !head.wishes.close,
            Version::Http10 => head.wishes.keep_alive && !head.wishes.close,
        };
        self.reusable = keeps && head.framing != Framing::UntilClose;
        self.decoder = Decoder::new(head.framing);
        let link = &mut self.link;
        match head.framing {
            Framing::None => Some(Incoming::Empty),
            Framing::Length(length) if self.pump.is_none() && link.input.len() as u64 >= length => {
                let data = usize::try_from(length).ok().map(|length| link.first(length))?;
                link.tidy();
                self.decoder = Decoder::new(Framing::None);
                Some(Incoming::Full(Some(data)))
            }
            _ => None,
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let protocol = || Broken { failure: Failure::new(Kind::UpstreamProtocol), malformed: true };
        if let Err(failure) = self.poll_pump(cx) {
            return Poll::Ready(Some(Err(Broken { failure, malformed: false })));
        }
        let link = &mut self.link;
        loop {
            let decoded = GEAR.with_borrow_mut(|gear| self.decoder.decode(&mut link.input, &mut gear.names));
            link.tidy();
            match decoded {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(fields)) => return Poll::Ready(Some(Ok(Frame::trailers(fields)))),
                Ok(Decoded::End) => return Poll::Ready(None),
                Err(_) => {
                    self.reusable = false;
                    return Poll::Ready(Some(Err(protocol())));
                }
                Ok(Decoded::Partial) => {}
            }
            match ready!(link.poll_read(cx, BODY_ROOM)) {
                Ok(1..) => {}
                Ok(_) if self.decoder.close() => return Poll::Ready(None),
                Ok(_) | Err(_) => return Poll::Ready(Some(Err(protocol()))),
            }
        }
    }
}

impl Pump {
    /// Writes a piece; true when it was the last.
    fn write(&mut self, cx: &mut Context<'_>, link: &mut Link, frame: Frame<Bytes>) -> std::io::Result<bool> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                if let (Framing::Chunked, Some(fields)) = (self.framing, frame.trailers_ref()) {
                    let mut out = Vec::new();
                    trailers(fields, Case::Lower, &mut out);
                    link.send(cx, &out, Bytes::new(), b"")?;
                }
                return Ok(true);
            }
        };
        let over = self.body.is_end_stream();
        match &mut self.framing {
            Framing::Chunked if data.is_empty() => {
                if over {
                    link.send(cx, LAST_CHUNK, data, b"")?;
                }
            }
            Framing::Chunked => {
                let (line, length) = chunk_start(data.len());
                link.send(cx, &line[..length], data, if over { b"\r\n0\r\n\r\n" } else { b"\r\n" })?;
            }
            Framing::Length(left) => {
                let length = data.len() as u64;
                if length > *left {
                    // More than was announced would be read as another request.
                    return Err(std::io::ErrorKind::InvalidData.into());
                }
                *left -= length;
                link.send(cx, b"", data, b"")?;
            }
            Framing::None | Framing::UntilClose => {}
        }
        Ok(over)
    }

    fn finish(&mut self, cx: &mut Context<'_>, link: &mut Link) -> std::io::Result<()> {
        match self.framing {
            Framing::Chunked => link.send(cx, LAST_CHUNK, Bytes::new(), b""),
            // Less than was announced: the server waits for what never comes.
            Framing::Length(1..) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            Framing::Length(_) | Framing::None | Framing::UntilClose => Ok(()),
        }
    }
}

/// A response's body as it comes.
pub(crate) struct ClientBody {
    client: Rc<Client>,
    turn: u64,
}

impl ClientBody {
    /// As [`http_body::Body::poll_frame`].
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut inner = self.client.inner.borrow_mut();
        if inner.turn != self.turn {
            return Poll::Ready(None);
        }
        inner.poll_body(cx)
    }

    /// Moves what can be moved of the request's body while nobody asks for the response's.
    pub(crate) fn poll_pump(&self, cx: &mut Context<'_>) {
        // A failure is seen by whoever asks next.
        let _ = self.client.inner.borrow_mut().poll_pump(cx);
    }

    /// Whether all of it was read.
    pub(crate) fn is_over(&self) -> bool {
        let inner = self.client.inner.borrow();
        inner.turn != self.turn || inner.decoder.is_over()
    }

    /// What is left.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.client.inner.borrow().decoder.exact().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
