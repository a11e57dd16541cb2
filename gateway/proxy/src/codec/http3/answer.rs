//! Writing a response.

use super::{Sending, body::Verdict, data_frame, headers_frame, receive::Receiver, tunnel, write};
use crate::http::response::Outgoing;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    task::Poll,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;
use tombolo_gateway_http3::{Code, qpack};

/// What of the request matters for its response.
pub(super) struct Asked {
    /// No body is wanted.
    pub(super) head: bool,
    /// Who takes the stream when a CONNECT is granted.
    pub(super) switch: Option<oneshot::Sender<tunnel::Stream>>,
}

/// Fields that concern a connection, which HTTP/3 has no use for.
const HOP: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Sends a response to its end.
pub(super) async fn send(
    response: Response<Outgoing>,
    mut sending: Sending,
    receiver: Option<Receiver>,
    verdict: Option<Verdict>,
    asked: Asked,
) {
    let (mut parts, mut body) = response.into_parts();
    let switching =
        asked.switch.is_some() && (parts.status.is_success() || parts.status == StatusCode::SWITCHING_PROTOCOLS);
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        parts.status = StatusCode::OK;
    }
    complete(parts.status, &mut parts.headers, &body, switching);
    let mut out = BytesMut::with_capacity(1024);
    headers_frame(&mut out, |out| qpack::response(parts.status, &parts.headers, out));
    if let (true, Some(switch)) = (switching, asked.switch) {
        if write(&mut sending.stream, out, Bytes::new()).await.is_ok()
            && let Some(receiver) = receiver
        {
            // Nobody there to take it: dropped, and the stream is reset.
            let _ = switch.send(tunnel::Stream::new(receiver, sending));
        }
        return;
    }
    let bodiless = asked.head || matches!(parts.status.as_u16(), 204 | 304);
    let sent = if bodiless {
        write(&mut sending.stream, out, Bytes::new()).await.map_err(|_| Code::REQUEST_CANCELLED)
    } else {
        stream(&mut sending, out, &mut body).await
    };
    match sent {
        Ok(()) => sending.finish(),
        Err(code) => sending.reset(verdict.and_then(|v| v.get()).unwrap_or(code)),
    }
}

/// Head and body, with the first piece of the body beside the head where it is there already.
async fn stream(sending: &mut Sending, mut out: BytesMut, body: &mut Outgoing) -> Result<(), Code> {
    loop {
        let next = if body.is_end_stream() {
            Poll::Ready(None)
        } else {
            poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await
        };
        let next = match next {
            Poll::Ready(next) => next,
            Poll::Pending => {
                // Nothing waits for a body that is slow.
                write(&mut sending.stream, std::mem::take(&mut out), Bytes::new()).await.map_err(|_| GONE)?;
                following(sending, body).await?
            }
        };
        match next {
            None => return write(&mut sending.stream, out, Bytes::new()).await.map_err(|_| GONE),
            Some(Err(_)) => {
                // What came before it is for the client. A reset drops what waits, so the connection's driver goes first.
                write(&mut sending.stream, out, Bytes::new()).await.map_err(|_| GONE)?;
                tokio::task::yield_now().await;
                return Err(Code::INTERNAL_ERROR);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let data = data_frame(&mut out, data);
                    if !data.is_empty() || out.len() > 16 * 1024 {
                        write(&mut sending.stream, std::mem::take(&mut out), data).await.map_err(|_| GONE)?;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        headers_frame(&mut out, |out| qpack::trailers(&trailers, out));
                    }
                    return write(&mut sending.stream, out, Bytes::new()).await.map_err(|_| GONE);
                }
            },
        }
    }
}

/// The client is gone or wants nothing more.
const GONE: Code = Code::REQUEST_CANCELLED;

type Next = Option<Result<Frame<Bytes>, crate::http::body::BodyError>>;

/// The next piece of the body, unless the client stops wanting it before.
async fn following(sending: &Sending, body: &mut Outgoing) -> Result<Next, Code> {
    let mut stopped = std::pin::pin!(sending.stream.stopped());
    poll_fn(|cx| {
        if let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(cx) {
            return Poll::Ready(Ok(next));
        }
        stopped.as_mut().poll(cx).map(|_| Err(GONE))
    })
    .await
}

/// Adds what every response says and removes what none may say.
fn complete(status: StatusCode, headers: &mut HeaderMap, body: &Outgoing, switching: bool) {
    for name in HOP {
        headers.remove(name);
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date());
    }
    let sized = !switching && !status.is_informational() && !matches!(status.as_u16(), 204 | 304);
    if sized
        && let Some(length) = body.size_hint().exact()
        && !matches!(body, Outgoing::Empty)
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// The date, which changes once a second.
fn date() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(u64, Option<HeaderValue>)> = const { RefCell::new((0, None)) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    LAST.with_borrow_mut(|(at, value)| {
        if let Some(value) = value.as_ref().filter(|_| *at == second) {
            return value.clone();
        }
        let fresh = HeaderValue::from_str(&httpdate::fmt_http_date(now))
            .unwrap_or_else(|_| HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        (*at, *value) = (second, Some(fresh.clone()));
        fresh
    })
}
