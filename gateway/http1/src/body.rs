//! Reading bodies.
//!
//! Owns the state between pieces. Data are slices of the bytes that came in. Chunk sizes are hexadecimal digits and
//! nothing else, lines end in CR LF, extensions are read over within bounds.

use crate::{Framing, Names, Refusal, Rules, Scanner, fields};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, header};
use memchr::memchr;

/// Bytes of extensions in one body.
const MOST_EXTENSION: usize = 8 * 1024;
/// Digits of a chunk's size.
const MOST_DIGITS: usize = 16;
/// Trailers are held to the same bounds as heads, and to these at most.
const TRAILERS: Rules = Rules { max_bytes: 16 * 1024, max_fields: 100, ..Rules::STRICT };

/// What the next bytes of a body are.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// More bytes are needed.
    Partial,
    /// Some of it.
    Data(Bytes),
    /// Its trailers; it is over.
    Trailers(HeaderMap),
    /// It is over.
    End,
}

/// The bytes are no body; the text says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedBody(pub &'static str);

impl std::fmt::Display for MalformedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for MalformedBody {}

#[derive(Debug, Clone)]
enum State {
    /// So many bytes are left.
    Length(u64),
    UntilClose,
    /// A chunk's size line.
    Size,
    /// So many bytes of the chunk are left.
    Chunk(u64),
    /// The end of line after a chunk.
    ChunkEnd,
    /// What follows the last chunk.
    Trailers(Scanner),
    Over,
}

/// Reads one body.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    /// Bytes of extensions so far.
    extension: usize,
}

impl Decoder {
    /// A body with this framing.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Over,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extension: 0 }
    }

    /// Whether all of it was read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Bytes that are left, where that is known.
    #[must_use]
    pub fn exact(&self) -> Option<u64> {
        match self.state {
            State::Over => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// The connection ended. True when that is a proper end of the body.
    pub fn close(&mut self) -> bool {
        if matches!(self.state, State::UntilClose) {
            self.state = State::Over;
        }
        self.is_over()
    }

    /// Takes what belongs to the body from the front of `input`.
    ///
    /// # Errors
    /// When the bytes break the framing; nothing more can be read then.
    pub fn decode(&mut self, input: &mut BytesMut, names: &mut Names) -> Result<Decoded, MalformedBody> {
        loop {
            match &mut self.state {
                State::Over => return Ok(Decoded::End),
                State::Trailers(scanner) => {
                    let decoded = read_trailers(scanner, input, names)?;
                    if decoded != Decoded::Partial {
                        self.state = State::Over;
                    }
                    return Ok(decoded);
                }
                _ if input.is_empty() => return Ok(Decoded::Partial),
                State::UntilClose => return Ok(Decoded::Data(input.split().freeze())),
                State::Length(left) => {
                    let data = take(left, input);
                    if *left == 0 {
                        self.state = State::Over;
                    }
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(left) => {
                    let data = take(left, input);
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(Decoded::Data(data));
                }
                State::ChunkEnd => match **input {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.state = State::Size;
                    }
                    [b'\r'] => return Ok(Decoded::Partial),
                    _ => return Err(MalformedBody("chunk longer than its size")),
                },
                State::Size => match self.size(input)? {
                    None => return Ok(Decoded::Partial),
                    Some(0) => self.state = State::Trailers(Scanner::after_line()),
                    Some(size) => self.state = State::Chunk(size),
                },
            }
        }
    }

    /// Reads a size line.
    fn size(&mut self, input: &mut BytesMut) -> Result<Option<u64>, MalformedBody> {
        let bad = MalformedBody("chunk size");
        let mut size = 0_u64;
        let mut digits = 0;
        while let Some(digit) = input.get(digits).and_then(|b| char::from(*b).to_digit(16)) {
            digits += 1;
            if digits > MOST_DIGITS {
                return Err(bad);
            }
            size = (size << 4) | u64::from(digit);
        }
        match input.get(digits..) {
            None | Some([]) => return Ok(None),
            _ if digits == 0 => return Err(bad),
            Some([b'\r']) => return Ok(None),
            Some([b'\r', b'\n', ..]) => input.advance(digits + 2),
            Some([b';', ..]) => match self.skip_extension(&input[digits..])? {
                None => return Ok(None),
                Some(length) => input.advance(digits + length),
            },
            Some(_) => return Err(bad),
        }
        Ok(Some(size))
    }

    /// Length of an extension with the end of its line.
    fn skip_extension(&mut self, rest: &[u8]) -> Result<Option<usize>, MalformedBody> {
        let end = memchr(b'\n', rest);
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if self.extension + line.len() > MOST_EXTENSION {
            return Err(MalformedBody("chunk extensions too long"));
        }
        let Some(end) = end else { return Ok(None) };
        let Some(text) = line.strip_suffix(b"\r") else { return Err(MalformedBody("line without CR LF")) };
        if text.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            return Err(MalformedBody("chunk extension"));
        }
        self.extension += line.len();
        Ok(Some(end + 1))
    }
}

fn take(left: &mut u64, input: &mut BytesMut) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    if length == input.len() { input.split().freeze() } else { input.split_to(length).freeze() }
}

fn read_trailers(scanner: &mut Scanner, input: &mut BytesMut, names: &mut Names) -> Result<Decoded, MalformedBody> {
    let refused = |refusal: Refusal| {
        MalformedBody(match refusal {
            Refusal::Malformed(what) => what,
            _ => "trailers too large",
        })
    };
    let Some(end) = scanner.find_fields(input, TRAILERS.max_bytes).map_err(refused)? else {
        return Ok(Decoded::Partial);
    };
    if end == 2 {
        input.advance(2);
        return Ok(Decoded::End);
    }
    let bytes = input.split_to(end).freeze();
    let trailers = fields::read(&bytes, 0, false, &TRAILERS, names).map_err(refused)?.headers;
    for name in [header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::HOST, header::CONNECTION, header::TE] {
        if trailers.contains_key(name) {
            return Err(MalformedBody("framing in trailers"));
        }
    }
    Ok(Decoded::Trailers(trailers))
}
