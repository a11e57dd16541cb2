//! The two streams on which a peer's coders talk to ours. With no dynamic table there is next to nothing they may say.

use crate::code::{Code, Violation};

/// What the peer's encoder sends.
#[derive(Debug, Default)]
pub struct EncoderStream(());

impl EncoderStream {
    /// Looks at bytes of the stream.
    ///
    /// # Errors
    /// When it inserts into the table that does not exist.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        // The one allowed instruction sets the capacity to zero, which is one byte.
        if bytes.iter().all(|byte| *byte == 0x20) {
            return Ok(());
        }
        Err(Violation::connection(Code::QPACK_ENCODER_STREAM_ERROR, "an insertion into a table without room"))
    }
}

/// What the peer's decoder sends.
#[derive(Debug, Default)]
pub struct DecoderStream {
    /// Bytes of an integer that goes on.
    within: u8,
}

impl DecoderStream {
    /// Looks at bytes of the stream.
    ///
    /// # Errors
    /// When it acknowledges what was never inserted.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let wrong = |reason| Err(Violation::connection(Code::QPACK_DECODER_STREAM_ERROR, reason));
        for byte in bytes {
            if self.within > 0 {
                self.within = if byte & 0x80 == 0 { 0 } else { self.within + 1 };
                if self.within > 10 {
                    return wrong("an endless integer");
                }
            } else if byte & 0xc0 == 0x40 {
                // A request was given up.
                self.within = u8::from(byte & 0x3f == 0x3f);
            } else {
                return wrong("an acknowledgement of what was never inserted");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_no_table_is_allowed() {
        let mut encoder = EncoderStream::default();
        assert!(encoder.read(&[0x20, 0x20]).is_ok());
        for byte in [0x21, 0x3f, 0x80, 0xc0, 0x40, 0x00] {
            assert_eq!(encoder.read(&[byte]).unwrap_err().code, Code::QPACK_ENCODER_STREAM_ERROR);
        }
        let mut decoder = DecoderStream::default();
        assert!(decoder.read(&[0x44, 0x7f]).is_ok());
        assert!(decoder.read(&[0x80, 0x01, 0x40]).is_ok());
        for byte in [0x80, 0x84, 0x01, 0x00] {
            assert_eq!(DecoderStream::default().read(&[byte]).unwrap_err().code, Code::QPACK_DECODER_STREAM_ERROR);
        }
    }
}
