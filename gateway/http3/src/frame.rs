//! Frames of a request stream: which may come when, and where a message's parts are.
//!
//! Owns the order HEADERS, DATA, trailing HEADERS. Never holds more than one head that is allowed to be as large as it is.

use crate::{
    code::{Code, Violation},
    varint,
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Frame type of body bytes.
pub const DATA: u64 = 0x0;
/// Frame type of field sections.
pub const HEADERS: u64 = 0x1;
/// Frame type of settings.
pub const SETTINGS: u64 = 0x4;
/// Frame type of the announcement that no more requests are taken.
pub const GOAWAY: u64 = 0x7;
pub(crate) const CANCEL_PUSH: u64 = 0x3;
pub(crate) const PUSH_PROMISE: u64 = 0x5;
pub(crate) const MAX_PUSH_ID: u64 = 0xd;

/// Types that HTTP/2 has and HTTP/3 forbids.
pub(crate) fn is_forbidden(kind: u64) -> bool {
    matches!(kind, 0x2 | 0x6 | 0x8 | 0x9)
}

/// Writes the beginning of a frame: its type and the length of what follows.
pub fn begin_frame(kind: u64, length: usize, out: &mut impl BufMut) {
    varint::encode(kind, out);
    varint::encode(length as u64, out);
}

/// Writes a GOAWAY frame.
pub fn goaway(id: u64, out: &mut impl BufMut) {
    let mut payload = Vec::with_capacity(8);
    varint::encode(id, &mut payload);
    begin_frame(GOAWAY, payload.len(), out);
    out.put_slice(&payload);
}

/// Collects type and length of a frame, which may come byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    bytes: [u8; 16],
    filled: usize,
}

impl Opening {
    /// Takes what it needs from `input`; `None` when that was not enough.
    pub(crate) fn read(&mut self, input: &mut Bytes) -> Option<(u64, u64)> {
        if self.filled == 0
            && let Some((kind, length, taken)) = both(input)
        {
            input.advance(taken);
            return Some((kind, length));
        }
        while !input.is_empty() {
            // Two integers never take more than sixteen bytes.
            *self.bytes.get_mut(self.filled)? = input.get_u8();
            self.filled += 1;
            if let Some((kind, length, _)) = both(self.bytes.get(..self.filled)?) {
                self.filled = 0;
                return Some((kind, length));
            }
        }
        None
    }

    /// Nothing of the next frame has come.
    pub(crate) fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

fn both(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, first) = varint::decode(bytes)?;
    let (length, second) = varint::decode(bytes.get(first..)?)?;
    Some((kind, length, first + second))
}

/// Who sends the message that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client sends a request.
    Request,
    /// A server sends a response.
    Response,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The encoded head.
    Head(Bytes),
    /// Bytes of the body.
    Data(Bytes),
    /// The encoded trailers.
    Trailers(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    Body,
    Over,
}

#[derive(Debug)]
enum State {
    Between,
    Section { missing: usize, so_far: BytesMut },
    Data { missing: u64 },
    Skip { missing: u64 },
}

/// Reads the frames of one message.
#[derive(Debug)]
pub struct MessageReader {
    side: Side,
    largest: usize,
    phase: Phase,
    state: State,
    opening: Opening,
    input: Bytes,
}

impl MessageReader {
    /// For a message whose head and trailers take at most `largest` bytes each, as they are encoded.
    #[must_use]
    pub fn new(side: Side, largest: usize) -> Self {
        Self {
            side,
            largest,
            phase: Phase::Start,
            state: State::Between,
            opening: Opening::default(),
            input: Bytes::new(),
        }
    }

    /// Takes bytes of the stream. Everything before must have been read by [`read`](Self::read).
    pub fn feed(&mut self, input: Bytes) {
        if self.input.is_empty() {
            self.input = input;
        } else {
            let mut joined = BytesMut::with_capacity(self.input.len() + input.len());
            joined.put_slice(&self.input);
            joined.put_slice(&input);
            self.input = joined.freeze();
        }
    }

    /// The head that was read was an interim one: another follows.
    pub fn interim(&mut self) {
        self.phase = Phase::Start;
    }

    /// The next part; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The rule that the peer broke.
    pub fn read(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            match &mut self.state {
                State::Between => {
                    let Some((kind, length)) = self.opening.read(&mut self.input) else { return Ok(None) };
                    self.state = self.begin(kind, length)?;
                }
                State::Section { missing, so_far } => {
                    let taken = (*missing).min(self.input.len());
                    if taken == *missing && so_far.is_empty() {
                        let section = self.input.split_to(taken);
                        return Ok(Some(self.section(section)));
                    }
                    so_far.put_slice(&self.input.split_to(taken));
                    *missing -= taken;
                    if *missing > 0 {
                        return Ok(None);
                    }
                    let section = std::mem::take(so_far).freeze();
                    return Ok(Some(self.section(section)));
                }
                State::Data { missing } | State::Skip { missing } if *missing == 0 => self.state = State::Between,
                State::Data { .. } | State::Skip { .. } if self.input.is_empty() => return Ok(None),
                State::Data { missing } => {
                    let taken = usize::try_from(*missing).map_or(self.input.len(), |m| m.min(self.input.len()));
                    *missing -= taken as u64;
                    return Ok(Some(Event::Data(self.input.split_to(taken))));
                }
                State::Skip { missing } => {
                    let taken = usize::try_from(*missing).map_or(self.input.len(), |m| m.min(self.input.len()));
                    *missing -= taken as u64;
                    self.input.advance(taken);
                }
            }
        }
    }

    fn section(&mut self, section: Bytes) -> Event {
        self.state = State::Between;
        if self.phase == Phase::Start {
            self.phase = Phase::Body;
            Event::Head(section)
        } else {
            self.phase = Phase::Over;
            Event::Trailers(section)
        }
    }

    fn begin(&self, kind: u64, length: u64) -> Result<State, Violation> {
        let unexpected = |reason| Err(Violation::connection(Code::FRAME_UNEXPECTED, reason));
        match (kind, self.phase) {
            (DATA, Phase::Body) => Ok(State::Data { missing: length }),
            (DATA, Phase::Start) => unexpected("DATA before HEADERS"),
            (DATA | HEADERS, Phase::Over) => unexpected("a frame after the trailers"),
            (HEADERS, _) => match usize::try_from(length) {
                Ok(missing) if missing <= self.largest => Ok(State::Section { missing, so_far: BytesMut::new() }),
                _ => Err(Violation::too_large()),
            },
            (PUSH_PROMISE, _) if self.side == Side::Response => {
                // No push was ever allowed, so there is no id that it could have.
                Err(Violation::connection(Code::ID_ERROR, "a push that was not allowed"))
            }
            (PUSH_PROMISE | CANCEL_PUSH | SETTINGS | GOAWAY | MAX_PUSH_ID, _) => {
                unexpected("a frame that does not belong on a request stream")
            }
            (kind, _) if is_forbidden(kind) => unexpected("a frame of HTTP/2"),
            _ => Ok(State::Skip { missing: length }),
        }
    }

    /// The stream ended cleanly.
    ///
    /// # Errors
    /// When that was in the middle of something.
    pub fn finish(&self) -> Result<(), Violation> {
        let whole = match &self.state {
            State::Between => self.opening.is_empty() && self.input.is_empty(),
            State::Data { missing } | State::Skip { missing } => *missing == 0,
            State::Section { .. } => false,
        };
        if !whole {
            return Err(Violation::connection(Code::FRAME_ERROR, "the stream ended within a frame"));
        }
        if self.phase == Phase::Start {
            return Err(Violation::stream(Code::REQUEST_INCOMPLETE, "the stream ended without a head"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(parts: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, payload) in parts {
            begin_frame(*kind, payload.len(), &mut out);
            out.extend_from_slice(payload);
        }
        out
    }

    fn read(bytes: &[u8], cut: usize) -> Result<Vec<Event>, Violation> {
        let mut reader = MessageReader::new(Side::Request, 100);
        let mut events: Vec<Event> = Vec::new();
        for piece in bytes.chunks(cut.max(1)) {
            reader.feed(Bytes::copy_from_slice(piece));
            while let Some(event) = reader.read()? {
                match (events.last_mut(), event) {
                    (Some(Event::Data(before)), Event::Data(more)) => {
                        *before = [&before[..], &more[..]].concat().into()
                    }
                    (_, event) => events.push(event),
                }
            }
        }
        reader.finish()?;
        Ok(events)
    }

    proptest! {
        #[test]
        fn the_same_however_it_is_cut(cut in 1_usize..40) {
            let bytes = frames(&[(0x21, b"grease"), (1, b"head"), (0, b"body"), (0x40, b""), (0, b"more"), (1, b"tail")]);
            let expected = vec![
                Event::Head("head".into()), Event::Data("bodymore".into()), Event::Trailers("tail".into()),
            ];
            prop_assert_eq!(read(&bytes, cut).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..20) {
            let _ = read(&bytes, cut);
        }
    }

    #[test]
    fn each_broken_order_has_its_code() {
        let code = |parts: &[(u64, &[u8])]| read(&frames(parts), 7).unwrap_err();
        assert_eq!(code(&[(0, b"x")]).code, Code::FRAME_UNEXPECTED);
        assert_eq!(code(&[(1, b"h"), (1, b"t"), (0, b"x")]).code, Code::FRAME_UNEXPECTED);
        assert_eq!(code(&[(1, b"h"), (1, b"t"), (1, b"x")]).code, Code::FRAME_UNEXPECTED);
        for kind in [2, 3, 4, 5, 6, 7, 8, 9, 0xd] {
            assert_eq!(code(&[(1, b"h"), (kind, b"")]).code, Code::FRAME_UNEXPECTED, "{kind}");
        }
        assert_eq!(code(&[]).code, Code::REQUEST_INCOMPLETE);
        assert!(code(&[(1, &[0; 101])]).is_too_large());
        let cut_short = frames(&[(1, b"h"), (0, b"body")]);
        assert_eq!(read(&cut_short[..cut_short.len() - 1], 100).unwrap_err().code, Code::FRAME_ERROR);
    }

    #[test]
    fn an_announced_size_reserves_nothing() {
        let mut reader = MessageReader::new(Side::Request, 100);
        let mut bytes = Vec::new();
        begin_frame(0x21, usize::MAX >> 2, &mut bytes);
        reader.feed(bytes.into());
        for _ in 0..1000 {
            assert_eq!(reader.read().unwrap(), None);
            reader.feed(Bytes::from_static(&[0; 1000]));
        }
    }
}
