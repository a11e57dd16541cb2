//! What a connection tells its user.

use crate::{
    code::Code,
    head::{RequestHead, ResponseHead},
    stream::Stream,
};
use bytes::Bytes;
use http::HeaderMap;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// A request began (server).
    Request {
        /// Its stream.
        stream: Stream,
        /// Its head.
        head: Box<RequestHead>,
        /// Its `content-length`.
        length: Option<u64>,
        /// Nothing follows.
        end: bool,
    },
    /// An interim response (client).
    Interim {
        /// Its stream.
        stream: Stream,
        /// Its head.
        head: ResponseHead,
    },
    /// The response began (client).
    Response {
        /// Its stream.
        stream: Stream,
        /// Its head.
        head: Box<ResponseHead>,
        /// Its `content-length`; 0 where it cannot have a body.
        length: Option<u64>,
        /// Nothing follows.
        end: bool,
    },
    /// A part of a body. Whoever takes or drops it calls `Connection::consumed` with its length, also when the stream is gone by
    /// then.
    Data {
        /// Its stream.
        stream: Stream,
        /// The part.
        bytes: Bytes,
        /// Nothing follows.
        end: bool,
    },
    /// A message ended with trailers.
    Trailers {
        /// Its stream.
        stream: Stream,
        /// The trailers.
        headers: Box<HeaderMap>,
    },
    /// A stream ended before its end. Nothing can be sent on it any more.
    Reset {
        /// The stream.
        stream: Stream,
        /// The code.
        code: Code,
        /// Who ended it.
        cause: Cause,
    },
    /// A request's head broke the rules: there is no stream.
    Unheard {
        /// Which rule, in words of Envoy's logs.
        reason: &'static str,
    },
    /// There is room again on a stream that was found full.
    Writable {
        /// The stream.
        stream: Stream,
    },
    /// The peer wants no new streams.
    GoAway {
        /// Its code.
        code: Code,
    },
    /// The peer's settings arrived or changed.
    Settings,
}

/// Who ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The peer.
    Peer,
    /// The peer, which ends the connection and said that it did not and will not process it: safe to try again.
    Unprocessed,
    /// We, because of what came in on it.
    Refused(&'static str),
}

/// The stream is gone, or its end was sent already: nothing can be sent on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the stream is gone")
    }
}

impl std::error::Error for Gone {}

/// No stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unopened {
    /// As many are open as the peer allows.
    Full,
    /// The connection ends, or has no numbers left.
    Ending,
    /// The peer takes no extended CONNECT.
    NotExtended,
}

impl std::fmt::Display for Unopened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "as many streams are open as the peer allows",
            Self::Ending => "the connection is ending",
            Self::NotExtended => "the peer takes no extended CONNECT",
        })
    }
}

impl std::error::Error for Unopened {}
