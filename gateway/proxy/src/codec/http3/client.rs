//! A connection to an upstream, and the requests on it.

use super::{
    Sending,
    body::Body,
    code, critical, data_frame, headers_frame,
    receive::{Receiver, Trouble},
    tunnel, write,
};
use crate::{
    codec::{Incoming, MOST_INTERIM, SendError},
    http::body::Body as RequestBody,
};
use bytes::{Bytes, BytesMut};
use http::{Method, Response};
use http_body::{Body as _, Frame};
use std::{cell::Cell, future::poll_fn, pin::Pin, rc::Rc, task::Poll};
use tokio::{sync::oneshot, task::AbortHandle};
use tombolo_gateway_core::{
    failure::{Failure, Kind},
    head::Head,
};
use tombolo_gateway_http3::{
    Code, Control, Event, ResponseHead, Settings, Side, Violation, qpack, response as read_response, stream_kind,
    varint,
};

/// Bytes of a body that go with the head.
const PIECE: usize = 16 * 1024;

/// What the peer said of the connection as a whole.
#[derive(Default)]
struct Shared {
    /// It takes no new request.
    leaving: Cell<bool>,
    opened: critical::Opened,
}

struct Session {
    connection: quinn::Connection,
    /// Bytes of a response's head at most.
    largest: usize,
    shared: Rc<Shared>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nobody can use it any more, and whoever reads a response from it holds it.
        self.connection.close(code(Code::NO_ERROR), b"");
    }
}

/// The right to send requests on a connection.
#[derive(Clone)]
pub(crate) struct Sender(Rc<Session>);

/// A body that is still being sent; given up when nobody wants the response any more.
struct Upload(AbortHandle);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sender {
    /// Begins to speak HTTP/3. The future ends with the connection, and must be driven.
    pub(crate) fn begin(connection: quinn::Connection, largest: usize) -> (Self, impl Future<Output = ()> + use<>) {
        let shared = Rc::new(Shared::default());
        let driver = drive(connection.clone(), shared.clone(), largest);
        (Self(Rc::new(Session { connection, largest, shared })), driver)
    }

    /// No new request may be sent on it.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.shared.leaving.get() || self.0.connection.close_reason().is_some()
    }

    /// Sends a request and waits for the head of its response; with it comes the stream when a CONNECT was granted.
    pub(crate) async fn send(
        &self,
        head: &Head,
        mut body: RequestBody,
    ) -> Result<(Response<Incoming>, Option<tunnel::Switched>), SendError> {
        let session = &self.0;
        if !printable(&head.path) || !printable(&head.authority) {
            return Err(SendError { failure: Failure::new(Kind::LocalReset), unsent: true });
        }
        let is_head = head.method == Method::HEAD;
        let opened = session.connection.open_bi().await;
        let (send, receive) =
            opened.map_err(|_| SendError { failure: Failure::new(Kind::UpstreamClosed), unsent: true })?;
        let mut sending = Sending::new(send, Code::REQUEST_CANCELLED);
        let mut receiver = Receiver::new(receive, &session.connection, Side::Response, session.largest);
        let connect = head.method == Method::CONNECT || head.is_upgrade();
        let mut out = BytesMut::with_capacity(1024);
        headers_frame(&mut out, |out| encode(head, out));
        let sent = |failure| SendError { failure, unsent: false };
        if connect {
            let written = write(&mut sending.stream, out, Bytes::new()).await;
            written.map_err(|_| sent(Failure::new(Kind::UpstreamClosed)))?;
            let head = final_head(&mut receiver, session.largest).await.map_err(sent)?;
            return Ok(granted(head, receiver, sending, session.largest));
        }
        let mut upload = None;
        let head = if begin(&mut out, &mut body) {
            write(&mut sending.stream, out, Bytes::new())
                .await
                .map_err(|_| sent(Failure::new(Kind::UpstreamClosed)))?;
            sending.finish();
            final_head(&mut receiver, session.largest).await.map_err(sent)?
        } else {
            let (broke, broken) = oneshot::channel();
            let task = tokio::task::spawn_local(rest(sending, out, body, broke));
            upload = Some(Upload(task.abort_handle()));
            tokio::select! {
                biased;
                Ok(failure) = broken => return Err(sent(failure)),
                head = final_head(&mut receiver, session.largest) => head.map_err(sent)?,
            }
        };
        let bodiless = is_head || matches!(head.status.as_u16(), 204 | 304);
        let mut response = Response::new(Incoming::Empty);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        if !bodiless && (head.content_length != Some(0) || upload.is_some()) {
            let mut body = Body::new(receiver, Side::Response, head.content_length, session.largest);
            if let Some(upload) = upload {
                body = body.holding(Box::new(upload));
            }
            *response.body_mut() = Incoming::Http3(Box::new(body));
        }
        Ok((response, None))
    }
}

async fn drive(connection: quinn::Connection, shared: Rc<Shared>, largest: usize) {
    let Ok(_control) = open_control(&connection, largest).await else { return };
    while let Ok(stream) = connection.accept_uni().await {
        let (connection, shared) = (connection.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            let said = |control| {
                if let Control::GoAway(_) = control {
                    shared.leaving.set(true);
                }
            };
            critical::read(connection, stream, Side::Response, &shared.opened, said).await;
        });
    }
}

async fn open_control(connection: &quinn::Connection, largest: usize) -> Result<quinn::SendStream, quinn::WriteError> {
    let mut control = connection.open_uni().await?;
    let mut out = BytesMut::with_capacity(32);
    varint::encode(stream_kind::CONTROL, &mut out);
    Settings { max_field_section: Some(largest as u64), connect_protocol: false }.encode(&mut out);
    control.write_all_chunks(&mut [out.freeze()]).await?;
    Ok(control)
}

fn encode(head: &Head, out: &mut BytesMut) {
    // What is an upgrade in HTTP/1 is a CONNECT with a protocol here (RFC 9220).
    let extended = head.is_upgrade() || (head.method == Method::CONNECT && !head.path.is_empty());
    // A plain CONNECT has neither scheme nor path.
    let plain = head.method == Method::CONNECT && !extended;
    let path = if head.path.is_empty() { "/" } else { &head.path };
    qpack::request(
        if extended { &Method::CONNECT } else { &head.method },
        (!plain).then_some(head.scheme.as_str()),
        &head.authority,
        (!plain).then_some(path),
        extended.then_some(head.upgrade.as_str()),
        &head.headers,
        out,
    );
}

/// A rewrite may have made what no server should see.
fn printable(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

/// Takes what of the body is there already; true when that is all.
fn begin(out: &mut BytesMut, body: &mut RequestBody) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while !body.is_end_stream() {
        match Pin::new(&mut *body).poll_frame(&mut context) {
            Poll::Ready(None) => return true,
            Poll::Ready(Some(Ok(frame))) => {
                if !add(out, frame) {
                    return true;
                }
            }
            // An error is met again by whoever goes on.
            Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
        }
        if out.len() > PIECE {
            return body.is_end_stream();
        }
    }
    true
}

/// Adds a frame to what is to be written; false for trailers, which are the last.
fn add(out: &mut BytesMut, frame: Frame<Bytes>) -> bool {
    match frame.into_data() {
        Ok(data) => {
            let data = data_frame(out, data);
            out.extend_from_slice(&data);
            true
        }
        Err(frame) => {
            if let Ok(trailers) = frame.into_trailers() {
                headers_frame(out, |out| qpack::trailers(&trailers, out));
            }
            false
        }
    }
}

/// Sends what is left of a request.
async fn rest(mut sending: Sending, mut out: BytesMut, mut body: RequestBody, broke: oneshot::Sender<Failure>) {
    loop {
        // An upstream that wants no more of it says so, and its response tells why.
        if write(&mut sending.stream, std::mem::take(&mut out), Bytes::new()).await.is_err() {
            return;
        }
        if body.is_end_stream() {
            return sending.finish();
        }
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return sending.finish(),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let data = data_frame(&mut out, data);
                    if write(&mut sending.stream, std::mem::take(&mut out), data).await.is_err() {
                        return;
                    }
                }
                Err(frame) => {
                    add(&mut out, frame);
                    let _ = write(&mut sending.stream, out, Bytes::new()).await;
                    return sending.finish();
                }
            },
            Some(Err(_)) => {
                let _ = broke.send(Failure::new(Kind::DownstreamDisconnect));
                return;
            }
        }
    }
}

/// The head of the response proper; those that only say that it will come are passed over.
async fn final_head(receiver: &mut Receiver, largest: usize) -> Result<ResponseHead, Failure> {
    for _ in 0..=MOST_INTERIM {
        let event = poll_fn(|cx| receiver.poll_event(cx)).await;
        let head = match event {
            Ok(Some(Event::Head(section))) => read_response(section, largest).map_err(Trouble::from),
            Ok(_) => Err(Violation::message("there is no response").into()),
            Err(trouble) => Err(trouble),
        };
        match head {
            Ok(head) if head.status.is_informational() => receiver.interim(),
            Ok(head) => return Ok(head),
            Err(trouble) => return Err(failure(receiver, &trouble)),
        }
    }
    Err(failure(receiver, &Violation::message("too many interim responses").into()))
}

fn failure(receiver: &mut Receiver, trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Broke(violation) => {
            receiver.punish(violation);
            Failure::new(Kind::UpstreamProtocol).with_reason(violation.reason)
        }
        Trouble::Reset(code) if *code == Code::REQUEST_REJECTED.0 => Failure::new(Kind::UpstreamRefusedStream),
        Trouble::Reset(_) => Failure::new(Kind::UpstreamReset),
        Trouble::Lost => Failure::new(Kind::UpstreamClosed),
    }
}

/// The answer to a CONNECT: a tunnel when it was granted, else a response like any other.
fn granted(
    head: ResponseHead,
    receiver: Receiver,
    mut sending: Sending,
    largest: usize,
) -> (Response<Incoming>, Option<tunnel::Switched>) {
    let mut response = Response::new(Incoming::Empty);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if head.status.is_success() {
        let (give, switched) = oneshot::channel();
        let _ = give.send(tunnel::Stream::new(receiver, sending));
        return (response, Some(switched));
    }
    sending.finish();
    *response.body_mut() = Incoming::Http3(Box::new(Body::new(receiver, Side::Response, head.content_length, largest)));
    (response, None)
}
