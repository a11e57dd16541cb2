//! Error codes (RFC 9113, section 7) and what ends a connection. Used by everything in this crate and by its users.

use std::fmt;

/// An error code as it stands in RST_STREAM and GOAWAY. Unknown codes are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// No error: a graceful end.
    pub const NO_ERROR: Self = Self(0);
    /// The rules were broken.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Something failed inside.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// A flow-control rule was broken.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// SETTINGS were not acknowledged in time.
    pub const SETTINGS_TIMEOUT: Self = Self(4);
    /// A frame for a stream that was already half closed.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame of a wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// The stream was not processed at all: safe to try again.
    pub const REFUSED_STREAM: Self = Self(7);
    /// The stream is not needed any more.
    pub const CANCEL: Self = Self(8);
    /// The header tables are out of step.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The connection behind a CONNECT failed.
    pub const CONNECT_ERROR: Self = Self(10);
    /// The peer causes too much work.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
    /// The transport is not secure enough.
    pub const INADEQUATE_SECURITY: Self = Self(12);
    /// HTTP/1.1 is wanted instead.
    pub const HTTP_1_1_REQUIRED: Self = Self(13);

    const NAMES: [&'static str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|at| Self::NAMES.get(at)) {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The connection is over: nothing more may be read from it. What is queued should still be written, then it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionError {
    /// The code in our GOAWAY.
    pub code: Code,
    /// What was wrong, in a few words.
    pub reason: &'static str,
    /// A message broke the rules of HTTP, as opposed to the rules of framing: the connection ends without a GOAWAY, as
    /// the peer's clients are used to.
    pub malformed: bool,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.reason)
    }
}

impl std::error::Error for ConnectionError {}

/// What is wrong with something that just came in, and how far the damage goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection ends with a GOAWAY.
    Connection(Code, &'static str),
    /// A message is malformed; settings say how far that goes.
    Malformed(u32, &'static str),
    /// One stream ends.
    Stream(u32, Code, &'static str),
}

impl Fault {
    pub(crate) const fn protocol(reason: &'static str) -> Self {
        Self::Connection(Code::PROTOCOL_ERROR, reason)
    }

    pub(crate) const fn size(reason: &'static str) -> Self {
        Self::Connection(Code::FRAME_SIZE_ERROR, reason)
    }

    pub(crate) const fn calm(reason: &'static str) -> Self {
        Self::Connection(Code::ENHANCE_YOUR_CALM, reason)
    }
}
