//! The control stream: settings first, then what concerns the whole connection.

use crate::{
    code::{Code, Violation},
    frame::{CANCEL_PUSH, DATA, GOAWAY, HEADERS, MAX_PUSH_ID, Opening, PUSH_PROMISE, SETTINGS, Side, is_forbidden},
    settings::Settings,
    varint,
};
use bytes::{Buf, Bytes};

/// Larger frames that are to be understood are refused.
const LARGEST: u64 = 4096;
/// Frames that say nothing new, in all: more are a flood.
const MOST: u32 = 10_000;

/// Something that the peer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Its settings.
    Settings(Settings),
    /// It takes no more: streams from this id on are not looked at.
    GoAway(u64),
}

#[derive(Debug)]
enum State {
    Between,
    Payload { kind: u64, missing: usize, so_far: Vec<u8> },
    Skip { missing: u64 },
}

/// Reads the peer's control stream.
#[derive(Debug)]
pub struct ControlReader {
    /// What the peer sends on request streams.
    peer: Side,
    settled: bool,
    opening: Opening,
    state: State,
    frames: u32,
    highest_push: Option<u64>,
    last_goaway: Option<u64>,
}

impl ControlReader {
    /// For a peer that sends requests or responses.
    #[must_use]
    pub fn new(peer: Side) -> Self {
        Self {
            peer,
            settled: false,
            opening: Opening::default(),
            state: State::Between,
            frames: 0,
            highest_push: None,
            last_goaway: None,
        }
    }

    /// The next thing that is said in `input`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The rule that the peer broke; each ends the connection.
    pub fn read(&mut self, input: &mut Bytes) -> Result<Option<Control>, Violation> {
        loop {
            match &mut self.state {
                State::Between => {
                    let Some((kind, length)) = self.opening.read(input) else { return Ok(None) };
                    self.state = self.begin(kind, length)?;
                }
                State::Skip { missing } => {
                    let taken = usize::try_from(*missing).map_or(input.len(), |m| m.min(input.len()));
                    *missing -= taken as u64;
                    input.advance(taken);
                    if *missing > 0 {
                        return Ok(None);
                    }
                    self.state = State::Between;
                }
                State::Payload { kind, missing, so_far } => {
                    let taken = (*missing).min(input.len());
                    so_far.extend_from_slice(&input.split_to(taken));
                    *missing -= taken;
                    if *missing > 0 {
                        return Ok(None);
                    }
                    let (kind, payload) = (*kind, std::mem::take(so_far));
                    self.state = State::Between;
                    if let Some(said) = self.understand(kind, &payload)? {
                        return Ok(Some(said));
                    }
                }
            }
        }
    }

    fn begin(&mut self, kind: u64, length: u64) -> Result<State, Violation> {
        let unexpected = |reason| Err(Violation::connection(Code::FRAME_UNEXPECTED, reason));
        self.frames += 1;
        if self.frames > MOST {
            return Err(Violation::connection(Code::EXCESSIVE_LOAD, "too many control frames"));
        }
        match kind {
            SETTINGS if self.settled => unexpected("a second SETTINGS frame"),
            _ if kind != SETTINGS && !self.settled => {
                Err(Violation::connection(Code::MISSING_SETTINGS, "the control stream begins without SETTINGS"))
            }
            DATA | HEADERS | PUSH_PROMISE => unexpected("a frame that does not belong on the control stream"),
            MAX_PUSH_ID if self.peer == Side::Response => unexpected("MAX_PUSH_ID from a server"),
            kind if is_forbidden(kind) => unexpected("a frame of HTTP/2"),
            SETTINGS | GOAWAY | CANCEL_PUSH | MAX_PUSH_ID => match usize::try_from(length) {
                Ok(missing) if length <= LARGEST => Ok(State::Payload { kind, missing, so_far: Vec::new() }),
                _ => Err(Violation::connection(Code::EXCESSIVE_LOAD, "a control frame is too large")),
            },
            _ => Ok(State::Skip { missing: length }),
        }
    }

    fn understand(&mut self, kind: u64, payload: &[u8]) -> Result<Option<Control>, Violation> {
        if kind == SETTINGS {
            self.settled = true;
            return Settings::decode(payload).map(|settings| Some(Control::Settings(settings)));
        }
        let id = match varint::decode(payload) {
            Some((id, length)) if length == payload.len() => id,
            _ => return Err(Violation::connection(Code::FRAME_ERROR, "a control frame holds no identifier")),
        };
        let wrong = |reason| Err(Violation::connection(Code::ID_ERROR, reason));
        match kind {
            GOAWAY => {
                if self.peer == Side::Response && id % 4 != 0 {
                    return wrong("GOAWAY names no request");
                }
                if self.last_goaway.is_some_and(|before| id > before) {
                    return wrong("GOAWAY takes back what an earlier one said");
                }
                self.last_goaway = Some(id);
                Ok(Some(Control::GoAway(id)))
            }
            MAX_PUSH_ID => {
                if self.highest_push.is_some_and(|before| id < before) {
                    return wrong("MAX_PUSH_ID goes down");
                }
                self.highest_push = Some(id);
                Ok(None)
            }
            // Nothing is ever pushed, in either direction.
            _ => wrong("a push that does not exist is cancelled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::begin_frame;
    use proptest::prelude::*;

    fn all(reader: &mut ControlReader, bytes: &[u8], cut: usize) -> Result<Vec<Control>, Violation> {
        let mut said = Vec::new();
        for piece in bytes.chunks(cut) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(one) = reader.read(&mut input)? {
                said.push(one);
            }
        }
        Ok(said)
    }

    fn frames(parts: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, payload) in parts {
            begin_frame(*kind, payload.len(), &mut out);
            out.extend_from_slice(payload);
        }
        out
    }

    proptest! {
        #[test]
        fn the_same_however_it_is_cut(cut in 1_usize..20) {
            let bytes = frames(&[(4, &[6, 9]), (0x21, b"grease"), (0xd, &[3]), (7, &[8]), (7, &[4])]);
            let said = all(&mut ControlReader::new(Side::Request), &bytes, cut).unwrap();
            let settings = Settings { max_field_section: Some(9), connect_protocol: false };
            prop_assert_eq!(said, vec![Control::Settings(settings), Control::GoAway(8), Control::GoAway(4)]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..20) {
            let _ = all(&mut ControlReader::new(Side::Request), &bytes, cut);
        }
    }

    #[test]
    fn each_broken_rule_has_its_code() {
        let code =
            |parts: &[(u64, &[u8])]| all(&mut ControlReader::new(Side::Request), &frames(parts), 100).unwrap_err().code;
        assert_eq!(code(&[(7, &[0])]), Code::MISSING_SETTINGS);
        assert_eq!(code(&[(4, &[]), (4, &[])]), Code::FRAME_UNEXPECTED);
        for kind in [0, 1, 2, 5, 6, 8, 9] {
            assert_eq!(code(&[(4, &[]), (kind, &[])]), Code::FRAME_UNEXPECTED, "{kind}");
        }
        assert_eq!(code(&[(4, &[]), (7, &[4]), (7, &[8])]), Code::ID_ERROR);
        assert_eq!(code(&[(4, &[]), (0xd, &[4]), (0xd, &[3])]), Code::ID_ERROR);
        assert_eq!(code(&[(4, &[]), (3, &[4])]), Code::ID_ERROR);
        assert_eq!(code(&[(4, &[]), (7, &[4, 4])]), Code::FRAME_ERROR);
        assert_eq!(code(&[(4, &[]), (7, &[])]), Code::FRAME_ERROR);
        assert_eq!(code(&[(4, &[6, 1, 6, 1])]), Code::SETTINGS_ERROR);
        assert_eq!(
            code(&vec![(4, &[][..]); 1].into_iter().chain(vec![(0x21, &[][..]); 10_000]).collect::<Vec<_>>()),
            Code::EXCESSIVE_LOAD
        );
    }
}
