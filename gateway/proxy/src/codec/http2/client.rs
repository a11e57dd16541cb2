//! One connection to an upstream.
//!
//! Owns the task that moves its bytes, and the way of a request from its head to the head of its response. Which connection
//! a request takes is the pool's business.

use super::{
    body::Http2Body,
    shared::{End, Shared, lost},
    side::Side,
    tunnel::Http2Tunnel,
    wire::Wire,
};
use crate::{
    clock,
    codec::{Incoming, SendError, Tunnel},
    http::body::Body,
    net::stream::Stream as Socket,
};
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body::Body as _;
use std::{
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tombolo_gateway_core::{
    failure::{Failure, Flag, Kind},
    head::Head,
};
use tombolo_gateway_http2::{Cause, Code, Connection, Event, RequestLine, Settings, Stream};

/// Streams on a connection whose peer has not yet said how many it allows.
const FIRST_STREAMS: u32 = 100;
/// What was said last may take so long to go out.
const FAREWELL: Duration = Duration::from_millis(500);

/// A connection that can be asked. When the last of its users is gone it ends.
pub(crate) struct Client {
    shared: Rc<Shared>,
}

/// A request as it is sent.
pub(crate) struct Outbound<'a> {
    /// Its head.
    pub(crate) head: &'a Head,
    /// Told of a 100 (Continue).
    pub(crate) proceed: Option<&'a dyn Fn(HeaderMap)>,
}

impl Client {
    /// A fresh connection, and what drives it; `opened` is called when the server's bounds may have changed.
    pub(crate) fn new(
        socket: Socket,
        settings: Settings,
        opened: impl Fn() + 'static,
    ) -> (Rc<Self>, impl Future<Output = ()>) {
        let shared = Shared::new(Connection::client(settings, clock::now().0));
        (Rc::new(Self { shared: shared.clone() }), drive(shared, Wire::new(socket), opened))
    }

    /// It takes no request any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.is_over() || self.shared.connection().is_ending()
    }

    /// Streams that the server allows at once, as far as it said.
    pub(crate) fn most_streams(&self) -> u32 {
        let connection = self.shared.connection();
        if connection.is_greeted() { connection.peer().max_streams.max(1) } else { FIRST_STREAMS }
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// When the stream or the connection ends, or the client's body breaks off.
    pub(crate) async fn send(&self, out: Outbound<'_>, body: Body) -> Result<Response<Incoming>, SendError> {
        let head = out.head;
        let tunnel = !head.upgrade.is_empty();
        let bodiless = body.is_end_stream() && !tunnel;
        let stream = self.open(head, bodiless)?;
        let side = Rc::new(Side::default());
        self.shared.enter(stream, &side);
        self.shared.wake();
        // Dropped before the response is here, it ends the stream.
        let incoming = Http2Body::new(&self.shared, &side, stream, false, false);
        let mut pump = (!bodiless && !tunnel).then(|| Pump { shared: self.shared.clone(), side, stream, body });
        let side = incoming.side().clone();
        let answer = std::future::poll_fn(|cx| {
            if let Some(pumping) = &mut pump
                && let Poll::Ready(pumped) = pumping.poll(cx)
            {
                pump = None;
                if pumped.is_err() {
                    let failure = Failure::new(Kind::DownstreamDisconnect);
                    return Poll::Ready(Err(SendError { failure, unsent: false }));
                }
            }
            poll_answer(cx, &side, &out, bodiless)
        })
        .await?;
        if let Some(mut pumping) = pump {
            tokio::task::spawn_local(async move {
                let _ = std::future::poll_fn(|cx| pumping.poll(cx)).await;
            });
        }
        Ok(answer.map(|()| Incoming::Http2(incoming)))
    }

    fn open(&self, head: &Head, end: bool) -> Result<Stream, SendError> {
        // What is an upgrade in HTTP/1 is a CONNECT with a protocol here (RFC 8441).
        let extended = head.is_upgrade();
        let line = RequestLine {
            method: if extended { &Method::CONNECT } else { &head.method },
            scheme: head.scheme.as_str(),
            authority: &head.authority,
            path: if head.path.is_empty() { "/" } else { &head.path },
            protocol: extended.then_some(head.upgrade.as_str()),
        };
        let unsent = |kind| SendError { failure: Failure::new(kind), unsent: true };
        let fine = |text: &str| text.bytes().all(|b| b > b' ' && b != 0x7f);
        if self.shared.is_over() {
            return Err(unsent(Kind::UpstreamClosed));
        }
        // A rewrite may have made what no server should see.
        if !fine(line.path) || !fine(line.authority) {
            return Err(unsent(Kind::LocalReset));
        }
        let opened = self.shared.connection().send_request(&line, &head.headers, end);
        opened.map_err(|_| unsent(Kind::UpstreamClosed))
    }

    /// What is left of a stream that stops being HTTP.
    pub(crate) fn tunnel(response: &mut Response<Incoming>) -> Option<Tunnel> {
        match std::mem::replace(response.body_mut(), Incoming::Empty) {
            Incoming::Http2(body) => Some(Tunnel::Http2(Box::new(Http2Tunnel::new(body)))),
            other => {
                *response.body_mut() = other;
                None
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.unused.set(true);
        self.shared.wake();
    }
}

/// The way of a request's body.
struct Pump {
    shared: Rc<Shared>,
    side: Rc<Side>,
    stream: Stream,
    body: Body,
}

impl Pump {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        if self.side.is_gone() {
            return Poll::Ready(Ok(()));
        }
        let polled = self.shared.poll_flow(cx, self.stream, &self.side, &mut self.body);
        if let Poll::Ready(Err(_)) = &polled {
            self.shared.reset(self.stream, Code::CANCEL);
        }
        polled.map_err(|_| ())
    }
}

fn poll_answer(
    cx: &mut Context<'_>,
    side: &Side,
    out: &Outbound<'_>,
    bodiless: bool,
) -> Poll<Result<Response<()>, SendError>> {
    side.poll_gone(cx);
    if let Some(headers) = side.interim.take()
        && let Some(proceed) = out.proceed
    {
        proceed(headers);
    }
    match side.answer.take() {
        None => Poll::Pending,
        Some(Err((failure, untouched))) => Poll::Ready(Err(SendError { failure, unsent: untouched && bodiless })),
        Some(Ok((head, length))) => {
            side.length.set(length);
            let mut response = Response::new(());
            *response.status_mut() = head.status;
            *response.headers_mut() = head.headers;
            Poll::Ready(Ok(response))
        }
    }
}

/// Moves the connection's bytes until it ends.
async fn drive(shared: Rc<Shared>, mut wire: Wire, opened: impl Fn()) {
    let end = std::future::poll_fn(|cx| {
        if let Err(error) = shared.poll_clock(cx, None) {
            return Poll::Ready(End::Error(error));
        }
        if shared.unused.get() && shared.connection().open_streams() == 0 {
            return Poll::Ready(End::Finished);
        }
        shared.poll_io(cx, &mut wire, &mut |event| happened(&shared, event, &opened))
    })
    .await;
    let failure = match end {
        End::Error(error) if error.code != Code::NO_ERROR => {
            Failure::new(Kind::UpstreamProtocol).with_reason(error.reason)
        }
        End::Error(error) => Failure::new(Kind::UpstreamClosed).with_reason(error.reason),
        End::Closed | End::Finished => Failure::new(Kind::UpstreamClosed),
    };
    shared.end(&failure, (Flag::UpstreamConnectionTermination, ""), false);
    if !matches!(end, End::Closed) {
        let farewell = pin!(std::future::poll_fn(|cx| {
            if wire.poll_write(cx, shared.connection().output()).is_pending() {
                return Poll::Pending;
            }
            wire.poll_shutdown(cx).map(|_| ())
        }));
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

fn happened(shared: &Shared, event: Event, opened: &impl Fn()) {
    match event {
        Event::Response { stream, mut head, length, end } => {
            let Some(side) = shared.side(stream) else { return };
            if head.status == StatusCode::NO_CONTENT {
                head.headers.remove(header::CONTENT_LENGTH);
            }
            side.answer(Ok((head, length)));
            if end {
                side.finish(None);
            }
        }
        Event::Interim { stream, head } => {
            if head.status == StatusCode::CONTINUE
                && let Some(side) = shared.side(stream)
            {
                side.hint(head.headers);
            }
        }
        Event::Reset { stream, code, cause } => {
            let Some(side) = shared.side(stream) else { return };
            shared.leave(stream);
            if code != Code::NO_ERROR || cause != Cause::Peer || !side.has_ended() {
                let (failure, untouched) = lost(code, cause);
                side.answer(Err((failure.clone(), untouched)));
                side.break_off(crate::codec::Broken { failure, malformed: false });
            }
            side.end((Flag::UpstreamRemoteReset, ""));
        }
        Event::Settings | Event::GoAway { .. } => opened(),
        Event::Request { .. }
        | Event::Unheard { .. }
        | Event::Data { .. }
        | Event::Trailers { .. }
        | Event::Writable { .. } => {}
    }
}
