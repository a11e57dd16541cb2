//! Error codes, and how far an error reaches.

use std::fmt;

/// A code of RFC 9114 or RFC 9204.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u64);

impl Code {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0x100);
    /// The peer broke a rule that has no code of its own.
    pub const GENERAL_PROTOCOL_ERROR: Self = Self(0x101);
    /// Something went wrong here.
    pub const INTERNAL_ERROR: Self = Self(0x102);
    /// A stream of a kind that may not be opened.
    pub const STREAM_CREATION_ERROR: Self = Self(0x103);
    /// A stream that must stay open was closed.
    pub const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    /// A frame where it may not be.
    pub const FRAME_UNEXPECTED: Self = Self(0x105);
    /// A frame that is malformed.
    pub const FRAME_ERROR: Self = Self(0x106);
    /// The peer asks for too much.
    pub const EXCESSIVE_LOAD: Self = Self(0x107);
    /// An identifier that may not be used.
    pub const ID_ERROR: Self = Self(0x108);
    /// A setting that may not be sent.
    pub const SETTINGS_ERROR: Self = Self(0x109);
    /// The control stream does not begin with settings.
    pub const MISSING_SETTINGS: Self = Self(0x10a);
    /// The request was not looked at: it may be sent again.
    pub const REQUEST_REJECTED: Self = Self(0x10b);
    /// The request or its response is not wanted any more.
    pub const REQUEST_CANCELLED: Self = Self(0x10c);
    /// The stream ended before the message.
    pub const REQUEST_INCOMPLETE: Self = Self(0x10d);
    /// The message is malformed.
    pub const MESSAGE_ERROR: Self = Self(0x10e);
    /// The connection behind a CONNECT broke.
    pub const CONNECT_ERROR: Self = Self(0x10f);
    /// A field section cannot be read.
    pub const QPACK_DECOMPRESSION_FAILED: Self = Self(0x200);
    /// The peer's encoder said what it may not.
    pub const QPACK_ENCODER_STREAM_ERROR: Self = Self(0x201);
    /// The peer's decoder said what it may not.
    pub const QPACK_DECODER_STREAM_ERROR: Self = Self(0x202);
}

/// What an error ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One request.
    Stream,
    /// All of them.
    Connection,
}

/// A rule that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// What ends with it.
    pub scope: Scope,
    /// What the peer is told.
    pub code: Code,
    /// What people are told.
    pub reason: &'static str,
}

impl Violation {
    /// One that ends the connection.
    #[must_use]
    pub const fn connection(code: Code, reason: &'static str) -> Self {
        Self { scope: Scope::Connection, code, reason }
    }

    /// One that ends a request.
    #[must_use]
    pub const fn stream(code: Code, reason: &'static str) -> Self {
        Self { scope: Scope::Stream, code, reason }
    }

    /// The message is malformed.
    #[must_use]
    pub const fn message(reason: &'static str) -> Self {
        Self::stream(Code::MESSAGE_ERROR, reason)
    }

    /// A head is larger than allowed: the request can still be answered.
    #[must_use]
    pub const fn too_large() -> Self {
        Self::stream(Code::EXCESSIVE_LOAD, "the head is too large")
    }

    /// Whether this is [`Self::too_large`].
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        *self == Self::too_large()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.reason, self.code.0)
    }
}

impl std::error::Error for Violation {}
