//! One connection's bytes: what was read and not used, what was written and not taken.
//!
//! Owns the stream. Idle, it holds no buffer. Writes go to the socket at once; only what it does not take is kept, and
//! nobody writes more before that is gone.

use super::GEAR;
use crate::net::stream::Stream;
use bytes::{Buf as _, Bytes, BytesMut};
use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

/// Pieces that are written with one call.
const VECTOR: usize = 8;

/// A connection.
pub(super) struct Link {
    /// `None` once it was taken.
    stream: Option<Stream>,
    /// Read and not used.
    pub(super) input: BytesMut,
    /// Written and not taken.
    pending: VecDeque<Bytes>,
    unflushed: bool,
    /// Nothing more comes.
    pub(super) ended: bool,
}

impl Link {
    /// A fresh connection.
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream: Some(stream), input: BytesMut::new(), pending: VecDeque::new(), unflushed: false, ended: false }
    }

    /// The stream, beginning with what was read and not used; nothing can be read or written here then.
    pub(super) fn take(&mut self) -> Option<Stream> {
        let stream = self.stream.take()?;
        let ahead = std::mem::take(&mut self.input);
        Some(if ahead.is_empty() { stream } else { stream.with_ahead(ahead.freeze()) })
    }

    /// Reads once, into the worker's memory when nothing waits to be used; 0 at the end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, least: usize) -> Poll<io::Result<usize>> {
        let Self { stream: Some(stream), input, .. } = self else { return Poll::Ready(Ok(0)) };
        // Half of all reads find nothing. Of a bare socket that is known without a buffer at hand.
        if stream.bare().is_some_and(|tcp| tcp.poll_read_ready(cx).is_pending()) {
            return Poll::Pending;
        }
        let read = if input.is_empty() {
            GEAR.with_borrow_mut(|gear| {
                let arena = gear.room(least);
                let read = poll_read_buf(Pin::new(stream), cx, arena);
                if matches!(read, Poll::Ready(Ok(1..))) {
                    *input = arena.split();
                }
                read
            })
        } else {
            input.reserve(least);
            poll_read_buf(Pin::new(stream), cx, input)
        };
        if matches!(read, Poll::Ready(Ok(0) | Err(_))) {
            self.ended = true;
        }
        read
    }

    /// Takes the first bytes out; all of them without another share in their memory.
    pub(super) fn first(&mut self, count: usize) -> Bytes {
        if count == self.input.len() { std::mem::take(&mut self.input) } else { self.input.split_to(count) }.freeze()
    }

    /// Lets go of the memory when nothing of it is in use.
    pub(super) fn tidy(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// What was read of something that is not yet whole gets memory of its own, so that a slow sender does not hold on to
    /// what others share.
    pub(super) fn detach(&mut self) {
        self.input = BytesMut::from(&self.input[..]);
    }

    /// Whether everything written was taken.
    pub(super) fn is_flushed(&self) -> bool {
        self.pending.is_empty() && !self.unflushed
    }

    /// Writes three parts as one; what the socket does not take is kept.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, head: &[u8], body: Bytes, tail: &[u8]) -> io::Result<()> {
        if head.is_empty() && body.is_empty() && tail.is_empty() {
            // Writing nothing looks like a closed socket.
            return Ok(());
        }
        let mut taken = 0;
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::NotConnected.into()) };
        if self.pending.is_empty() {
            let mut parts: SmallVec<[IoSlice<'_>; 3]> = SmallVec::new();
            for part in [head, &body, tail] {
                if !part.is_empty() {
                    parts.push(IoSlice::new(part));
                }
            }
            let written = match &parts[..] {
                // The kernel has less to do for one part.
                [one] => Pin::new(stream).poll_write(cx, one),
                several => Pin::new(stream).poll_write_vectored(cx, several),
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => taken = n,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        self.unflushed = true;
        if taken < head.len() {
            self.pending.push_back(Bytes::copy_from_slice(&head[taken..]));
        }
        taken = taken.saturating_sub(head.len());
        if taken < body.len() {
            self.pending.push_back(body.slice(taken..));
        }
        taken = taken.saturating_sub(body.len());
        if taken < tail.len() {
            self.pending.push_back(Bytes::copy_from_slice(&tail[taken..]));
        }
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Ready when everything written was taken.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        while !self.pending.is_empty() {
            let parts: SmallVec<[IoSlice<'_>; VECTOR]> =
                self.pending.iter().take(VECTOR).map(|part| IoSlice::new(part)).collect();
            let polled = Pin::new(&mut *stream).poll_write_vectored(cx, &parts);
            drop(parts);
            let mut taken = ready!(polled)?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            while let Some(front) = self.pending.front_mut() {
                if taken < front.len() {
                    front.advance(taken);
                    break;
                }
                taken -= front.len();
                self.pending.pop_front();
            }
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the other side that nothing more comes.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
