//! Owns writing of values into a line: bounds, and escapes that keep one request from forging the line of another.

use std::fmt::Write;

/// How bytes are made harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// Control bytes become `\xNN`; the rest stays as it is.
    Text,
    /// The inside of a JSON string; what is not UTF-8 becomes U+FFFD.
    Json,
    /// None: for bodies, which are no lines.
    Raw,
}

/// Takes the bytes of one value.
pub(super) struct Sink<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) escape: Escape,
    /// Bytes of the value that may still come, before escaping.
    pub(super) left: usize,
}

impl Sink<'_> {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let taken = &bytes[..bytes.len().min(self.left)];
        self.left -= taken.len();
        match self.escape {
            Escape::Text => escape_text(taken, self.out),
            Escape::Json => escape_json(taken, self.out),
            Escape::Raw => self.out.extend_from_slice(taken),
        }
    }
}

impl Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

fn escape_text(bytes: &[u8], out: &mut Vec<u8>) {
    let harmful = |byte: &u8| *byte < 0x20 || *byte == 0x7f;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(harmful) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        out.extend_from_slice(b"\\x");
        hex(tail[0], out);
        rest = &tail[1..];
    }
    out.extend_from_slice(rest);
}

fn escape_json(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        let special = |byte: &u8| *byte < 0x20 || matches!(*byte, b'"' | b'\\' | 0x7f);
        while let Some(at) = rest.iter().position(special) {
            let (plain, tail) = rest.split_at(at);
            out.extend_from_slice(plain);
            match tail[0] {
                byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                byte => {
                    out.extend_from_slice(b"\\u00");
                    hex(byte, out);
                }
            }
            rest = &tail[1..];
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn hex(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(DIGITS[usize::from(byte >> 4)]);
    out.push(DIGITS[usize::from(byte & 15)]);
}
