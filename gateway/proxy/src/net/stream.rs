//! One stream type for every transport, so that codecs are compiled once and no stream is boxed behind a trait.
//!
//! Never hides that a write can be vectored: hyper would otherwise copy every body into one buffer.

use bytes::{Buf, Bytes};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{client, server};

/// A connection of either direction.
pub(crate) enum Stream {
    /// TCP, with the bytes that were read ahead and not yet consumed.
    Tcp(Replay<TcpStream>),
    /// TLS that this process terminates.
    TlsServer(Box<server::TlsStream<Replay<TcpStream>>>),
    /// TLS that this process originates.
    TlsClient(Box<client::TlsStream<Replay<TcpStream>>>),
    /// A Unix socket.
    Unix(UnixStream),
    /// Any of these, with decrypted bytes that were read ahead.
    Ahead(Box<Replay<Stream>>),
}

/// A stream that first yields bytes that somebody else already took from it.
pub(crate) struct Replay<S> {
    ahead: Bytes,
    inner: S,
}

impl<S> Replay<S> {
    /// A stream from which nothing was taken.
    pub(crate) fn new(inner: S) -> Self {
        Self { ahead: Bytes::new(), inner }
    }

    /// A stream from which `ahead` was taken.
    pub(crate) fn with(ahead: Bytes, inner: S) -> Self {
        Self { ahead, inner }
    }

    /// The stream beneath.
    pub(crate) fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..n]);
        self.ahead.advance(n);
        if self.ahead.is_empty() {
            // The buffer behind the bytes is freed now, not when the connection ends.
            self.ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Stream {
    /// The same stream, beginning with bytes that were taken from it.
    pub(crate) fn with_ahead(self, ahead: Bytes) -> Self {
        match self {
            Self::Tcp(Replay { ahead: before, inner }) if before.is_empty() => Self::Tcp(Replay { ahead, inner }),
            other => Self::Ahead(Box::new(Replay { ahead, inner: other })),
        }
    }

    /// The TCP socket beneath, when there is one.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(s) => Some(s.inner()),
            Self::TlsServer(s) => Some(s.get_ref().0.inner()),
            Self::TlsClient(s) => Some(s.get_ref().0.inner()),
            Self::Unix(_) => None,
            Self::Ahead(s) => s.inner().tcp(),
        }
    }

    /// The TCP socket, when nothing stands between it and the bytes: no TLS, nothing read ahead.
    pub(crate) fn bare(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(s) if s.ahead.is_empty() => Some(s.inner()),
            _ => None,
        }
    }

    /// Version and cipher suite of TLS; empty texts for none.
    pub(crate) fn tls_facts(&self) -> (&'static str, &'static str) {
        match self {
            Self::TlsServer(s) => crate::tls::facts(s.get_ref().1),
            Self::TlsClient(s) => crate::tls::facts(s.get_ref().1),
            Self::Tcp(_) | Self::Unix(_) => ("", ""),
            Self::Ahead(s) => s.inner().tls_facts(),
        }
    }

    /// The application protocol that TLS agreed on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::TlsServer(s) => s.get_ref().1.alpn_protocol(),
            Self::TlsClient(s) => s.get_ref().1.alpn_protocol(),
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Ahead(s) => s.inner().alpn(),
        }
    }
}

macro_rules! each {
    ($self:ident, $s:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($s) => $call,
            Stream::TlsServer($s) => $call,
            Stream::TlsClient($s) => $call,
            Stream::Unix($s) => $call,
            Stream::Ahead($s) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, s => Pin::new(s).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(s) => s.is_write_vectored(),
            Self::TlsServer(s) => s.is_write_vectored(),
            Self::TlsClient(s) => s.is_write_vectored(),
            Self::Unix(s) => s.is_write_vectored(),
            Self::Ahead(s) => s.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn bytes_read_ahead_come_first_in_any_read_size() {
        let (mut far, near) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut far, b" world").await.unwrap();
        drop(far);
        let mut replay = Replay::with(Bytes::from_static(b"hello"), near);
        let mut two = [0; 2];
        replay.read_exact(&mut two).await.unwrap();
        let mut rest = String::new();
        replay.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&two[..], rest.as_str()), (&b"he"[..], "llo world"));
    }
}
