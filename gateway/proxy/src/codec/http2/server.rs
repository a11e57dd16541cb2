//! One connection of a client.
//!
//! Owns its life and the tasks that serve its requests. A stream that ends takes the request with it.

use super::{
    body::Http2Body,
    shared::{End, Shared},
    side::Side,
    tunnel::Http2Tunnel,
    wire::Wire,
};
use crate::{
    clock,
    codec::{Arrived, Broken, Incoming, Tunnel, Upgrade},
    http::{Downstream, Exchange, body::BodyError, handle, response::Outgoing},
    listen::Signal,
    net::stream::Stream as Socket,
};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body::Body as _;
use std::{
    cell::RefCell,
    pin::pin,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::oneshot;
use tombolo_gateway_core::{
    config::Metadata,
    failure::{Failure, Flag, Kind},
    head::{Head, Protocol},
};
use tombolo_gateway_http2::{Cause, Code, Connection, Event, HeadLimits, RequestHead, Settings, Stream};

/// A client that was told of the end and does not answer has said its last after so many milliseconds.
const LAST_WORD: u64 = 1000;
/// What was said last may take so long to go out.
const FAREWELL: Duration = Duration::from_secs(2);

const DISCONNECT: (Flag, &str) = (Flag::DownstreamConnectionTermination, "downstream_remote_disconnect");

/// Serves a connection until it ends.
pub(crate) async fn serve(downstream: &Rc<Downstream>, socket: Socket) {
    let shared = Shared::new(Connection::server(settings(downstream), clock::now().0));
    let mut wire = Wire::new(socket);
    let mut drained = None;
    let end = std::future::poll_fn(|cx| {
        let told = downstream.handle.poll_signal(cx);
        if told == Signal::Close {
            return Poll::Ready(End::Closed);
        }
        if told >= Signal::Last && drained.is_none() {
            drained = Some(clock::now().0 + LAST_WORD);
            shared.connection().drain();
        }
        match shared.poll_clock(cx, drained.filter(|at| *at != u64::MAX)) {
            Err(error) => return Poll::Ready(End::Error(error)),
            Ok(true) => {
                drained = Some(u64::MAX);
                shared.connection().drain();
            }
            Ok(false) => {}
        }
        let polled = shared.poll_io(cx, &mut wire, &mut |event| happened(&shared, downstream, event));
        downstream.handle.arrived.store(wire.is_partial(), Ordering::Relaxed);
        polled
    })
    .await;
    let fate = match end {
        End::Error(error) => (Flag::DownstreamProtocolError, error.reason),
        End::Closed | End::Finished => DISCONNECT,
    };
    // Whatever was under way for this client ends now, not when its connection does.
    let broke = matches!(end, End::Error(_));
    shared.end(&Failure::new(Kind::DownstreamDisconnect), fate, broke);
    if !matches!(end, End::Closed) {
        let farewell = pin!(std::future::poll_fn(|cx| poll_farewell(cx, &shared, &mut wire)));
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

/// Writes what waits, closes our side, and reads on until the client closes its own: what was said must not be lost to a
/// reset.
fn poll_farewell(cx: &mut Context<'_>, shared: &Shared, wire: &mut Wire) -> Poll<()> {
    if wire.poll_write(cx, shared.connection().output()).is_pending() {
        return Poll::Pending;
    }
    if wire.poll_shutdown(cx).is_pending() {
        return Poll::Pending;
    }
    loop {
        match wire.poll_read(cx, bytes::BytesMut::clear) {
            Poll::Ready(Ok((1.., ()))) => {}
            Poll::Ready(_) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}

fn settings(downstream: &Downstream) -> Settings {
    let (limits, own) = (&downstream.hcm.limits, &downstream.hcm.http2);
    let safe = Settings::default();
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Settings {
        max_streams: own.max_streams.unwrap_or(safe.max_streams),
        stream_window: own.stream_window.unwrap_or(safe.stream_window),
        connection_window: own.connection_window.unwrap_or(safe.connection_window),
        header_table: own.header_table_size,
        head: HeadLimits {
            fields: usize::try_from(limits.headers).unwrap_or(100),
            bytes: usize::try_from(limits.headers_kb).unwrap_or(60).saturating_mul(1024),
        },
        extended_connect: own.allow_connect,
        malformed_ends_stream: own.stream_error_on_invalid,
        keepalive: own.keepalive.map(|(interval, patience)| (millis(interval), millis(patience))),
        max_control: own.max_outbound_frames.and_then(|n| usize::try_from(n).ok()).unwrap_or(safe.max_control),
        ..safe
    }
}

/// Something happened that concerns more than the data of a stream.
fn happened(shared: &Rc<Shared>, downstream: &Rc<Downstream>, event: Event) {
    match event {
        Event::Request { stream, head, length, end } => {
            begin(shared, downstream, stream, *head, length, end);
        }
        Event::Reset { stream, code, cause } => ended(shared, stream, code, cause),
        Event::Unheard { reason } => {
            Exchange::unheard(downstream, Protocol::Http2, Flag::DownstreamProtocolError, reason);
        }
        Event::GoAway { .. }
        | Event::Settings
        | Event::Data { .. }
        | Event::Trailers { .. }
        | Event::Writable { .. }
        | Event::Interim { .. }
        | Event::Response { .. } => {}
    }
}

fn ended(shared: &Shared, stream: Stream, code: Code, cause: Cause) {
    let Some(side) = shared.side(stream) else { return };
    shared.leave(stream);
    match cause {
        Cause::Peer | Cause::Unprocessed => side.end((Flag::DownstreamRemoteReset, "http2.remote_reset")),
        // A complete request is served to its end, so that ending streams this way gains nothing; the answer is dropped.
        Cause::Refused(_) if code == Code::STREAM_CLOSED => {}
        Cause::Refused(_) if !side.answered.get() && !side.has_ended() => {
            // What came before was a request like any other: whoever reads its body learns that it broke off.
            side.tell((Flag::DownstreamProtocolError, "http2.remote_reset"));
            side.break_off(Broken { failure: Failure::new(Kind::MalformedRequest), malformed: true });
        }
        Cause::Refused(_) => side.end((Flag::DownstreamProtocolError, "http2.remote_reset")),
    }
}

/// One request under way.
struct Call {
    shared: Rc<Shared>,
    downstream: Rc<Downstream>,
    side: Rc<Side>,
    stream: Stream,
    head: bool,
    tunnel: Option<oneshot::Sender<Tunnel>>,
    /// The stream is a tunnel now, and no business of ours.
    switched: bool,
}

fn begin(
    shared: &Rc<Shared>,
    downstream: &Rc<Downstream>,
    stream: Stream,
    request: RequestHead,
    length: Option<u64>,
    end: bool,
) {
    let side = Rc::new(Side::default());
    side.length.set(if end { Some(0) } else { length });
    if end {
        side.finish(None);
    }
    shared.enter(stream, &side);
    let RequestHead { method, authority, path, protocol, headers, .. } = request;
    let upgrade = match (&method, &protocol) {
        (&Method::CONNECT, Some(protocol)) => text(protocol),
        (&Method::CONNECT, None) => "CONNECT".to_owned(),
        _ => String::new(),
    };
    let expected = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let waits = !end && headers.get(header::EXPECT).is_some_and(expected);
    side.expects.set(waits && !downstream.hcm.proxy_100_continue);
    let tunnelled = !upgrade.is_empty();
    let (give, take) = if tunnelled { Some(oneshot::channel()).unzip() } else { (None, None) };
    let body = Incoming::Http2(Http2Body::new(shared, &side, stream, true, tunnelled));
    let is_head = method == Method::HEAD;
    let head = Box::new(Head {
        method,
        scheme: downstream.info.scheme(),
        authority: text(&authority),
        path: text(&path),
        protocol: Protocol::Http2,
        upgrade,
        headers,
        spelled: None,
        metadata: Metadata::default(),
    });
    let arrived = Arrived { head, body, upgrade: take.map(Upgrade::Later) };
    let call = Call {
        shared: shared.clone(),
        downstream: downstream.clone(),
        side,
        stream,
        head: is_head,
        tunnel: give,
        switched: false,
    };
    tokio::task::spawn_local(call.run(arrived));
    let most = downstream.hcm.limits.requests_per_connection;
    if most != 0 && downstream.handle.requests.get().saturating_add(1) >= most {
        downstream.handle.tell(Signal::Drain);
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Call {
    /// Serves the request.
    async fn run(mut self, arrived: Arrived) {
        let outcome = {
            let mut handled = Box::pin(handle::handle(self.downstream.clone(), arrived));
            std::future::poll_fn(|cx| {
                if self.side.poll_gone(cx) {
                    return Poll::Ready(None);
                }
                handled.as_mut().poll(cx).map(Some)
            })
            .await
        };
        match outcome {
            // Whatever is held for it is dropped.
            None => {}
            Some(_) if self.shared.is_over() => {}
            Some(Err(_)) => self.shared.reset(self.stream, Code::INTERNAL_ERROR),
            Some(Ok(response)) => self.respond(response).await,
        }
        if !self.switched {
            self.shared.leave(self.stream);
        }
    }

    async fn respond(&mut self, response: Response<Outgoing>) {
        let Some(mut body) = self.begin_response(response) else { return };
        let outcome = std::future::poll_fn(|cx| {
            if self.side.poll_gone(cx) {
                return Poll::Ready(None);
            }
            let polled = self.shared.poll_flow(cx, self.stream, &self.side, &mut body);
            if polled.is_pending() && body.poll_pump(cx) {
                return Poll::Ready(Some(Err(BodyError::Timeout)));
            }
            polled.map(Some)
        })
        .await;
        match outcome {
            None => {}
            Some(Ok(())) => {
                self.shared.connection().discard(self.stream);
                self.shared.wake();
            }
            Some(Err(_)) => self.shared.reset(self.stream, Code::INTERNAL_ERROR),
        }
    }

    /// Writes the head; gives the body back when there is one to be written.
    fn begin_response(&mut self, response: Response<Outgoing>) -> Option<Outgoing> {
        let (mut parts, body) = response.into_parts();
        let connecting = self.tunnel.as_ref().is_some_and(|give| !give.is_closed());
        let status = match parts.status {
            // HTTP/2 has no 101: a tunnel is a CONNECT that succeeded.
            StatusCode::SWITCHING_PROTOCOLS if connecting => StatusCode::OK,
            status => status,
        };
        let switching = connecting && status.is_success();
        if !parts.headers.contains_key(header::DATE)
            && let Some(date) = date()
        {
            parts.headers.insert(header::DATE, date);
        }
        if let Outgoing::Full(Some(full)) = &body
            && !parts.headers.contains_key(header::CONTENT_LENGTH)
        {
            parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(full.len()));
        }
        let end = !switching && (self.head || body.is_end_stream());
        self.side.answered.set(true);
        let sent = self.shared.connection().send_response(self.stream, status, &parts.headers, end);
        if sent.is_ok() && end {
            self.shared.connection().discard(self.stream);
        }
        self.shared.wake();
        sent.ok()?;
        if switching {
            self.switch();
            return None;
        }
        (!end).then_some(body)
    }

    fn switch(&mut self) {
        self.switched = true;
        let body = Http2Body::new(&self.shared, &self.side, self.stream, true, false);
        if let Some(give) = self.tunnel.take() {
            // Refused: dropped, and the stream with it.
            let _ = give.send(Tunnel::Http2(Box::new(Http2Tunnel::new(body))));
        }
    }
}

/// The date, made once a second.
fn date() -> Option<HeaderValue> {
    thread_local! {
        static DATE: RefCell<(u64, Option<HeaderValue>)> = const { RefCell::new((0, None)) };
    }
    let now = std::time::SystemTime::now();
    let second = now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    DATE.with_borrow_mut(|(known, value)| {
        if *known != second || value.is_none() {
            *known = second;
            *value = HeaderValue::try_from(httpdate::fmt_http_date(now)).ok();
        }
        value.clone()
    })
}
