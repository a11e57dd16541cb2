//! Streams that stop being HTTP: what follows a CONNECT, carried in DATA frames.

use super::{Sending, data_frame, receive::Receiver};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use tombolo_gateway_http3::{Code, Event};

/// Bytes of one frame at most.
const PIECE: usize = 16 * 1024;

/// Resolves once the head is out.
pub(crate) type Switched = oneshot::Receiver<Stream>;

/// Both sides of such a stream.
pub(crate) struct Stream {
    receiver: Receiver,
    sending: Sending,
    read: Bytes,
    ended: bool,
    /// A frame that is not yet on its way.
    unsent: [Bytes; 2],
}

impl Stream {
    pub(super) fn new(receiver: Receiver, mut sending: Sending) -> Self {
        sending.otherwise = Code::CONNECT_ERROR;
        Self { receiver, sending, read: Bytes::new(), ended: false, unsent: [Bytes::new(), Bytes::new()] }
    }

    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent.iter().any(|piece| !piece.is_empty()) {
            let written = ready!(pin!(self.sending.stream.write_chunks(&mut self.unsent)).poll(cx));
            written.map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.read.is_empty() && !self.ended {
            match ready!(self.receiver.poll_event(cx)) {
                Ok(Some(Event::Data(data))) => self.read = data,
                Ok(None) => self.ended = true,
                Ok(Some(_)) | Err(_) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            }
        }
        let taken = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..taken]);
        self.read.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        let taken = buf.len().min(PIECE);
        let mut frame = BytesMut::with_capacity(taken.min(super::SMALL) + 16);
        let data = data_frame(&mut frame, Bytes::copy_from_slice(&buf[..taken]));
        self.unsent = [frame.freeze(), data];
        // What does not fit now goes with the next write or flush.
        if let Poll::Ready(Err(error)) = self.poll_unsent(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unsent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        self.sending.finish();
        Poll::Ready(Ok(()))
    }
}
