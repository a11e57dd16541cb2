//! A stream that stopped being HTTP: bytes in both directions.

use super::body::Http2Body;
use bytes::{Buf as _, Bytes};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tombolo_gateway_http2::Code;

/// One end of a tunnel.
pub(crate) struct Http2Tunnel {
    body: Http2Body,
    ahead: Bytes,
    ended: bool,
}

impl Http2Tunnel {
    /// The rest of a stream.
    pub(super) fn new(body: Http2Body) -> Self {
        Self { body, ahead: Bytes::new(), ended: false }
    }

    fn gone() -> io::Error {
        io::ErrorKind::ConnectionReset.into()
    }
}

impl AsyncRead for Http2Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            match ready!(self.body.poll(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(_)) => return Poll::Ready(Err(Self::gone())),
                Some(Ok(frame)) => self.ahead = frame.into_data().unwrap_or_default(),
            }
        }
        let count = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Http2Body { shared, side, stream, .. } = &self.body;
        let mut connection = shared.connection();
        let room = connection.capacity(*stream).map_err(|_| Self::gone())?;
        if room == 0 {
            side.wait_to_write(cx);
            return Poll::Pending;
        }
        let count = room.min(buf.len());
        connection.send_data(*stream, Bytes::copy_from_slice(&buf[..count]), false).map_err(|_| Self::gone())?;
        drop(connection);
        shared.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true) {
            let _ = self.body.shared.connection().send_data(self.body.stream, Bytes::new(), true);
            self.body.shared.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Http2Tunnel {
    fn drop(&mut self) {
        let Http2Body { shared, stream, .. } = &self.body;
        if shared.connection().is_open(*stream) {
            shared.reset(*stream, Code::CANCEL);
        }
    }
}
