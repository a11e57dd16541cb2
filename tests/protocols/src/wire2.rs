//! HTTP/2 by hand: frames of any kind, header blocks of literals only, and just enough reading to know what became of a
//! stream.

use crate::wire1::PATIENCE;
use anyhow::{Context as _, Result, bail};
use std::{collections::BTreeMap, io::ErrorKind, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::TcpStream,
    time::timeout,
};

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds of frames.
pub const DATA: u8 = 0;
/// The head of a message or its trailers.
pub const HEADERS: u8 = 1;
/// Once said how streams depend on each other.
pub const PRIORITY: u8 = 2;
/// The end of a stream, before its time.
pub const RST_STREAM: u8 = 3;
/// Settings.
pub const SETTINGS: u8 = 4;
/// A stream that nobody asked for.
pub const PUSH_PROMISE: u8 = 5;
/// Asks for a sign of life.
pub const PING: u8 = 6;
/// The end of a connection.
pub const GOAWAY: u8 = 7;
/// Room for more data.
pub const WINDOW_UPDATE: u8 = 8;
/// More of a header block.
pub const CONTINUATION: u8 = 9;
/// The last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The last frame of a header block.
pub const END_HEADERS: u8 = 4;
/// A frame with padding.
pub const PADDED: u8 = 8;
/// Bytes that floods are sent by.
const PIECE: usize = 64 << 10;

/// Fields of a header block.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A frame.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A header block: each field a literal that no table keeps, nothing compressed.
#[must_use]
pub fn block(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            length(text.len(), &mut out);
            out.extend(text);
        }
    }
    out
}

fn length(mut value: usize, out: &mut Vec<u8>) {
    if value < 127 {
        out.push(u8::try_from(value).unwrap_or(0));
        return;
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push(u8::try_from(value % 128).unwrap_or(0) | 128);
        value /= 128;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// Fields from text.
#[must_use]
pub fn fields(list: &[(&str, &str)]) -> Fields {
    list.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
}

/// What became of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fate {
    /// Status of its answer.
    pub status: Option<u16>,
    /// Bytes of its answer.
    pub body: Vec<u8>,
    /// Its answer is complete.
    pub whole: bool,
    /// The code with which it was reset.
    pub reset: Option<u32>,
}

/// A connection.
#[derive(Debug)]
pub struct Wire2 {
    stream: TcpStream,
    input: Vec<u8>,
    /// What became of each stream so far.
    pub fates: BTreeMap<u32, Fate>,
    /// The code of a GOAWAY, and the last stream that it lets live.
    pub goaway: Option<(u32, u32)>,
    /// What the other side's settings say.
    pub settings: BTreeMap<u16, u32>,
    /// The other side hung up.
    pub ended: bool,
}

impl Wire2 {
    /// Says hello. The other side's table is set to nothing, so that what it sends can be read without one.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(at: std::net::SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self {
            stream,
            input: Vec::new(),
            fates: BTreeMap::new(),
            goaway: None,
            settings: BTreeMap::new(),
            ended: false,
        };
        let mut hello = PREFACE.to_vec();
        hello.extend(frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]));
        // Read first, so that every answer is written with that setting.
        wire.send(&hello).await;
        wire.until(|wire| !wire.settings.is_empty()).await?;
        Ok(wire)
    }

    /// Sends bytes; a peer that hung up is noticed by reading.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a head, whole, in one frame.
    pub async fn head(&mut self, stream: u32, fields: &[(Vec<u8>, Vec<u8>)], end: bool) {
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        self.send(&frame(HEADERS, flags, stream, &block(fields))).await;
    }

    /// Sends all of this while it reads what comes, and stops when the other side hangs up; how much went out.
    ///
    /// # Errors
    /// When nothing moves for long.
    pub async fn flood(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() && !self.ended {
            let both = self.stream.ready(Interest::READABLE | Interest::WRITABLE);
            let ready = timeout(PATIENCE, both).await.context("nothing moves")??;
            if ready.is_readable() {
                match self.stream.try_read_buf(&mut self.input) {
                    Ok(1..) => while self.take_frame().await? {},
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Ok(_) | Err(_) => self.ended = true,
                }
            }
            if ready.is_writable() {
                match self.stream.try_write(&bytes[sent..bytes.len().min(sent + PIECE)]) {
                    Ok(count) => sent += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => self.ended = true,
                }
            }
        }
        Ok(sent)
    }

    /// Sends this and reads nothing, until nothing more is taken; how much went out.
    pub async fn flood_unread(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while let Some(piece) = bytes.get(sent..bytes.len().min(sent + PIECE)).filter(|piece| !piece.is_empty()) {
            match timeout(Duration::from_millis(700), self.stream.write(piece)).await {
                Ok(Ok(count)) => sent += count,
                _ => break,
            }
        }
        sent
    }

    /// Reads until a condition holds or the other side hangs up.
    ///
    /// # Errors
    /// When neither happens.
    pub async fn until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<()> {
        loop {
            while self.take_frame().await? {}
            if self.ended || done(self) {
                return Ok(());
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input));
            let read = read.await.with_context(|| format!("silence; so far {:?}", self.fates))?;
            self.ended = !matches!(read, Ok(1..));
        }
    }

    /// Reads until a stream is over.
    ///
    /// # Errors
    /// When it never is.
    pub async fn fate(&mut self, stream: u32) -> Result<Fate> {
        self.until(|wire| wire.fates.get(&stream).is_some_and(|fate| fate.whole || fate.reset.is_some())).await?;
        Ok(self.fates.get(&stream).cloned().unwrap_or_default())
    }

    async fn take_frame(&mut self) -> Result<bool> {
        let [a, b, c, kind, flags, rest @ ..] = &self.input[..] else { return Ok(false) };
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c]))?;
        let (kind, flags) = (*kind, *flags);
        if rest.len() < 4 + length {
            return Ok(false);
        }
        let stream = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]) & 0x7fff_ffff;
        let payload = rest[4..4 + length].to_vec();
        self.input.drain(..9 + length);
        self.took(kind, flags, stream, &payload).await?;
        Ok(true)
    }

    async fn took(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        let number = |at: usize| payload.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        match kind {
            SETTINGS if flags & 1 == 0 => {
                for pair in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]);
                    self.settings.insert(u16::from_be_bytes([pair[0], pair[1]]), value);
                }
                // Even an empty list was one.
                self.settings.entry(0).or_default();
                self.send(&frame(SETTINGS, 1, 0, &[])).await;
            }
            HEADERS => {
                let fate = self.fates.entry(stream).or_default();
                let status = if fate.status.is_none() { Some(status(payload)?) } else { None };
                // Informational answers are passed over.
                if status.is_some_and(|status| status >= 200) {
                    fate.status = status;
                }
                fate.whole |= flags & END_STREAM != 0;
            }
            DATA => {
                let fate = self.fates.entry(stream).or_default();
                fate.body.extend(payload);
                fate.whole |= flags & END_STREAM != 0;
                if let Ok(read @ 1..) = u32::try_from(payload.len()) {
                    let mut more = frame(WINDOW_UPDATE, 0, 0, &read.to_be_bytes());
                    if flags & END_STREAM == 0 {
                        more.extend(frame(WINDOW_UPDATE, 0, stream, &read.to_be_bytes()));
                    }
                    self.send(&more).await;
                }
            }
            RST_STREAM => self.fates.entry(stream).or_default().reset = number(0),
            GOAWAY => self.goaway = number(4).zip(number(0)),
            _ => {}
        }
        Ok(())
    }
}

/// The status with which a block begins: an entry of the static table, or a literal with one of its names.
fn status(block: &[u8]) -> Result<u16> {
    // A table that is not there may be said to be so first.
    let at = block.iter().take_while(|b| **b & 0xe0 == 0x20).count();
    match &block[at..] {
        [first @ 0x88..=0x8e, ..] => Ok([200, 204, 206, 304, 400, 404, 500][usize::from(first - 0x88)]),
        [0x08 | 0x18 | 0x48, 3, a, b, c, ..] => Ok(std::str::from_utf8(&[*a, *b, *c])?.parse()?),
        [0x08 | 0x18 | 0x48, length, rest @ ..] if length & 0x80 != 0 => digits(rest),
        other => bail!("a block that begins with {:02x?}", &other[..other.len().min(8)]),
    }
}

/// Three digits in Huffman's code of HPACK: five bits for 0, 1 and 2, six for the others.
fn digits(bytes: &[u8]) -> Result<u16> {
    let bits: Vec<u8> = bytes.iter().take(3).flat_map(|b| (0..8).rev().map(move |n| b >> n & 1)).collect();
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let code = |length: usize| -> Option<u16> {
            Some(bits.get(at..at + length)?.iter().fold(0, |sum, bit| sum * 2 + u16::from(*bit)))
        };
        let (digit, length) = match (code(5), code(6)) {
            (Some(digit @ 0..=2), _) => (digit, 5),
            (_, Some(code @ 0b01_1001..=0b01_1111)) => (code - 0b01_1001 + 3, 6),
            _ => bail!("no digits: {bytes:02x?}"),
        };
        number = number * 10 + digit;
        at += length;
    }
    Ok(number)
}
