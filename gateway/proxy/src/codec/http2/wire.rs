//! The socket of one connection.
//!
//! Connections of a worker read into one piece of memory, one after the other. A connection has memory of its own only for the
//! frame of which a part is still missing.

use crate::net::stream::Stream;
use bytes::BytesMut;
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;
use tombolo_gateway_http2::Output;

/// Memory that is read into at once.
const ARENA: usize = 64 * 1024;
/// Less than this is not worth a system call.
const LEAST: usize = 16 * 1024;
/// Pieces that one system call writes.
const PIECES: usize = 32;

thread_local! {
    static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A socket.
pub(super) struct Wire {
    stream: Stream,
    /// The beginning of a frame.
    rest: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, rest: BytesMut::new() }
    }

    /// Reads what there is and gives it to `take`, which leaves what it cannot use yet. Says how many bytes came.
    pub(super) fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut BytesMut) -> T,
    ) -> Poll<io::Result<(usize, T)>> {
        if !self.rest.is_empty() {
            self.rest.reserve(LEAST);
            let count = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.rest))?;
            let taken = take(&mut self.rest);
            if self.rest.is_empty() {
                self.rest = BytesMut::new();
            }
            return Poll::Ready(Ok((count, taken)));
        }
        let mut input = SHARED.take();
        if input.capacity() - input.len() < LEAST {
            input.reserve(ARENA);
        }
        let outcome = match poll_read_buf(Pin::new(&mut self.stream), cx, &mut input) {
            Poll::Ready(Ok(count)) => Poll::Ready(Ok((count, take(&mut input)))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        if !input.is_empty() {
            self.rest = BytesMut::from(&input[..]);
            input.clear();
        }
        SHARED.set(input);
        outcome
    }

    /// A frame has begun and is not complete.
    pub(super) fn is_partial(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Writes everything that waits.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, output: &mut Output) -> Poll<io::Result<()>> {
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let filled = output.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let written = match slices.get(..filled) {
                Some([one]) => ready!(stream.poll_write(cx, one))?,
                Some(several) => ready!(stream.poll_write_vectored(cx, several))?,
                None => 0,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
