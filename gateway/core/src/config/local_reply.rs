//! How answers that are made here are changed before they go out. `crate::forward` applies it.

use super::{HeaderChanges, LogFilter};
use crate::accesslog::LineFormat;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

/// Changes of answers that are made here.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalReply {
    /// The first that fits is applied.
    pub mappers: Box<[ReplyMapper]>,
    /// Form of all bodies for which no mapper has one of its own; `None`: as they are.
    pub format: Option<ReplyFormat>,
}

/// A change of some answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyMapper {
    /// Which.
    pub filter: LogFilter,
    /// Another status.
    pub status: Option<StatusCode>,
    /// Another body.
    pub body: Option<Bytes>,
    /// Form of the body.
    pub format: Option<ReplyFormat>,
    /// Headers.
    pub headers: HeaderChanges,
}

/// Form of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyFormat {
    /// What it is made of.
    pub line: LineFormat,
    /// `content-type`.
    pub content_type: HeaderValue,
    /// A line end at its end is not part of what it says (JSON).
    pub json: bool,
}
