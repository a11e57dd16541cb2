//! One header field, read: a pseudo header or a regular one.
//!
//! Owns what a name and a value may be made of (RFC 9113, section 8.2). A field that breaks a rule is kept as [`Field::Bad`],
//! because the compression table has to hold it even though no message may.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

/// What a regular header is to the framing of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing.
    Plain,
    /// It speaks of the connection, which no HTTP/2 message may.
    Connection,
    /// `te`: only with `trailers`.
    Te,
    /// `content-length`.
    Length,
    /// `host`.
    Host,
}

/// A field's name.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
    Regular(HeaderName, Class),
    /// Upper case, empty, not a token, or a pseudo header that nobody knows.
    Bad,
}

/// A field.
#[derive(Debug, Clone)]
pub(crate) enum Field {
    Method(Method),
    Scheme(Bytes),
    Authority(Bytes),
    Path(Bytes),
    Protocol(Bytes),
    Status(StatusCode),
    Regular(HeaderName, HeaderValue, Class),
    Bad(Name),
}

impl Name {
    /// Reads a name.
    pub(crate) fn parse(text: &[u8]) -> Self {
        if text.first() == Some(&b':') {
            return match text {
                b":method" => Self::Method,
                b":scheme" => Self::Scheme,
                b":authority" => Self::Authority,
                b":path" => Self::Path,
                b":protocol" => Self::Protocol,
                b":status" => Self::Status,
                _ => Self::Bad,
            };
        }
        match HeaderName::from_lowercase(text) {
            // The library takes quotation marks, of which no token is made.
            Ok(name) if !text.contains(&b'"') => {
                let class = classify(&name);
                Self::Regular(name, class)
            }
            Ok(_) | Err(_) => Self::Bad,
        }
    }

    /// Puts a value to a name.
    pub(crate) fn with(self, value: Bytes, sensitive: bool) -> Field {
        match self {
            Self::Method => Method::from_bytes(&value).map_or(Field::Bad(Self::Method), Field::Method),
            Self::Scheme => Field::Scheme(value),
            Self::Authority => Field::Authority(value),
            Self::Path => Field::Path(value),
            Self::Protocol => Field::Protocol(value),
            Self::Status => match StatusCode::from_bytes(&value) {
                Ok(status) => Field::Status(status),
                Err(_) => Field::Bad(Self::Status),
            },
            Self::Regular(name, class) => match HeaderValue::from_maybe_shared(value) {
                Ok(_) if class == Class::Connection => Field::Bad(Self::Regular(name, class)),
                Ok(value) if class == Class::Te && !value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                    Field::Bad(Self::Regular(name, class))
                }
                Ok(mut value) => {
                    value.set_sensitive(sensitive);
                    Field::Regular(name, value, class)
                }
                Err(_) => Field::Bad(Self::Regular(name, class)),
            },
            Self::Bad => Field::Bad(Self::Bad),
        }
    }
}

impl Field {
    /// The name alone.
    pub(crate) fn name(&self) -> Name {
        match self {
            Self::Method(_) => Name::Method,
            Self::Scheme(_) => Name::Scheme,
            Self::Authority(_) => Name::Authority,
            Self::Path(_) => Name::Path,
            Self::Protocol(_) => Name::Protocol,
            Self::Status(_) => Name::Status,
            Self::Regular(name, _, class) => Name::Regular(name.clone(), *class),
            Self::Bad(name) => name.clone(),
        }
    }
}

fn classify(name: &HeaderName) -> Class {
    match *name {
        header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => Class::Connection,
        header::TE => Class::Te,
        header::CONTENT_LENGTH => Class::Length,
        header::HOST => Class::Host,
        _ if matches!(name.as_str(), "keep-alive" | "proxy-connection") => Class::Connection,
        _ => Class::Plain,
    }
}

/// A name that must not be written into an HTTP/2 message, whoever asks for it.
pub(crate) fn is_forbidden(name: &HeaderName) -> bool {
    let text = name.as_str();
    match text.len() {
        7 => text == "upgrade",
        10 => text == "connection" || text == "keep-alive",
        16 => text == "proxy-connection",
        17 => text == "transfer-encoding",
        _ => false,
    }
}
