//! The seam between HTTP and its versions: what a codec yields for a request and takes for an answer.
//!
//! Owns the types that the HTTP layer and the pools use instead of a codec's own. Every version is one arm of a closed
//! enum, so nothing on a request's path is boxed behind a trait. Never decides what a request means.

mod http3;
mod hyper;
mod watched;

pub(crate) use http3::serve as serve_http3;
pub(crate) use self::hyper::{Executor, classify, serve_http1, serve_http2};
pub(crate) use watched::Watched;

use crate::net::stream::Stream;
use ::hyper::{body::Incoming as HyperBody, upgrade::OnUpgrade};
use bytes::Bytes;
use http::{HeaderValue, uri::PathAndQuery};
use http_body::{Frame, SizeHint};
use hyper_util::rt::TokioIo;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tombolo_gateway_core::{failure::Failure, head::Head};

/// One request, as a server's codec yields it.
pub(crate) struct Arrived {
    /// Its head.
    pub(crate) head: Head,
    /// What of it can be written again as it came.
    pub(crate) original: Original,
    /// Its body.
    pub(crate) body: Incoming,
    /// The connection, once it stops being HTTP; for requests that ask for that.
    pub(crate) upgrade: Option<Upgrade>,
}

/// What is kept of a request as it came, so that unchanged parts need not be built again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Original {
    /// Path with query.
    pub(crate) path: Option<PathAndQuery>,
    /// Host header, where there was one.
    pub(crate) host: Option<HeaderValue>,
}

/// The body of a message that comes in, of either side.
pub(crate) enum Incoming {
    /// There is none.
    Empty,
    /// Read by hyper.
    Hyper(HyperBody),
    /// Any of these, changed by filters on its way.
    Filtered(Box<crate::http::filters::Filtered>),
    /// Of an HTTP/3 stream.
    Http3(Box<http3::Body>),
}

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
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(|error| self::hyper::broken(&error)),
            Self::Filtered(body) => body.poll(cx),
            Self::Http3(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Hyper(body) => body.is_end_stream(),
            Self::Filtered(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Hyper(body) => body.size_hint(),
            Self::Filtered(body) => body.size_hint(),
            Self::Http3(body) => body.size_hint(),
        }
    }
}

/// A connection or stream that is to stop being HTTP.
pub(crate) enum Upgrade {
    /// Under hyper.
    Hyper(OnUpgrade),
    /// An HTTP/3 stream.
    Http3(http3::Switched),
}

impl Future for Upgrade {
    type Output = io::Result<Tunnel>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Tunnel>> {
        match self.get_mut() {
            Self::Hyper(upgrade) => Pin::new(upgrade)
                .poll(cx)
                .map(|done| done.map(|io| Tunnel::Hyper(TokioIo::new(io))).map_err(io::Error::other)),
            Self::Http3(switched) => Pin::new(switched)
                .poll(cx)
                .map(|done| done.map(|stream| Tunnel::Http3(Box::new(stream))).map_err(io::Error::other)),
        }
    }
}

/// What a connection or stream is once it stopped being HTTP.
pub(crate) enum Tunnel {
    /// Under hyper.
    Hyper(TokioIo<::hyper::upgrade::Upgraded>),
    /// An HTTP/3 stream.
    Http3(Box<http3::Stream>),
    /// A connection of its own.
    #[allow(dead_code, reason = "for codecs that hand over the connection itself")]
    Stream(Box<Stream>),
}

macro_rules! each {
    ($self:ident, $t:ident => $call:expr) => {
        match $self.get_mut() {
            Tunnel::Hyper($t) => $call,
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
            Self::Hyper(t) => t.is_write_vectored(),
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
