//! Settings: ours, and what the peer said of its own.

use crate::{
    code::{Code, Fault},
    frame::{FIRST_WINDOW, MAX_MAX_FRAME, MAX_WINDOW, MIN_MAX_FRAME, setting},
    head::HeadLimits,
};

/// How our side of a connection behaves. The defaults are safe for an endpoint that strangers reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Streams that the peer may have open at once.
    pub max_streams: u32,
    /// Bytes that may come in on a stream before they are consumed.
    pub stream_window: u32,
    /// Bytes that may come in on all streams before they are consumed; at least 65,535.
    pub connection_window: u32,
    /// Bytes of the table that the peer may use to compress headers.
    pub header_table: u32,
    /// Bounds of the heads that are taken.
    pub head: HeadLimits,
    /// Extended CONNECT is welcome (server).
    pub extended_connect: bool,
    /// A message that breaks the rules of HTTP ends its stream only. Otherwise it ends the connection.
    pub malformed_ends_stream: bool,
    /// Texts in headers are compressed where that makes them shorter.
    pub huffman: bool,
    /// PING after so many milliseconds of silence, and how many the answer may take.
    pub keepalive: Option<(u64, u64)>,
    /// Bytes of one stream that may wait to be sent.
    pub send_buffer: usize,
    /// Control frames (answers that the peer provokes) that may wait to be sent.
    pub max_control: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_streams: 128,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            header_table: 4096,
            head: HeadLimits { fields: 100, bytes: 60 << 10 },
            extended_connect: false,
            malformed_ends_stream: false,
            huffman: true,
            keepalive: None,
            send_buffer: 64 << 10,
            max_control: 1000,
        }
    }
}

impl Settings {
    /// Bytes of a compressed header block that are collected at most.
    pub(crate) fn max_block(&self) -> usize {
        self.head.bytes.saturating_mul(2).saturating_add(16 << 10)
    }

    /// What is announced.
    pub(crate) fn announced(&self, server: bool) -> Vec<(u16, u32)> {
        let mut all = vec![(setting::INITIAL_WINDOW_SIZE, self.stream_window.min(MAX_WINDOW))];
        if self.header_table != 4096 {
            all.push((setting::HEADER_TABLE_SIZE, self.header_table));
        }
        if server {
            all.push((setting::MAX_CONCURRENT_STREAMS, self.max_streams));
            if self.extended_connect {
                all.push((setting::ENABLE_CONNECT_PROTOCOL, 1));
            }
        } else {
            all.push((setting::ENABLE_PUSH, 0));
        }
        let list = self.head.bytes.saturating_add(self.head.fields.saturating_mul(32));
        all.push((setting::MAX_HEADER_LIST_SIZE, u32::try_from(list).unwrap_or(u32::MAX)));
        all
    }
}

/// What the peer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerSettings {
    /// Bytes of the table that we may use.
    pub header_table: u32,
    /// Streams that we may have open at once.
    pub max_streams: u32,
    /// Bytes that we may send on a fresh stream.
    pub stream_window: u32,
    /// Bytes of a frame's payload at most.
    pub max_frame: u32,
    /// Bytes of a head that it takes, as it says.
    pub max_head: u32,
    /// It takes extended CONNECT.
    pub extended_connect: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table: 4096,
            max_streams: u32::MAX,
            stream_window: FIRST_WINDOW,
            max_frame: MIN_MAX_FRAME,
            max_head: u32::MAX,
            extended_connect: false,
        }
    }
}

impl PeerSettings {
    /// Reads a payload into them. `server`: the peer is a client.
    pub(crate) fn read(&mut self, payload: &[u8], server: bool) -> Result<(), Fault> {
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Fault::size("SETTINGS of a wrong size"));
        }
        for [a, b, value @ ..] in entries {
            self.set(u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value), server)?;
        }
        Ok(())
    }

    fn set(&mut self, number: u16, value: u32, server: bool) -> Result<(), Fault> {
        match number {
            setting::HEADER_TABLE_SIZE => self.header_table = value,
            setting::ENABLE_PUSH if value > 1 || (value == 1 && !server) => {
                return Err(Fault::protocol("bad ENABLE_PUSH"));
            }
            setting::MAX_CONCURRENT_STREAMS => self.max_streams = value,
            setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                return Err(Fault::Connection(Code::FLOW_CONTROL_ERROR, "window too large"));
            }
            setting::INITIAL_WINDOW_SIZE => self.stream_window = value,
            setting::MAX_FRAME_SIZE if !(MIN_MAX_FRAME..=MAX_MAX_FRAME).contains(&value) => {
                return Err(Fault::protocol("bad MAX_FRAME_SIZE"));
            }
            setting::MAX_FRAME_SIZE => self.max_frame = value,
            setting::MAX_HEADER_LIST_SIZE => self.max_head = value,
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.extended_connect) => {
                return Err(Fault::protocol("bad ENABLE_CONNECT_PROTOCOL"));
            }
            setting::ENABLE_CONNECT_PROTOCOL => self.extended_connect = value == 1,
            // Unknown settings are ignored, ENABLE_PUSH of a client does not concern us: we never push.
            _ => {}
        }
        Ok(())
    }
}
