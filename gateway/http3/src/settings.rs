//! What the two sides tell each other at the beginning.

use crate::{
    code::{Code, Violation},
    frame::{SETTINGS, begin_frame},
    varint,
};
use bytes::{BufMut, BytesMut};

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x1;
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const QPACK_BLOCKED_STREAMS: u64 = 0x7;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
const H3_DATAGRAM: u64 = 0x33;

/// Settings of one side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// Largest field section that it takes, uncompressed with 32 bytes for each field. `None`: any.
    pub max_field_section: Option<u64>,
    /// CONNECT with `:protocol` is understood.
    pub connect_protocol: bool,
}

impl Settings {
    /// Writes the frame. The dynamic table of QPACK stays at its default, which is that there is none.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut payload = BytesMut::with_capacity(16);
        if let Some(size) = self.max_field_section {
            varint::encode(MAX_FIELD_SECTION_SIZE, &mut payload);
            varint::encode(size, &mut payload);
        }
        if self.connect_protocol {
            varint::encode(ENABLE_CONNECT_PROTOCOL, &mut payload);
            varint::encode(1, &mut payload);
        }
        begin_frame(SETTINGS, payload.len(), out);
        out.put_slice(&payload);
    }

    /// Reads a frame's payload.
    ///
    /// # Errors
    /// When it is cut short, says something twice, or says what may not be said.
    pub fn decode(mut payload: &[u8]) -> Result<Self, Violation> {
        let wrong = |reason| Violation::connection(Code::SETTINGS_ERROR, reason);
        let mut seen: Vec<u64> = Vec::new();
        let mut settings = Self::default();
        while !payload.is_empty() {
            let (id, value);
            (id, payload) = integer(payload)?;
            (value, payload) = integer(payload)?;
            if seen.contains(&id) {
                return Err(wrong("a setting is there twice"));
            }
            if seen.len() >= 64 {
                return Err(Violation::connection(Code::EXCESSIVE_LOAD, "too many settings"));
            }
            seen.push(id);
            match (id, value) {
                (0x0 | 0x2..=0x5, _) => return Err(wrong("a setting of HTTP/2")),
                (ENABLE_CONNECT_PROTOCOL | H3_DATAGRAM, 2..) => return Err(wrong("neither on nor off")),
                (ENABLE_CONNECT_PROTOCOL, on) => settings.connect_protocol = on == 1,
                (MAX_FIELD_SECTION_SIZE, size) => settings.max_field_section = Some(size),
                // Nothing is ever put into a dynamic table, whatever the peer would allow.
                (QPACK_MAX_TABLE_CAPACITY | QPACK_BLOCKED_STREAMS, _) => {}
                _ => {}
            }
        }
        Ok(settings)
    }
}

fn integer(bytes: &[u8]) -> Result<(u64, &[u8]), Violation> {
    varint::decode(bytes)
        .and_then(|(value, length)| Some((value, bytes.get(length..)?)))
        .ok_or(Violation::connection(Code::FRAME_ERROR, "settings are cut short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let ours = Settings { max_field_section: Some(61_440), connect_protocol: true };
        let mut out = BytesMut::new();
        ours.encode(&mut out);
        assert_eq!(Settings::decode(&out[2..]), Ok(ours));
    }

    #[test]
    fn wrong_settings_are_refused() {
        let code = |bytes: &[u8]| Settings::decode(bytes).unwrap_err().code;
        assert_eq!(code(&[6, 1, 6, 1]), Code::SETTINGS_ERROR);
        assert_eq!(code(&[2, 0]), Code::SETTINGS_ERROR);
        assert_eq!(code(&[8, 2]), Code::SETTINGS_ERROR);
        assert_eq!(code(&[6]), Code::FRAME_ERROR);
        assert_eq!(Settings::decode(&[0x40, 0x21, 5]), Ok(Settings::default()));
    }
}
