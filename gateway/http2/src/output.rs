//! What waits to be written.
//!
//! Small frames and payloads are gathered in one buffer; large payloads stay where they are and are written from there.

use crate::frame::{FrameHead, flag, kind};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use std::{collections::VecDeque, io::IoSlice};

/// Payloads below this are copied: a copy is then cheaper than one more piece for the kernel to look at.
const COPIED: usize = 4096;
/// A buffer that grew beyond this is given back once it is written.
const KEPT: usize = 64 << 10;

/// Bytes to be written, in order.
#[derive(Default)]
pub struct Output {
    /// Finished pieces.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// The piece that grows.
    tail: BytesMut,
    /// Control frames among all that.
    control: usize,
}

impl Output {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued + self.tail.len()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.tail.is_empty()
    }

    /// Fills `slices` with what waits, from the front; returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.queue.iter().map(|piece| &piece[..]).chain(tail);
        let mut filled = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// `count` bytes were written.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(front) = self.queue.front_mut() {
            if count < front.len() {
                front.advance(count);
                self.queued -= count;
                return;
            }
            count -= front.len();
            self.queued -= front.len();
            self.queue.pop_front();
        }
        if count < self.tail.len() {
            return self.tail.advance(count);
        }
        self.control = 0;
        if self.tail.capacity() > KEPT {
            self.tail = BytesMut::new();
        } else {
            self.tail.clear();
        }
    }

    /// Gives back the memory of an empty buffer.
    pub fn trim(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Everything that waits, as one piece; for tests and small outputs.
    pub fn take(&mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len());
        self.queue.iter().for_each(|piece| all.extend_from_slice(piece));
        all.extend_from_slice(&self.tail);
        self.advance(all.len());
        all.freeze()
    }

    /// The buffer for whole frames.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Control frames that wait.
    pub(crate) fn control(&self) -> usize {
        self.control
    }

    pub(crate) fn data(&mut self, stream: u32, payload: Bytes, end: bool) {
        let flags = if end { flag::END_STREAM } else { 0 };
        FrameHead { length: payload.len(), kind: kind::DATA, flags, stream }.put(&mut self.tail);
        if payload.len() < COPIED {
            return self.tail.put_slice(&payload);
        }
        let finished = self.tail.split().freeze();
        self.queued += finished.len() + payload.len();
        self.queue.push_back(finished);
        self.queue.push_back(payload);
    }

    fn head(&mut self, length: usize, kind: u8, flags: u8, stream: u32) {
        self.control += 1;
        FrameHead { length, kind, flags, stream }.put(&mut self.tail);
    }

    pub(crate) fn settings(&mut self, all: &[(u16, u32)]) {
        self.head(all.len() * 6, kind::SETTINGS, 0, 0);
        for (number, value) in all {
            self.tail.put_u16(*number);
            self.tail.put_u32(*value);
        }
    }

    pub(crate) fn settings_ack(&mut self) {
        self.head(0, kind::SETTINGS, flag::ACK, 0);
    }

    pub(crate) fn ping(&mut self, opaque: [u8; 8], ack: bool) {
        self.head(8, kind::PING, u8::from(ack), 0);
        self.tail.put_slice(&opaque);
    }

    pub(crate) fn reset(&mut self, stream: u32, code: u32) {
        self.head(4, kind::RST_STREAM, 0, stream);
        self.tail.put_u32(code);
    }

    pub(crate) fn goaway(&mut self, last: u32, code: u32) {
        self.head(8, kind::GOAWAY, 0, 0);
        self.tail.put_u32(last);
        self.tail.put_u32(code);
    }

    pub(crate) fn window(&mut self, stream: u32, more: u32) {
        FrameHead { length: 4, kind: kind::WINDOW_UPDATE, flags: 0, stream }.put(&mut self.tail);
        self.tail.put_u32(more);
    }
}
