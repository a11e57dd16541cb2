//! A client's connection under a codec that reads by itself.
//!
//! Owns the note that something arrived, for the clock of request heads, and the patience with which a refused client's
//! connection is closed.

use crate::{listen::Handle, net::stream::Stream};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// A stream that notes when something arrives, for the clock of request heads.
pub(crate) struct Watched {
    stream: Stream,
    arrived: Arc<AtomicBool>,
    linger: Arc<AtomicBool>,
    /// How long the last wait may take.
    patience: Duration,
    ended: bool,
    last_wait: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    /// `patience`: how long the last wait may take.
    pub(crate) fn new(stream: Stream, handle: &Handle, patience: Duration) -> Self {
        let (arrived, linger) = (handle.arrived.clone(), handle.linger.clone());
        Self { stream, arrived, linger, patience, ended: false, last_wait: None }
    }

    /// Reads and drops what a refused client still sends, so that its answer is not lost to a reset. Ready when the client
    /// has closed or had time enough.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let refused = self.linger.load(Ordering::Relaxed) || self.arrived.load(Ordering::Relaxed);
        if self.ended || !refused || self.patience.is_zero() {
            return Poll::Ready(());
        }
        let patience = self.patience;
        let wait = self.last_wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if wait.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if outcome.is_ready() {
            if buf.filled().len() > before {
                self.arrived.store(true, Ordering::Relaxed);
            } else {
                self.ended = true;
            }
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        std::task::ready!(self.poll_linger(cx));
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
