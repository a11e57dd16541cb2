//! Frames: their heads, kinds, flags and fixed layouts (RFC 9113, sections 4 and 6).
//!
//! Never knows what a frame means for a connection or a stream.

use crate::code::{Code, Fault};
use bytes::BufMut;

/// What a client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;
/// The size of payloads that every endpoint must take.
pub(crate) const MIN_MAX_FRAME: u32 = 16_384;
/// The largest payload that a setting may allow.
pub(crate) const MAX_MAX_FRAME: u32 = (1 << 24) - 1;
/// The largest window.
pub(crate) const MAX_WINDOW: u32 = (1 << 31) - 1;
/// The window that every stream and connection begins with.
pub(crate) const FIRST_WINDOW: u32 = 65_535;

/// Types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(crate) mod flag {
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// Numbers of settings.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Bytes of its payload.
    pub(crate) length: usize,
    /// Its type.
    pub(crate) kind: u8,
    /// Its flags.
    pub(crate) flags: u8,
    /// Its stream; 0 for the connection.
    pub(crate) stream: u32,
}

impl FrameHead {
    /// Reads a head; `None` when it is not complete.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD] = bytes.first_chunk()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        Some(Self {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            // The highest bit is reserved and ignored.
            stream: u32::from_be_bytes(stream) & MAX_WINDOW,
        })
    }

    /// Writes it.
    pub(crate) fn put(self, out: &mut impl BufMut) {
        out.put_slice(&self.bytes());
    }

    /// As it is written.
    pub(crate) fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Cuts padding off: where the content of a payload begins and ends.
pub(crate) fn unpad(head: FrameHead, payload: &[u8]) -> Result<(usize, usize), Fault> {
    if !head.has(flag::PADDED) {
        return Ok((0, payload.len()));
    }
    let padding = usize::from(*payload.first().ok_or(Fault::size("padding without its length"))?);
    match payload.len().checked_sub(padding) {
        Some(end) if end >= 1 => Ok((1, end)),
        _ => Err(Fault::protocol("more padding than payload")),
    }
}

/// Reads a payload that is one number of 32 bits, without its highest bit.
pub(crate) fn number(payload: &[u8], wrong: &'static str) -> Result<u32, Fault> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| Fault::Connection(Code::FRAME_SIZE_ERROR, wrong))
}
