//! Reading field sections.

use super::{
    integer::{self, Unreadable},
    table::{Name, Pseudo, TABLE},
};
use crate::code::{Code, Violation};
use bytes::{Buf, Bytes};
use http::{HeaderName, HeaderValue};

/// One field.
#[derive(Debug)]
pub enum Field {
    /// A pseudo-header field with its value, of which nothing was looked at.
    Pseudo(Pseudo, Bytes),
    /// A field.
    Header(HeaderName, HeaderValue),
}

/// What every field counts beside its name and value.
const OVERHEAD: usize = 32;

/// Reads a field section of at most `most` bytes (as RFC 9114 counts them) and gives every field to `take`.
///
/// # Errors
/// When it is no field section, too large, or holds what is no field; or what `take` says.
pub fn decode(
    mut section: Bytes,
    most: usize,
    mut take: impl FnMut(Field) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let (required, base) = (integer::read(&mut section, 8), section.first().copied());
    if required != Some(0) || base.is_none_or(|b| b & 0x80 != 0) || integer::read(&mut section, 7).is_none() {
        return Err(broken("a field section that needs the dynamic table"));
    }
    let mut left = most;
    while let Some(first) = section.first().copied() {
        let (name, value) = line(&mut section, first, left)?;
        let length = match &name {
            Named::Table(Name::Header(name)) => name.as_str().len(),
            // The exact length of a pseudo-header's name decides nothing.
            Named::Table(Name::Pseudo(_)) => 8,
            Named::Literal(name) => name.len(),
        };
        left = left.checked_sub(length + value.len() + OVERHEAD).ok_or(Violation::too_large())?;
        take(field(name, value)?)?;
    }
    Ok(())
}

enum Named {
    Table(&'static Name),
    Literal(Bytes),
}

enum Text {
    Static(&'static str),
    Read(Bytes),
}

impl Text {
    fn len(&self) -> usize {
        match self {
            Self::Static(text) => text.len(),
            Self::Read(text) => text.len(),
        }
    }
}

/// One field line.
fn line(section: &mut Bytes, first: u8, most: usize) -> Result<(Named, Text), Violation> {
    if first & 0xc0 == 0xc0 {
        let (name, value) = entry(integer::read(section, 6))?;
        Ok((Named::Table(name), Text::Static(value)))
    } else if first & 0xd0 == 0x50 {
        let (name, _) = entry(integer::read(section, 4))?;
        Ok((Named::Table(name), Text::Read(text(section, 7, most)?)))
    } else if first & 0xe0 == 0x20 {
        let name = text(section, 3, most)?;
        Ok((Named::Literal(name), Text::Read(text(section, 7, most)?)))
    } else {
        Err(broken("a reference to the dynamic table"))
    }
}

fn entry(index: Option<u64>) -> Result<(&'static Name, &'static str), Violation> {
    let found = index.and_then(|index| TABLE.get(usize::try_from(index).ok()?));
    found.map(|(name, value)| (name, *value)).ok_or(broken("no such entry of the static table"))
}

fn text(section: &mut Bytes, bits: u32, most: usize) -> Result<Bytes, Violation> {
    integer::text(section, bits, most).map_err(|reason| match reason {
        Unreadable::Broken => broken("a text cannot be read"),
        Unreadable::TooLong => Violation::too_large(),
    })
}

fn field(name: Named, value: Text) -> Result<Field, Violation> {
    let literal;
    let name = match name {
        Named::Table(Name::Pseudo(pseudo)) => return Ok(Field::Pseudo(*pseudo, bytes(value))),
        Named::Table(Name::Header(name)) => name.clone(),
        Named::Literal(mut name) if name.first() == Some(&b':') => {
            name.advance(1);
            let pseudo = Pseudo::parse(&name).ok_or(Violation::message("an unknown pseudo-header field"))?;
            return Ok(Field::Pseudo(pseudo, bytes(value)));
        }
        Named::Literal(name) => {
            literal = name;
            let name = HeaderName::from_lowercase(&literal).ok();
            // The library takes quotation marks, of which no token is made.
            name.filter(|_| !literal.contains(&b'"')).ok_or(Violation::message("a field's name is not allowed"))?
        }
    };
    let value = match value {
        Text::Static(text) => HeaderValue::from_static(text),
        Text::Read(text) => {
            let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
            if blank(text.first()) || blank(text.last()) {
                return Err(Violation::message("a field's value begins or ends with a blank"));
            }
            HeaderValue::from_maybe_shared(text).map_err(|_| Violation::message("a field's value is not allowed"))?
        }
    };
    Ok(Field::Header(name, value))
}

fn bytes(text: Text) -> Bytes {
    match text {
        Text::Static(text) => Bytes::from_static(text.as_bytes()),
        Text::Read(text) => text,
    }
}

const fn broken(reason: &'static str) -> Violation {
    Violation::connection(Code::QPACK_DECOMPRESSION_FAILED, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(section: &[u8], most: usize) -> Result<Vec<(String, String)>, Violation> {
        let mut out = Vec::new();
        decode(Bytes::copy_from_slice(section), most, |field| {
            out.push(match field {
                Field::Pseudo(name, value) => (format!("{name:?}"), String::from_utf8_lossy(&value).into_owned()),
                Field::Header(name, value) => (name.to_string(), value.to_str().unwrap_or("?").to_owned()),
            });
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn every_form_is_read() {
        let section =
            [&[0, 0, 0xd1, 0x51, 2, b'/', b'x', 0x23, b'a', b'-', b'b', 1, b'v'][..], &[0x5f, 0x1d, 0]].concat();
        let expected = [("Method", "GET"), ("Path", "/x"), ("a-b", "v"), ("content-type", "")];
        let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(all(&section, 1000).unwrap(), expected);
    }

    #[test]
    fn what_needs_a_table_is_refused() {
        for section in [
            &[1, 0][..],
            &[0, 0x80],
            &[0, 0, 0x80],
            &[0, 0, 0x10],
            &[0, 0, 0x00, 0],
            &[0, 0, 0x40, 0],
            &[0, 0, 0xff, 0x40],
            &[0],
            &[],
        ] {
            assert_eq!(all(section, 1000).unwrap_err().code, Code::QPACK_DECOMPRESSION_FAILED, "{section:?}");
        }
    }

    #[test]
    fn bad_fields_end_only_the_request() {
        for literal in [&b"\x21A\x01v"[..], b"\x21 \x01v", b"\x21a\x01\n", b"\x21a\x02 v", b"\x22:x\x01v"] {
            let section = [&[0, 0][..], literal].concat();
            assert_eq!(all(&section, 1000).unwrap_err(), Violation::message(all(&section, 1000).unwrap_err().reason));
        }
    }

    #[test]
    fn size_is_counted_as_it_is_uncompressed() {
        let section = [&[0, 0][..], &b"\x21a\x01v".repeat(10)].concat();
        assert_eq!(all(&section, 340).unwrap().len(), 10);
        assert!(all(&section, 339).unwrap_err().is_too_large());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes, 1000);
            let _ = all(&[&[0, 0][..], &bytes].concat(), 1000);
        }
    }
}
