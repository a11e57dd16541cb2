//! gRPC-Web: base64 in both directions, and trailers as a last frame of the body.

use super::Malformed;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, BytesMut};
use http::HeaderMap;

/// Marks the frame of trailers.
const TRAILERS: u8 = 0x80;

/// Base64 becomes bytes, in groups of four characters; each group may be padded, because clients encode message by message.
#[derive(Default)]
pub(super) struct FromText {
    left: Vec<u8>,
}

impl FromText {
    pub(super) fn run(&mut self, input: &[u8], out: &mut BytesMut) -> Result<(), Malformed> {
        self.left.extend_from_slice(input);
        let whole = self.left.len() / 4 * 4;
        let mut at = 0;
        while at < whole {
            // Up to the end of the group that is padded, as one text.
            let padded = self.left[at..whole].iter().position(|byte| *byte == b'=');
            let end = padded.map_or(whole, |pad| (at + pad) / 4 * 4 + 4);
            out.extend_from_slice(&STANDARD.decode(&self.left[at..end]).map_err(|_| Malformed)?);
            at = end;
        }
        self.left.drain(..whole);
        Ok(())
    }

    pub(super) fn finish(&self) -> Result<(), Malformed> {
        if self.left.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// gRPC becomes gRPC-Web.
pub(super) struct ToWeb {
    text: bool,
}

impl ToWeb {
    pub(super) fn new(text: bool) -> Self {
        Self { text }
    }

    pub(super) fn run(&self, input: &[u8], out: &mut BytesMut) {
        if !self.text {
            return out.extend_from_slice(input);
        }
        // Each piece is padded by itself, as clients understand: one may be waiting for the end of a message.
        out.extend_from_slice(STANDARD.encode(input).as_bytes());
    }

    /// The frame of trailers.
    pub(super) fn finish(&self, trailers: Option<HeaderMap>, out: &mut BytesMut) {
        let Some(trailers) = trailers else { return };
        let mut lines = Vec::new();
        for (name, value) in &trailers {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.push(b':');
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        let mut frame = BytesMut::with_capacity(lines.len() + 5);
        frame.put_u8(TRAILERS);
        frame.put_u32(u32::try_from(lines.len()).unwrap_or(u32::MAX));
        frame.extend_from_slice(&lines);
        self.run(&frame, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(pieces: &[&str]) -> Result<Vec<u8>, Malformed> {
        let mut step = FromText::default();
        let mut out = BytesMut::new();
        for piece in pieces {
            step.run(piece.as_bytes(), &mut out)?;
        }
        step.finish()?;
        Ok(out.to_vec())
    }

    #[test]
    fn text_becomes_bytes() {
        assert_eq!(decoded(&["aGVsbG8="]).unwrap(), b"hello");
        assert_eq!(decoded(&["aGV", "s", "bG8", "="]).unwrap(), b"hello");
        assert_eq!(decoded(&["aGVsbG8=aGk=", "IQ=="]).unwrap(), b"hellohi!");
        assert_eq!(decoded(&[]).unwrap(), b"");
        assert_eq!(decoded(&["aGVsbG8"]), Err(Malformed));
        assert_eq!(decoded(&["!!!!"]), Err(Malformed));
    }

    #[test]
    fn trailers_become_a_frame() {
        let trailers: HeaderMap = [("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect();
        let mut out = BytesMut::new();
        let step = ToWeb::new(false);
        step.run(b"data", &mut out);
        step.finish(Some(trailers.clone()), &mut out);
        assert_eq!(&out[..], b"data\x80\0\0\0\x0fgrpc-status:0\r\n");
        let mut text = BytesMut::new();
        ToWeb::new(true).finish(Some(trailers), &mut text);
        assert_eq!(decoded(&[std::str::from_utf8(&text).unwrap()]).unwrap(), &out[4..]);
    }
}
