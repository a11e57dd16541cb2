//! The client's side of an HTTP/2 connection, watched and held back. Owns the bytes that wait: what a client means to say at
//! once leaves in one write, so that no proxy sees half of it by chance; and the GOAWAYs that came, which the client's library keeps
//! to itself.

use crate::http1::Duplex;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const DATA: u8 = 0;
const GOAWAY: u8 = 7;
const PREFACE: usize = 24;

/// What the client and the stream share.
#[derive(Default)]
struct Shared {
    held: bool,
    waker: Option<Waker>,
    goaways: Vec<String>,
}

/// The client's hand on the stream.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Shared>>);

impl Watch {
    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.0.lock().expect("nobody panics with it"))
    }

    /// Holds what is written until data is among it.
    pub(crate) fn hold(&self) {
        self.with(|shared| shared.held = true);
    }

    /// Lets go what was held.
    pub(crate) fn release(&self) {
        let waker = self.with(|shared| {
            shared.held = false;
            shared.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The GOAWAYs that came: last stream and code.
    pub(crate) fn goaways(&self) -> Vec<String> {
        self.with(|shared| shared.goaways.clone())
    }
}

/// Frames, as far as they are looked at.
#[derive(Default)]
struct Frames {
    skip: usize,
    begun: Vec<u8>,
}

impl Frames {
    /// Takes bytes and tells of every frame: its type and the first bytes of its payload.
    fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let wanted = if self.begun.len() < 9 { 9 } else { 9 + self.length().min(8) };
            let taken = (wanted - self.begun.len()).min(bytes.len());
            self.begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.begun.len() >= 9 && self.begun.len() == 9 + self.length().min(8) {
                tell(self.begun[3], &self.begun[9..]);
                self.skip = self.length().saturating_sub(8);
                self.begun.clear();
            }
        }
    }

    fn length(&self) -> usize {
        usize::from(self.begun[0]) << 16 | usize::from(self.begun[1]) << 8 | usize::from(self.begun[2])
    }
}

/// A stream that is watched.
pub(crate) struct Tap {
    stream: Box<dyn Duplex>,
    watch: Watch,
    waiting: Vec<u8>,
    sent: Frames,
    received: Frames,
}

impl Tap {
    /// Watches a stream on which the client says its preface first.
    pub(crate) fn new(stream: Box<dyn Duplex>, watch: Watch) -> Self {
        let sent = Frames { skip: PREFACE, ..Frames::default() };
        Self { stream, watch, waiting: Vec::new(), sent, received: Frames::default() }
    }

    /// Writes what waits.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            self.waiting.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn is_held(&self, cx: &Context<'_>) -> bool {
        self.watch.with(|shared| {
            shared.waker = Some(cx.waker().clone());
            shared.held
        })
    }
}

impl AsyncRead for Tap {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let Self { watch, received, .. } = &mut *self;
        received.feed(&buf.filled()[before..], |kind, payload| {
            if let (GOAWAY, [a, b, c, d, e, f, g, h]) = (kind, payload) {
                let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
                let (last, code) = (number([*a, *b, *c, *d]), number([*e, *f, *g, *h]));
                watch.with(|shared| shared.goaways.push(format!("last stream {last}, code {code}")));
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tap {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.is_held(cx) {
            ready!(self.drain(cx))?;
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
            self.sent.feed(&bytes[..written], |_, _| {});
            return Poll::Ready(Ok(written));
        }
        let mut data = false;
        self.sent.feed(bytes, |kind, _| data |= kind == DATA);
        self.waiting.extend_from_slice(bytes);
        if data {
            self.watch.with(|shared| shared.held = false);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_held(cx) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn frames_are_told_whole_however_they_come() {
        let mut bytes = vec![0; 3];
        for (kind, length) in [(4, 0), (7, 12), (0, 5)] {
            bytes.extend([0, 0, length, kind, 0, 0, 0, 0, 1]);
            bytes.extend((0..length).map(|n| n + 1));
        }
        for size in 1..bytes.len() {
            let (mut frames, mut told) = (Frames { skip: 3, ..Frames::default() }, Vec::new());
            bytes.chunks(size).for_each(|part| frames.feed(part, |kind, payload| told.push((kind, payload.to_vec()))));
            assert_eq!(told, [(4, vec![]), (7, (1..9).collect()), (0, (1..6).collect::<Vec<u8>>())], "in {size}");
        }
    }
}
