//! The static table (RFC 7541, appendix A).

use crate::field::{Field, Name};
use bytes::Bytes;
use std::sync::LazyLock;

/// Entries of the table.
pub(super) const COUNT: usize = 61;

#[rustfmt::skip]
pub(super) const TEXT: [(&str, &str); COUNT] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// Names and, where the table has a value, whole fields, ready to be shared. An entry without a value may still be
/// referred to as a whole: it then stands for an empty value.
static ENTRIES: LazyLock<Vec<(Name, Field)>> = LazyLock::new(|| {
    TEXT.iter()
        .map(|(name, value)| {
            let name = Name::parse(name.as_bytes());
            let field = name.clone().with(Bytes::from_static(value.as_bytes()), false);
            (name, field)
        })
        .collect()
});

/// An entry by its number, from 1.
pub(super) fn entry(number: usize) -> Option<&'static (Name, Field)> {
    ENTRIES.get(number.checked_sub(1)?)
}

/// Bytes that an entry counts for.
pub(super) fn size(number: usize) -> usize {
    number.checked_sub(1).and_then(|at| TEXT.get(at)).map_or(0, |(name, value)| name.len() + value.len() + 32)
}
