//! One connection of a client.
//!
//! Owns its life: one request after the other, each served in this one task, which also notices that the client went
//! away. Bytes that come early stay where they are until their turn. What is not HTTP/1 is answered once and heard no more.

use super::{
    GEAR,
    link::Link,
    writer::{self, Unsent, Writer},
};
use crate::{
    codec::{Arrived, Broken, Incoming, Tunnel, Upgrade},
    http::{
        Downstream,
        handle::{self, Gone},
        reply,
        response::Outgoing,
    },
    listen::{Handle, Signal},
    net::stream::Stream,
};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use std::{
    cell::RefCell,
    pin::{Pin, pin},
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
};
use tokio::sync::oneshot;
use tombolo_gateway_core::{
    config::{Metadata, Underscores},
    failure::{Failure, Kind},
    head::{Head, Protocol},
};
use tombolo_gateway_http1::{
    Decoded, Decoder, Framing, Refusal, RequestHead, Rules, Scanner, Target, Version, parse_request,
};

/// Room for the head of a request.
const HEAD_ROOM: usize = 2 * 1024;
/// Room for more of a body.
const BODY_ROOM: usize = 16 * 1024;
/// Bytes that may wait behind a request that is being served.
const EARLY: usize = 16 * 1024;

/// A client's connection, shared by its task and the body of the request under way.
pub(crate) struct Server {
    inner: RefCell<Inner>,
}

pub(super) struct Inner {
    pub(super) link: Link,
    scanner: Scanner,
    decoder: Decoder,
    trailers: bool,
    /// The client waits for a 100 (Continue) before it sends the body.
    expects: bool,
    /// What follows the head belongs to nobody yet: the connection may become something else.
    tunnel: bool,
    /// Counts requests, so that a body that outlived its own reads nothing of the next.
    turn: u64,
    broken: Option<Broken>,
    /// Told of a 100 (Continue) that was sent.
    handle: Rc<Handle>,
}

/// What is kept of a request for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) version: Version,
    /// HEAD was asked for.
    pub(super) head: bool,
    /// CONNECT was asked for.
    pub(super) connect: bool,
    /// The connection may stop being HTTP.
    pub(super) tunnel: bool,
    /// The client wants the connection to end.
    pub(super) close: bool,
}

/// A request that is to be answered.
struct Begun {
    handled: Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Gone>>>>,
    asked: Asked,
    tunnel: Option<oneshot::Sender<Tunnel>>,
}

/// How a request went.
enum After {
    /// The next one may come.
    Next,
    /// The connection ends; `patient`: its client may still be sending.
    Close { patient: bool },
    /// The connection is something else now.
    Tunnel,
    /// Nothing more can be said.
    Cut,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(downstream: &Rc<Downstream>, stream: Stream) {
    let server = Server::new(stream, downstream);
    downstream.handle.answers.set(true);
    let rules = rules(downstream);
    loop {
        let next = std::future::poll_fn(|cx| server.poll_next(cx, downstream, &rules)).await;
        // All boxed: an idle connection is as large as the largest of these futures.
        let after = match next {
            None => return,
            Some(Ok(begun)) => Box::pin(server.answer(downstream, begun)).await,
            Some(Err(kind)) => Box::pin(server.refuse(downstream, kind)).await,
        };
        match after {
            After::Next => {}
            After::Close { patient } => return Box::pin(server.close(downstream, patient)).await,
            After::Tunnel | After::Cut => return,
        }
    }
}

fn rules(downstream: &Downstream) -> Rules {
    let hcm = &downstream.hcm;
    Rules {
        max_bytes: usize::try_from(hcm.limits.headers_kb).unwrap_or(60).saturating_mul(1024),
        max_fields: usize::try_from(hcm.limits.headers).unwrap_or(100),
        http_10: hcm.http1.accept_http_10,
        any_method: hcm.http1.allow_custom_methods,
        refuse_underscores: hcm.limits.underscores == Underscores::Reject,
        chunked_length: hcm.http1.allow_chunked_length,
        absolute: hcm.http1.allow_absolute_url,
        spelling: hcm.http1.preserve_case,
    }
}

impl Server {
    fn new(stream: Stream, downstream: &Downstream) -> Rc<Self> {
        let inner = Inner {
            link: Link::new(stream),
            scanner: Scanner::new(),
            decoder: Decoder::new(Framing::None),
            trailers: downstream.hcm.http1.enable_trailers,
            expects: false,
            tunnel: false,
            turn: 0,
            broken: None,
            handle: downstream.handle.clone(),
        };
        Rc::new(Self { inner: RefCell::new(inner) })
    }

    /// The next request; `None` when there is no more.
    fn poll_next(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        downstream: &Rc<Downstream>,
        rules: &Rules,
    ) -> Poll<Option<Result<Begun, Kind>>> {
        let head = ready!(self.poll_head(cx, downstream, rules));
        Poll::Ready(head.map(|head| head.map(|head| self.begin(downstream, head))))
    }

    /// What serves a request, not yet begun. Only a connection with a request holds the memory that it takes.
    fn begin(self: &Rc<Self>, downstream: &Rc<Downstream>, parsed: RequestHead) -> Begun {
        let (arrived, asked, tunnel) = self.arrived(downstream, parsed);
        Begun { handled: Box::pin(handle::handle(downstream.clone(), arrived)), asked, tunnel }
    }

    /// The next head; `None` when there is no more.
    fn poll_head(
        &self,
        cx: &mut Context<'_>,
        downstream: &Downstream,
        rules: &Rules,
    ) -> Poll<Option<Result<RequestHead, Kind>>> {
        let signal = downstream.handle.poll_signal(cx);
        if signal == Signal::Close {
            return Poll::Ready(None);
        }
        let inner = &mut *self.inner.borrow_mut();
        loop {
            match inner.scanner.find(&inner.link.input, rules.max_bytes) {
                Err(refusal) => return Poll::Ready(Some(Err(kind(refusal)))),
                Ok(Some(found)) => {
                    let mut bytes = inner.link.first(found.end);
                    bytes.advance(found.start);
                    inner.scanner = Scanner::new();
                    let parsed = GEAR.with_borrow_mut(|gear| parse_request(&bytes, rules, &mut gear.names));
                    inner.link.tidy();
                    return Poll::Ready(Some(parsed.map_err(kind)));
                }
                Ok(None) => {}
            }
            if inner.link.ended {
                return Poll::Ready(None);
            }
            if downstream.handle.is_late() && inner.scanner.begun() {
                return Poll::Ready(Some(Err(Kind::RequestHeaderTimeout)));
            }
            let fresh = inner.link.input.is_empty();
            match inner.link.poll_read(cx, HEAD_ROOM) {
                Poll::Ready(Ok(1..)) => downstream.handle.arrived.store(true, Ordering::Relaxed),
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(None),
                // Nothing is under way and nothing new is wanted.
                Poll::Pending if signal == Signal::Drain && !inner.scanner.begun() => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
            if fresh
                && !inner.link.input.ends_with(b"\r\n\r\n")
                && memchr::memmem::find(&inner.link.input, b"\r\n\r\n").is_none()
            {
                inner.link.detach();
            }
        }
    }

    /// Serves one request.
    async fn answer(self: &Rc<Self>, downstream: &Rc<Downstream>, begun: Begun) -> After {
        let Begun { mut handled, asked, tunnel } = begun;
        let outcome = std::future::poll_fn(|cx| {
            if downstream.handle.poll_signal(cx) == Signal::Close {
                return Poll::Ready(None);
            }
            if let Poll::Ready(done) = handled.as_mut().poll(cx) {
                return Poll::Ready(done.ok());
            }
            // A client that is gone takes its request with it: whatever is held for it is dropped.
            if self.poll_gone(cx) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        drop(handled);
        let Some(response) = outcome else { return After::Cut };
        if let Some(give) = tunnel
            && !give.is_closed()
            && (response.status() == StatusCode::SWITCHING_PROTOCOLS
                || (asked.connect && response.status().is_success()))
        {
            return Box::pin(self.switch(downstream, response, give)).await;
        }
        self.respond(downstream, response, asked).await
    }

    /// Answers what is no request, without a head in the log: there was none.
    async fn refuse(self: &Rc<Self>, downstream: &Rc<Downstream>, kind: Kind) -> After {
        let failure = Failure::new(kind);
        let asked = Asked { version: Version::Http11, head: false, connect: false, tunnel: false, close: true };
        self.respond(downstream, reply::unread(downstream, failure), asked).await;
        After::Close { patient: true }
    }

    /// The request as the HTTP layer has it.
    fn arrived(
        self: &Rc<Self>,
        downstream: &Downstream,
        parsed: RequestHead,
    ) -> (Arrived, Asked, Option<oneshot::Sender<Tunnel>>) {
        let RequestHead { method, target, host, version, headers, framing, wishes, spelled } = parsed;
        let host = host.as_ref().map_or("", |h| h.to_str().unwrap_or_default());
        let (authority, path) = match &target {
            Target::Origin(path) => (host, text(path).to_owned()),
            Target::Absolute { authority, path } if path.starts_with(b"/") => (text(authority), text(path).to_owned()),
            Target::Absolute { authority, path } => (text(authority), format!("/{}", text(path))),
            Target::Authority(authority) => (text(authority), String::new()),
            Target::Asterisk => (host, "*".to_owned()),
        };
        let connect = method == Method::CONNECT;
        let upgrade = match headers.get(header::UPGRADE) {
            _ if connect => "CONNECT".to_owned(),
            Some(kind) if version == Version::Http11 && wishes.upgrade => kind.to_str().unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let close = wishes.close || (version == Version::Http10 && !wishes.keep_alive);
        let tunnel = !upgrade.is_empty() && !upgrade.eq_ignore_ascii_case("h2c");
        let asked = Asked { version, head: method == Method::HEAD, connect, tunnel, close };
        let (give, take) = if tunnel { Some(oneshot::channel()).unzip() } else { (None, None) };
        let body = self.begin_body(downstream, framing, version, &headers);
        self.inner.borrow_mut().tunnel = tunnel;
        let protocol = if version == Version::Http10 { Protocol::Http10 } else { Protocol::Http11 };
        let scheme = downstream.info.scheme();
        let (authority, metadata) = (authority.to_owned(), Metadata::default());
        let head = Head { method, scheme, authority, path, protocol, upgrade, headers, spelled, metadata };
        let head = Box::new(head);
        (Arrived { head, body, upgrade: take.map(Upgrade::Later) }, asked, give)
    }

    fn begin_body(
        self: &Rc<Self>,
        downstream: &Downstream,
        framing: Framing,
        version: Version,
        headers: &HeaderMap,
    ) -> Incoming {
        let mut inner = self.inner.borrow_mut();
        inner.decoder = Decoder::new(framing);
        inner.turn += 1;
        inner.broken = None;
        if framing == Framing::None {
            inner.expects = false;
            return Incoming::Empty;
        }
        let expected = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"100-continue");
        inner.expects = version == Version::Http11
            && !downstream.hcm.proxy_100_continue
            && headers.get(header::EXPECT).is_some_and(expected);
        Incoming::Http1Server(ServerBody { server: self.clone(), turn: inner.turn })
    }

    /// Whether the client is gone. Reads what comes early, within bounds.
    fn poll_gone(&self, cx: &mut Context<'_>) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        let link = &mut inner.link;
        loop {
            if link.ended {
                return true;
            }
            let whole = inner.decoder.is_over() || inner.tunnel;
            let full = if whole { link.input.len() >= EARLY } else { !link.input.is_empty() };
            if full {
                return false;
            }
            match link.poll_read(cx, HEAD_ROOM) {
                Poll::Pending => return false,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return true,
            }
        }
    }

    /// Whether the whole request was read.
    fn is_read(&self) -> bool {
        self.inner.borrow().decoder.is_over()
    }

    /// Writes a response.
    async fn respond(
        self: &Rc<Self>,
        downstream: &Rc<Downstream>,
        response: Response<Outgoing>,
        asked: Asked,
    ) -> After {
        let unread = asked.tunnel || !self.is_read();
        let draining = std::future::poll_fn(|cx| Poll::Ready(downstream.handle.poll_signal(cx))).await >= Signal::Last;
        let most = downstream.hcm.limits.requests_per_connection;
        let last = draining || (most != 0 && downstream.handle.requests.get() >= most);
        let mut writer = Writer::new(downstream, response, asked, unread || last);
        let written = std::future::poll_fn(|cx| {
            if downstream.handle.poll_signal(cx) == Signal::Close {
                return Poll::Ready(Err(Unsent::Gone));
            }
            let polled = writer.poll(cx, &self.inner);
            if polled.is_pending() && self.poll_gone(cx) {
                return Poll::Ready(Err(Unsent::Gone));
            }
            polled
        })
        .await;
        let linger = downstream.handle.linger.load(Ordering::Relaxed);
        match written {
            Err(Unsent::Gone) => After::Cut,
            // As in Envoy, a response that breaks off is let go of with patience.
            Err(Unsent::Broken) => After::Close { patient: true },
            Ok(()) if writer.closes() => After::Close { patient: unread || linger },
            Ok(()) => After::Next,
        }
    }

    /// Writes the head that ends HTTP on this connection and hands the connection over.
    async fn switch(
        self: &Rc<Self>,
        downstream: &Rc<Downstream>,
        response: Response<Outgoing>,
        give: oneshot::Sender<Tunnel>,
    ) -> After {
        let (parts, _) = response.into_parts();
        let written = std::future::poll_fn(|cx| {
            let link = &mut self.inner.borrow_mut().link;
            let sent = writer::switching(cx, link, parts.status, &parts.headers);
            Poll::Ready(sent)
        })
        .await;
        if written.is_err() || std::future::poll_fn(|cx| self.inner.borrow_mut().link.poll_flush(cx)).await.is_err() {
            return After::Cut;
        }
        let (over, ended) = oneshot::channel();
        let Some(stream) = self.inner.borrow_mut().link.take().map(Box::new) else { return After::Cut };
        if give.send(Tunnel::Client { stream, _over: over }).is_ok() {
            // The connection stays in the books for as long as the tunnel lasts.
            let closed = pin!(std::future::poll_fn(|cx| downstream.handle.poll_close(cx)));
            futures_util::future::select(ended, closed).await;
        }
        After::Tunnel
    }

    /// Ends the connection. A patient end reads on for a while, so that the answer is not lost to a reset.
    async fn close(&self, downstream: &Downstream, patient: bool) {
        let early = !self.inner.borrow().link.input.is_empty();
        let patience = downstream.hcm.timeouts.delayed_close;
        if (patient || early) && !patience.is_zero() {
            let closed = pin!(std::future::poll_fn(|cx| self.poll_drained(cx, downstream)));
            let _ = tokio::time::timeout(patience, closed).await;
        }
        let _ = std::future::poll_fn(|cx| self.inner.borrow_mut().link.poll_shutdown(cx)).await;
    }

    /// Ready when the client closed or the connection is told to end.
    fn poll_drained(&self, cx: &mut Context<'_>, downstream: &Downstream) -> Poll<()> {
        let link = &mut self.inner.borrow_mut().link;
        loop {
            link.input = BytesMut::new();
            if link.ended || downstream.handle.poll_signal(cx) == Signal::Close {
                return Poll::Ready(());
            }
            match ready!(link.poll_read(cx, HEAD_ROOM)) {
                Ok(1..) => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

/// What a refusal means for the client.
fn kind(refusal: Refusal) -> Kind {
    tracing::debug!(%refusal, "request refused");
    match refusal {
        Refusal::Malformed(_) => Kind::MalformedRequest,
        Refusal::Version => Kind::VersionTooLow,
        Refusal::TooLarge => Kind::HeadersTooLarge,
        Refusal::TooMany => Kind::TooManyHeaders,
        Refusal::Coding => Kind::UnsupportedTransferEncoding,
    }
}

fn text(bytes: &Bytes) -> &str {
    // Targets are ASCII.
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A request's body as it comes.
pub(crate) struct ServerBody {
    server: Rc<Server>,
    turn: u64,
}

impl ServerBody {
    /// As [`http_body::Body::poll_frame`].
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let inner = &mut *self.server.inner.borrow_mut();
        if inner.turn != self.turn {
            return Poll::Ready(None);
        }
        if let Some(broken) = &inner.broken {
            return Poll::Ready(Some(Err(broken.clone())));
        }
        let polled = inner.poll_body(cx);
        if let Poll::Ready(Some(Err(broken))) = &polled {
            inner.broken = Some(broken.clone());
        }
        polled
    }

    /// Whether all of it was read.
    pub(crate) fn is_over(&self) -> bool {
        let inner = self.server.inner.borrow();
        inner.turn != self.turn || inner.decoder.is_over()
    }

    /// What is left.
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.server.inner.borrow().decoder.exact().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The upstream wants the body: the client is told so.
    pub(crate) fn proceed(&self, headers: &HeaderMap) {
        let inner = &mut *self.server.inner.borrow_mut();
        if inner.turn == self.turn {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            // A client that is gone is noticed elsewhere.
            let _ = writer::proceed(&mut cx, &mut inner.link, headers);
        }
    }
}

impl Inner {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let broken = |kind, malformed| Poll::Ready(Some(Err(Broken { failure: Failure::new(kind), malformed })));
        loop {
            let decoded = GEAR.with_borrow_mut(|gear| self.decoder.decode(&mut self.link.input, &mut gear.names));
            self.link.tidy();
            match decoded {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(fields)) if self.trailers => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Decoded::Trailers(_) | Decoded::End) => return Poll::Ready(None),
                Err(_) => return broken(Kind::MalformedRequest, true),
                Ok(Decoded::Partial) => {}
            }
            if std::mem::take(&mut self.expects) && self.link.input.is_empty() {
                let sent = writer::proceed(cx, &mut self.link, &HeaderMap::new());
                if sent.is_err() {
                    return broken(Kind::DownstreamDisconnect, false);
                }
                self.handle.continued.set(true);
            }
            if self.link.ended {
                return broken(Kind::DownstreamDisconnect, false);
            }
            match ready!(self.link.poll_read(cx, BODY_ROOM)) {
                Ok(1..) => {}
                Ok(_) | Err(_) => return broken(Kind::DownstreamDisconnect, false),
            }
        }
    }
}
