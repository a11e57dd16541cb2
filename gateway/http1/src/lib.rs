//! HTTP/1.0 and 1.1 on the wire, without I/O: strict parsing of heads, body framing, writing. Used by `gateway/proxy`.
//!
//! Owns what bytes mean. What two parties could read in two ways is refused, never repaired. Names and values of a parsed
//! head are slices of the bytes it came in; nothing is copied. Never decides what a request is answered with beyond the
//! kind of refusal.

mod body;
mod fields;
mod names;
mod request;
mod response;
mod scan;
mod target;
mod write;

#[cfg(test)]
mod tests;

pub use body::{Decoded, Decoder, MalformedBody};
pub use names::Names;
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use scan::{Found, Scanner};
pub use target::Target;
pub use write::{Case, Chunk, LAST_CHUNK, More, RequestLine, chunk_start, request_head, response_head, trailers};

/// What a reader of heads accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Bytes of a head at most.
    pub max_bytes: usize,
    /// Fields at most.
    pub max_fields: usize,
    /// HTTP/1.0 requests are read.
    pub http_10: bool,
    /// Any token is a method.
    pub any_method: bool,
    /// Names with underscores are refused.
    pub refuse_underscores: bool,
    /// `content-length` beside `transfer-encoding: chunked` is left out instead of being refused.
    pub chunked_length: bool,
    /// Absolute targets are taken apart; otherwise they stay what they are.
    pub absolute: bool,
    /// How names were spelled is kept.
    pub spelling: bool,
}

/// Names that were not spelled in small letters, as they were.
pub type Spelled = std::sync::Arc<[(http::HeaderName, bytes::Bytes)]>;

impl Rules {
    /// As Envoy's defaults: 60 KiB, 100 fields, HTTP/1.1 only, nothing ambiguous.
    pub const STRICT: Rules = Rules {
        max_bytes: 60 * 1024,
        max_fields: 100,
        http_10: false,
        any_method: false,
        refuse_underscores: false,
        chunked_length: false,
        absolute: true,
        spelling: false,
    };
}

/// Why a head is refused. The text says what was wrong, for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP/1, or HTTP/1 that the RFCs forbid: 400.
    Malformed(&'static str),
    /// A version that is not spoken: 426.
    Version,
    /// More bytes than allowed: 431.
    TooLarge,
    /// More fields than allowed: 431.
    TooMany,
    /// A transfer coding other than chunked: 501.
    Coding,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed(what) => what,
            Self::Version => "version not spoken",
            Self::TooLarge => "head too large",
            Self::TooMany => "too many fields",
            Self::Coding => "unknown transfer coding",
        })
    }
}

impl std::error::Error for Refusal {}

/// Versions spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection (responses only).
    UntilClose,
}

/// What a message says about its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `connection: close`.
    pub close: bool,
    /// `connection: keep-alive`.
    pub keep_alive: bool,
    /// `connection: upgrade`.
    pub upgrade: bool,
}

impl Wishes {
    /// Reads the `connection` fields.
    #[must_use]
    pub fn of(headers: &http::HeaderMap) -> Self {
        let mut wishes = Self::default();
        for value in headers.get_all(http::header::CONNECTION) {
            for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                wishes.close |= token.eq_ignore_ascii_case(b"close");
                wishes.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                wishes.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
            }
        }
        wishes
    }
}
