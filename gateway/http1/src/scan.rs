//! Finding the end of a head in bytes as they come.
//!
//! Owns the memory of what was looked at, so that a head that comes in a thousand pieces is looked at once. Never reads
//! what a line says, but refuses lines that end in anything but CR LF.

use crate::Refusal;
use memchr::memchr_iter;

/// Empty lines before a request line that are passed over, as RFC 9112 section 2.2 asks for.
const MOST_EMPTY: usize = 2;

/// Looks for the end of one head.
#[derive(Debug, Clone, Default)]
pub struct Scanner {
    /// Bytes looked at.
    seen: usize,
    /// Where the present line begins.
    line: usize,
    /// Where the head begins, after empty lines.
    start: usize,
}

/// A complete head: where it begins and ends in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its first byte.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
}

impl Scanner {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether anything but empty lines was seen.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.seen > self.start
    }

    /// Takes all bytes so far, of which those of earlier calls are not read again. `None`: more are needed.
    ///
    /// # Errors
    /// When a line ends wrongly, the first byte can begin no message, or there is no end within `most` bytes.
    pub fn find(&mut self, bytes: &[u8], most: usize) -> Result<Option<Found>, Refusal> {
        let bound = bytes.len().min(self.start.saturating_add(most));
        let from = self.seen;
        for at in memchr_iter(b'\n', bytes.get(from..bound).unwrap_or_default()) {
            let end = from + at;
            if end == self.line || bytes.get(end - 1) != Some(&b'\r') {
                return Err(Refusal::Malformed("line without CR LF"));
            }
            self.seen = end + 1;
            if end == self.line + 1 {
                if self.line != self.start {
                    return Ok(Some(Found { start: self.start, end: end + 1 }));
                }
                self.start = end + 1;
                if self.start > 2 * MOST_EMPTY {
                    return Err(Refusal::Malformed("empty lines"));
                }
                self.line = self.start;
                return self.find(bytes, most);
            }
            if self.line == self.start {
                first(bytes, self.start)?;
            }
            self.line = self.seen;
        }
        self.seen = bound.max(self.seen);
        first(bytes, self.start)?;
        if bytes.len() >= self.start.saturating_add(most) { Err(Refusal::TooLarge) } else { Ok(None) }
    }
}

/// A message begins with a letter or, rarely, with another character of a token.
fn first(bytes: &[u8], start: usize) -> Result<(), Refusal> {
    match bytes.get(start) {
        None
        | Some(b'\r' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'^'..=b'z') => {
            Ok(())
        }
        Some(b'|' | b'~') => Ok(()),
        Some(_) => Err(Refusal::Malformed("no request line")),
    }
}

impl Scanner {
    /// For fields that follow a line which was read already, and may be none.
    pub(crate) fn after_line() -> Self {
        Self::default()
    }

    /// As [`find`](Self::find) for fields without a line before them: where the empty line after them ends.
    pub(crate) fn find_fields(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, Refusal> {
        let bound = bytes.len().min(most);
        let from = self.seen;
        for at in memchr_iter(b'\n', bytes.get(from..bound).unwrap_or_default()) {
            let end = from + at;
            if end == self.line || bytes.get(end - 1) != Some(&b'\r') {
                return Err(Refusal::Malformed("line without CR LF"));
            }
            if end == self.line + 1 {
                return Ok(Some(end + 1));
            }
            self.seen = end + 1;
            self.line = self.seen;
        }
        self.seen = bound.max(self.seen);
        if bytes.len() >= most { Err(Refusal::TooLarge) } else { Ok(None) }
    }
}
