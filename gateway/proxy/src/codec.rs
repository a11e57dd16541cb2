//! The seam between HTTP and its versions: what a codec yields for a request and takes for an answer.
//!
//! Owns the types that the HTTP layer and the pools use instead of a codec's own. Every version is one arm of a closed
//! enum, so nothing on a request's path is boxed behind a trait. Never decides what a request means.

pub(crate) mod http1;
pub(crate) mod http2;
mod http3;

pub(crate) use http3::{Sender as Http3Sender, Switched, serve as serve_http3};

use crate::net::stream::Stream;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use tombolo_gateway_core::{failure::Failure, head::Head};

/// Interim responses to one request: far above what an honest server says before it answers, and an end to what a flood costs.
pub(crate) const MOST_INTERIM: u32 = 1000;

/// One request, as a server's codec yields it.
pub(crate) struct Arrived {
    /// Its head. It changes hands often: what is handed on is where it lies.
    pub(crate) head: Box<Head>,
    /// Its body.
    pub(crate) body: Incoming,
    /// The connection, once it stops being HTTP; for requests that ask for that.
    pub(crate) upgrade: Option<Upgrade>,
}

/// The body of a message that comes in, of either side.
pub(crate) enum Incoming {
    /// There is none.
    Empty,
    /// All of it is here.
    Full(Option<Bytes>),
    /// Of an HTTP/1 request.
    Http1Server(http1::ServerBody),
    /// Of an HTTP/1 response.
    Http1Client(http1::ClientBody),
    /// On an HTTP/2 stream.
    Http2(http2::Http2Body),
    /// Any of these, changed by filters on its way.
    Filtered(Box<crate::http::filters::Filtered>),
    /// Of an HTTP/3 stream.
    Http3(Box<http3::Body>),
}

impl Incoming {
    /// The upstream asked for the body with a 100 (Continue): its sender is told so, where it waits for that.
    pub(crate) fn proceed(&self, headers: &HeaderMap) {
        match self {
            Self::Http1Server(body) => body.proceed(headers),
            Self::Http2(body) => body.proceed(headers),
            Self::Filtered(body) => body.inner().proceed(headers),
            _ => {}
        }
    }

    /// Moves what flows the other way while nobody asks for this body.
    pub(crate) fn poll_pump(&self, cx: &mut Context<'_>) {
        match self {
            Self::Http1Client(body) => body.poll_pump(cx),
            Self::Filtered(body) => body.inner().poll_pump(cx),
            _ => {}
        }
    }
}

/// Names of a response's headers as its server spelled them, among the extensions of the response.
#[derive(Clone)]
pub(crate) struct Spelling(pub(crate) tombolo_gateway_http1::Spelled);

/// Why a message ended before its end.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    /// What it means.
    pub(crate) failure: Failure,
    /// The sender broke the rules, as opposed to going away.
    pub(crate) malformed: bool,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the message ended before its end: {}", self.failure)
    }
}

impl std::error::Error for Broken {}

/// Why a request has no response.
#[derive(Debug)]
pub(crate) struct SendError {
    /// What it means.
    pub(crate) failure: Failure,
    /// Nothing of the request went out.
    pub(crate) unsent: bool,
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Http1Server(body) => body.poll(cx),
            Self::Http1Client(body) => body.poll(cx),
            Self::Http2(body) => body.poll(cx),
            Self::Filtered(body) => body.poll(cx),
            Self::Http3(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) => data.is_none(),
            Self::Http1Server(body) => body.is_over(),
            Self::Http1Client(body) => body.is_over(),
            Self::Http2(body) => body.is_over(),
            Self::Filtered(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Http1Server(body) => body.size_hint(),
            Self::Http1Client(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Filtered(body) => body.size_hint(),
            Self::Http3(body) => body.size_hint(),
        }
    }
}

/// A connection or stream that is to stop being HTTP.
pub(crate) enum Upgrade {
    /// When the head that announces it was written.
    Later(oneshot::Receiver<Tunnel>),
    /// At once.
    Now(Option<Tunnel>),
    /// An HTTP/3 stream.
    Http3(http3::Switched),
}

impl Future for Upgrade {
    type Output = io::Result<Tunnel>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Tunnel>> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        match self.get_mut() {
            Self::Later(tunnel) => Pin::new(tunnel).poll(cx).map_err(|_| gone()),
            Self::Now(tunnel) => Poll::Ready(tunnel.take().ok_or_else(gone)),
            Self::Http3(switched) => Pin::new(switched)
                .poll(cx)
                .map(|done| done.map(|stream| Tunnel::Http3(Box::new(stream))).map_err(io::Error::other)),
        }
    }
}

/// What a connection or stream is once it stopped being HTTP.
pub(crate) enum Tunnel {
    /// An HTTP/2 stream.
    Http2(Box<http2::Http2Tunnel>),
    /// A client's connection, whose task waits for the end of the tunnel.
    Client {
        /// The connection.
        stream: Box<Stream>,
        /// Dropped with the tunnel.
        _over: oneshot::Sender<()>,
    },
    /// A connection to an upstream.
    Upstream(Box<Stream>),
    /// An HTTP/3 stream.
    Http3(Box<http3::Stream>),
    /// A connection of its own.
    #[allow(dead_code, reason = "for codecs that hand over the connection itself")]
    Stream(Box<Stream>),
}

macro_rules! each {
    ($self:ident, $t:ident => $call:expr) => {
        match $self.get_mut() {
            Tunnel::Http2($t) => $call,
            Tunnel::Client { stream: $t, .. } | Tunnel::Upstream($t) => $call,
            Tunnel::Http3($t) => $call,
            Tunnel::Stream($t) => $call,
        }
    };
}

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, t => Pin::new(t).poll_read(cx, buf))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, t => Pin::new(t).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, t => Pin::new(t).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Http2(t) => t.is_write_vectored(),
            Self::Client { stream: t, .. } | Self::Upstream(t) => t.is_write_vectored(),
            Self::Http3(t) => t.is_write_vectored(),
            Self::Stream(t) => t.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, t => Pin::new(t).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, t => Pin::new(t).poll_shutdown(cx))
    }
}
