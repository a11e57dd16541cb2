//! Writing one response to a client.
//!
//! Owns the framing of what goes out and the counting of its bytes: what was announced is what is sent, or the connection
//! ends. Head and body leave with one call when both are here.

use super::{
    GEAR, Gear,
    link::Link,
    server::{Asked, Inner},
};
use crate::{
    codec::Spelling,
    http::{Downstream, response::Outgoing},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, response::Parts};
use http_body::{Body as _, Frame};
use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tombolo_gateway_http1::{Case, Framing, LAST_CHUNK, More, Version, Wishes, chunk_start, response_head, trailers};

/// Why a response did not go out as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The client takes nothing more.
    Gone,
    /// There is no more of it, or more than was announced.
    Broken,
}

/// A response on its way out.
pub(super) struct Writer {
    parts: Option<Parts>,
    body: Outgoing,
    framing: Framing,
    /// Bytes of the body that are still to come, where their number was announced.
    left: Option<u64>,
    version: Version,
    case: Case,
    closes: bool,
    keep_alive: bool,
    trailers: bool,
    /// The body's end was written.
    over: bool,
}

impl Writer {
    /// Nothing written yet. `closes`: the connection ends with it whatever the client wants.
    pub(super) fn new(downstream: &Downstream, response: Response<Outgoing>, asked: Asked, closes: bool) -> Self {
        let (mut parts, body) = response.into_parts();
        let said = parts.headers.contains_key(header::CONNECTION) && Wishes::of(&parts.headers).close;
        parts.headers.remove(header::CONNECTION);
        let framing = framing(&parts, &body, asked);
        let left = match framing {
            Framing::Length(length) if !asked.head && parts.status != StatusCode::NOT_MODIFIED => Some(length),
            _ => None,
        };
        let closes = closes || said || asked.close || framing == Framing::UntilClose;
        let case = if downstream.hcm.http1.proper_case { Case::Proper } else { Case::Lower };
        Self {
            parts: Some(parts),
            body,
            framing,
            left,
            version: asked.version,
            case,
            closes,
            keep_alive: asked.version == Version::Http10,
            trailers: downstream.hcm.http1.enable_trailers,
            over: false,
        }
    }

    /// Whether the connection ends with it.
    pub(super) fn closes(&self) -> bool {
        self.closes
    }

    /// Writes what can be written; ready when all of it was taken. An error ends the connection.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, inner: &RefCell<Inner>) -> Poll<Result<(), Unsent>> {
        loop {
            if self.parts.is_none() {
                match inner.borrow_mut().link.poll_flush(cx) {
                    Poll::Ready(Ok(())) if self.over => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Unsent::Gone)),
                    Poll::Pending => {
                        let late = self.body.poll_pump(cx);
                        return if late { Poll::Ready(Err(Unsent::Gone)) } else { Poll::Pending };
                    }
                }
            }
            // The body reads from other connections, and may read from this one: nothing is borrowed here.
            let piece =
                if self.body.is_end_stream() { Poll::Ready(None) } else { Pin::new(&mut self.body).poll_frame(cx) };
            let waits = piece.is_pending();
            if let Err(unsent) = self.write(cx, &mut inner.borrow_mut().link, piece) {
                return Poll::Ready(Err(unsent));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Writes the head, if it was not written, with the next piece of the body.
    fn write<E>(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        piece: Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Result<(), Unsent> {
        let mut data = Bytes::new();
        let mut fields = None;
        let mut broken = false;
        let mut over = false;
        match piece {
            Poll::Pending => {}
            Poll::Ready(None) => over = true,
            Poll::Ready(Some(Err(_))) => broken = true,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) => {
                    data = piece;
                    over = self.body.is_end_stream();
                }
                Err(frame) => {
                    fields = frame.into_trailers().ok();
                    over = true;
                }
            },
        }
        let counted = self.count(data.len(), over);
        let waits = data.is_empty() && !over;
        if waits && !broken && self.parts.is_none() {
            return Ok(());
        }
        GEAR.with_borrow_mut(|gear| {
            gear.out.clear();
            if let Some(parts) = self.parts.take() {
                self.head(&parts, gear);
            }
            let mut tail: &[u8] = b"";
            if self.framing == Framing::Chunked && !broken {
                tail = self.chunk(data.len(), over, fields.as_ref(), &mut gear.out);
            }
            link.send(cx, &gear.out, data, tail)
        })
        .map_err(|_| Unsent::Gone)?;
        self.over = over;
        if broken { Err(Unsent::Broken) } else { counted }
    }

    /// What was announced must be what is sent.
    fn count(&mut self, length: usize, over: bool) -> Result<(), Unsent> {
        let Some(left) = &mut self.left else { return Ok(()) };
        *left = left.checked_sub(length as u64).ok_or(Unsent::Broken)?;
        if over && *left > 0 { Err(Unsent::Broken) } else { Ok(()) }
    }

    fn chunk(&self, length: usize, over: bool, fields: Option<&HeaderMap>, out: &mut Vec<u8>) -> &'static [u8] {
        if length > 0 {
            let (line, digits) = chunk_start(length);
            out.extend_from_slice(&line[..digits]);
            return if over { b"\r\n0\r\n\r\n" } else { b"\r\n" };
        }
        match fields.filter(|_| self.trailers) {
            Some(fields) => {
                trailers(fields, self.case, out);
                b""
            }
            None if over => LAST_CHUNK,
            None => b"",
        }
    }

    fn head(&self, parts: &Parts, gear: &mut Gear) {
        let connection = if self.closes { Some("close") } else { self.keep_alive.then_some("keep-alive") };
        let date = if parts.headers.contains_key(header::DATE) { &b""[..] } else { gear.date.value() };
        let spelled = parts.extensions.get::<Spelling>().map_or(&[][..], |kept| &kept.0);
        response_head(
            self.version,
            parts.status,
            &parts.headers,
            self.framing,
            More { connection, date, spelled },
            self.case,
            &mut gear.out,
        );
    }
}

/// How the body of a response is framed.
fn framing(parts: &Parts, body: &Outgoing, asked: Asked) -> Framing {
    let stated = || {
        let length = parts.headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes)?;
        std::str::from_utf8(length).ok()?.parse().ok()
    };
    if parts.status.is_informational() || parts.status == StatusCode::NO_CONTENT {
        return Framing::None;
    }
    if asked.head || parts.status == StatusCode::NOT_MODIFIED {
        return stated().map_or(Framing::None, Framing::Length);
    }
    if asked.connect && parts.status.is_success() {
        return Framing::None;
    }
    match body.size_hint().exact().or_else(stated) {
        Some(length) => Framing::Length(length),
        None if asked.version == Version::Http11 => Framing::Chunked,
        None => Framing::UntilClose,
    }
}

/// Writes a 100 (Continue).
pub(super) fn proceed(cx: &mut Context<'_>, link: &mut Link, headers: &HeaderMap) -> io::Result<()> {
    let mut out = Vec::new();
    let more = More::default();
    response_head(Version::Http11, StatusCode::CONTINUE, headers, Framing::None, more, Case::Lower, &mut out);
    link.send(cx, &out, Bytes::new(), b"")
}

/// Writes a head after which the connection is no longer HTTP.
pub(super) fn switching(
    cx: &mut Context<'_>,
    link: &mut Link,
    status: StatusCode,
    headers: &HeaderMap,
) -> io::Result<()> {
    GEAR.with_borrow_mut(|gear| {
        gear.out.clear();
        let date = if headers.contains_key(header::DATE) { &b""[..] } else { gear.date.value() };
        let more = More { date, ..More::default() };
        response_head(Version::Http11, status, headers, Framing::None, more, Case::Lower, &mut gear.out);
        link.send(cx, &gear.out, Bytes::new(), b"")
    })
}
