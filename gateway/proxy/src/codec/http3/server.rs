//! A client's connection: its requests, its critical streams, and its end.

use super::{
    Sending,
    answer::{self, Asked},
    body::Body,
    code, critical,
    receive::{Receiver, Trouble},
};
use crate::{
    codec::{Arrived, Incoming, Upgrade},
    http::{
        Downstream,
        handle::{handle, refuse},
    },
    inbound::Inbound,
    listen::{Limits, Signal},
};
use bytes::{Bytes, BytesMut};
use http::Method;
use std::{cell::Cell, future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tombolo_gateway_core::{
    config::{Hcm, Metadata},
    failure::Kind,
    head::{Head, Protocol, Scheme},
};
use tombolo_gateway_http3::{
    Code, Event, RequestHead, Scope, Settings, Side, Violation, goaway, request as read_request, stream_kind, varint,
};

/// A request's head must be complete after this when nothing is configured.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After its last request a connection that ends waits so long for what is still on its way.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A connection as its requests see it.
struct Session {
    connection: quinn::Connection,
    downstream: Rc<Downstream>,
    /// Bytes of a head at most.
    largest: usize,
    /// `:protocol` is understood.
    extended: bool,
    /// Id of the first stream that was not taken.
    next: Cell<u64>,
    /// Streams from here on are rejected.
    refused_from: Cell<u64>,
    /// Requests under way, and who wants to know when there are none.
    running: Cell<u32>,
    idle: Notify,
    opened: critical::Opened,
}

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nobody asked for it.
    Far,
    /// The client knows that it is near; what it sent before it knew is taken.
    Announced(Instant),
    /// Nothing more is taken.
    Near,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(inbound: Inbound, hcm: Arc<Hcm>, connection: quinn::Connection) {
    let handle = inbound.entered.handle.clone();
    let limits = Limits {
        idle: hcm.timeouts.idle,
        head: Some(hcm.timeouts.request_headers.unwrap_or(HEAD_TIMEOUT)),
        life: hcm.timeouts.max_connection,
        abrupt: false,
    };
    handle.settle(limits);
    let largest = usize::try_from(hcm.limits.headers_kb).unwrap_or(60) * 1024;
    let extended = hcm.http3.as_ref().is_some_and(|http3| http3.allow_connect);
    let (downstream, entered) = Downstream::new(inbound, hcm, true);
    let session = Rc::new(Session {
        connection,
        largest,
        extended,
        downstream,
        next: Cell::new(0),
        refused_from: Cell::new(u64::MAX),
        running: Cell::new(0),
        idle: Notify::new(),
        opened: critical::Opened::default(),
    });
    session.run().await;
    drop(entered);
}

impl Session {
    async fn run(self: &Rc<Self>) {
        let handle = self.downstream.handle.clone();
        let Ok(mut control) = self.open_control().await else { return };
        let mut end = End::Far;
        loop {
            let told = poll_fn(|cx| match handle.poll_signal(cx) {
                Signal::None => Poll::Pending,
                Signal::Last | Signal::Drain if end != End::Far => Poll::Pending,
                signal => Poll::Ready(signal),
            });
            tokio::select! {
                biased;
                signal = told => {
                    if signal == Signal::Close {
                        break;
                    }
                    self.say_goaway(&mut control, varint::MAX - 3).await;
                    end = End::Announced(Instant::now() + self.connection.rtt() * 2 + Duration::from_millis(10));
                }
                accepted = self.connection.accept_bi() => match accepted {
                    Ok((send, receive)) => self.take(send, receive),
                    Err(_) => break,
                },
                accepted = self.connection.accept_uni() => match accepted {
                    Ok(stream) => self.listen(stream),
                    Err(_) => break,
                },
                () = until(end) => {
                    self.refused_from.set(self.next.get());
                    self.say_goaway(&mut control, self.next.get()).await;
                    end = End::Near;
                }
                () = self.nothing_runs(), if end == End::Near => {
                    // The client closes when it has everything; what it has not is not cut off at once.
                    let _ = timeout(LAST_WORDS, self.connection.closed()).await;
                    break;
                }
            }
        }
        self.connection.close(code(Code::NO_ERROR), b"");
    }

    /// Our own control stream. No streams for QPACK: there is nothing to say on them.
    async fn open_control(&self) -> Result<quinn::SendStream, quinn::WriteError> {
        let mut control = self.connection.open_uni().await?;
        let mut out = BytesMut::with_capacity(32);
        varint::encode(stream_kind::CONTROL, &mut out);
        Settings { max_field_section: Some(self.largest as u64), connect_protocol: self.extended }.encode(&mut out);
        control.write_all_chunks(&mut [out.freeze()]).await?;
        Ok(control)
    }

    async fn say_goaway(&self, control: &mut quinn::SendStream, id: u64) {
        let mut out = BytesMut::with_capacity(16);
        goaway(id, &mut out);
        // Without it the client learns of the end when it comes.
        let _ = timeout(LAST_WORDS, control.write_all_chunks(&mut [out.freeze()])).await;
    }

    async fn nothing_runs(&self) {
        while self.running.get() > 0 {
            self.idle.notified().await;
        }
    }

    fn listen(self: &Rc<Self>, stream: quinn::RecvStream) {
        let session = self.clone();
        tokio::task::spawn_local(async move {
            // Settings bind only who could exceed them: no table is used, nothing is pushed, heads are what they are.
            critical::read(session.connection.clone(), stream, Side::Request, &session.opened, |_| {}).await;
        });
    }

    fn take(self: &Rc<Self>, mut send: quinn::SendStream, mut receive: quinn::RecvStream) {
        let id = quinn::VarInt::from(receive.id()).into_inner();
        if id >= self.refused_from.get() {
            let _ = send.reset(code(Code::REQUEST_REJECTED));
            let _ = receive.stop(code(Code::REQUEST_REJECTED));
            return;
        }
        self.next.set(self.next.get().max(id + 4));
        let running = Running::new(self.clone());
        tokio::task::spawn_local(async move {
            let sending = Sending::new(send, Code::INTERNAL_ERROR);
            let receiver = Receiver::new(receive, &running.0.connection, Side::Request, running.0.largest);
            request(&running.0, sending, receiver).await;
        });
    }
}

async fn until(end: End) {
    match end {
        End::Announced(at) => sleep_until(at).await,
        End::Far | End::Near => std::future::pending().await,
    }
}

/// One request under way.
struct Running(Rc<Session>);

impl Running {
    fn new(session: Rc<Session>) -> Self {
        session.running.set(session.running.get() + 1);
        Self(session)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.downstream.worker.setup.own.panics.add(1);
        }
        self.0.running.set(self.0.running.get().saturating_sub(1));
        if self.0.running.get() == 0 {
            self.0.idle.notify_one();
        }
    }
}

async fn request(session: &Rc<Session>, mut sending: Sending, mut receiver: Receiver) {
    let downstream = &session.downstream;
    let limit = downstream.hcm.timeouts.request_headers.unwrap_or(HEAD_TIMEOUT);
    let head = match first(limit, &mut receiver, session.largest).await {
        Ok(head) => head,
        Err(Some(Trouble::Broke(violation))) if violation.is_too_large() => {
            let response = refuse(downstream, Kind::HeadersTooLarge);
            let asked = Asked { head: false, switch: None };
            return answer::send(response, sending, Some(receiver), None, asked).await;
        }
        Err(Some(Trouble::Broke(violation))) => {
            tracing::debug!(peer = ?downstream.info.remote, %violation, "request refused");
            receiver.punish(&violation);
            if violation.scope == Scope::Stream {
                sending.reset(violation.code);
            }
            return;
        }
        Err(Some(Trouble::Reset(_) | Trouble::Lost)) => return sending.reset(Code::REQUEST_CANCELLED),
        // Too slow.
        Err(None) => return sending.reset(Code::REQUEST_REJECTED),
    };
    if head.protocol.is_some() && !session.extended {
        receiver.punish(&Violation::message(":protocol was not offered"));
        return sending.reset(Code::MESSAGE_ERROR);
    }
    let mut asked = Asked { head: head.method == Method::HEAD, switch: None };
    let length = head.content_length;
    let head = translate(head, downstream.info.scheme());
    if head.method == Method::CONNECT {
        let (give, switched) = oneshot::channel();
        asked.switch = Some(give);
        let arrived = Arrived { head, body: Incoming::Empty, upgrade: Some(Upgrade::Http3(switched)) };
        return respond(session, arrived, sending, Some(receiver), asked).await;
    }
    let body = match body(receiver, length, session.largest).await {
        Ok(body) => body,
        Err(code) => return sending.reset(code),
    };
    let arrived = Arrived { head, body, upgrade: None };
    respond(session, arrived, sending, None, asked).await;
}

/// The head, within its time; `Err(None)` when that is over. Almost always the head is there, and no clock is started.
async fn first(limit: Duration, receiver: &mut Receiver, largest: usize) -> Result<RequestHead, Option<Trouble>> {
    let mut event = pin!(poll_fn(|cx| receiver.poll_event(cx)));
    let read = match futures_util::poll!(event.as_mut()) {
        Poll::Ready(read) => read,
        Poll::Pending => timeout(limit, event).await.map_err(|_| None)?,
    };
    match read {
        Ok(Some(Event::Head(section))) => read_request(section, largest).map_err(|v| Some(v.into())),
        // The reader lets nothing else come first.
        Ok(_) => Err(Some(Violation::stream(Code::REQUEST_INCOMPLETE, "the stream ended without a head").into())),
        Err(trouble) => Err(Some(trouble)),
    }
}

/// The body, of which it is known at once whether there is any when its end came with the head.
async fn body(mut receiver: Receiver, length: Option<u64>, largest: usize) -> Result<Incoming, Code> {
    let polled = poll_fn(|cx| Poll::Ready(receiver.poll_event(cx))).await;
    match polled {
        Poll::Ready(Ok(None)) if length.is_none_or(|length| length == 0) => Ok(Incoming::Empty),
        Poll::Ready(Ok(None)) => Err(Code::MESSAGE_ERROR),
        Poll::Ready(Ok(Some(event))) => {
            Ok(Incoming::Http3(Box::new(Body::new(receiver, Side::Request, length, largest).with_ahead(event))))
        }
        Poll::Ready(Err(Trouble::Broke(violation))) => {
            receiver.punish(&violation);
            Err(violation.code)
        }
        Poll::Ready(Err(_)) => Err(Code::REQUEST_CANCELLED),
        Poll::Pending => Ok(Incoming::Http3(Box::new(Body::new(receiver, Side::Request, length, largest)))),
    }
}

async fn respond(
    session: &Rc<Session>,
    arrived: Arrived,
    mut sending: Sending,
    receiver: Option<Receiver>,
    asked: Asked,
) {
    let verdict = match &arrived.body {
        Incoming::Http3(body) => Some(body.verdict()),
        _ => None,
    };
    let mut stopped = pin!(sending.stream.stopped());
    let mut handled = pin!(handle(session.downstream.clone(), arrived));
    let response = poll_fn(|cx| {
        if let Poll::Ready(response) = handled.as_mut().poll(cx) {
            return Poll::Ready(response.ok());
        }
        // A client that wants no answer any more, or that is gone, needs none to be found.
        stopped.as_mut().poll(cx).map(|_| None)
    })
    .await;
    // The client broke a rule of which the answer knows nothing.
    let response = response.filter(|_| verdict.as_ref().is_none_or(|verdict| verdict.get().is_none()));
    match response {
        Some(response) => answer::send(response, sending, receiver, verdict, asked).await,
        None => {
            let broken = verdict.and_then(|verdict| verdict.get());
            sending.reset(broken.unwrap_or(Code::REQUEST_CANCELLED));
        }
    }
}

fn translate(head: RequestHead, scheme: Scheme) -> Box<Head> {
    let RequestHead { method, authority, path, protocol, headers, .. } = head;
    let upgrade = match &protocol {
        Some(protocol) => text(protocol),
        None if method == Method::CONNECT => "CONNECT".to_owned(),
        None => String::new(),
    };
    Box::new(Head {
        method,
        scheme,
        authority: text(&authority),
        path: path.as_ref().map(text).unwrap_or_default(),
        protocol: Protocol::Http3,
        upgrade,
        headers,
        spelled: None,
        metadata: Metadata::default(),
    })
}

/// What was checked to be ASCII.
fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
