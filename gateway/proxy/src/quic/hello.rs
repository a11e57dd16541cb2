//! What a client's hello says before TLS looks at it: the server's name and the application protocols.
//!
//! Reads no more than it needs to choose a filter chain. Everything is judged again by TLS itself.

/// What is looked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hello {
    /// SNI in lower case; empty for none.
    pub(super) name: String,
    /// ALPN.
    pub(super) protocols: Vec<String>,
}

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// More are needed.
    Partial,
    /// A hello.
    Hello(Hello),
    /// Something else.
    Bad,
}

/// Larger hellos are refused.
const LARGEST: usize = 16 * 1024;

/// Looks at handshake bytes from their beginning.
pub(super) fn look(bytes: &[u8]) -> Looked {
    let mut reader = Reader(bytes);
    let (Some(kind), Some(length)) = (reader.number(1), reader.number(3)) else {
        return if bytes.first().is_none_or(|kind| *kind == 1) { Looked::Partial } else { Looked::Bad };
    };
    if kind != 1 || length > LARGEST {
        return Looked::Bad;
    }
    match reader.take(length) {
        Some(body) => hello(body).map_or(Looked::Bad, Looked::Hello),
        None => Looked::Partial,
    }
}

fn hello(body: &[u8]) -> Option<Hello> {
    let mut reader = Reader(body);
    reader.take(2 + 32)?;
    reader.list(1)?;
    reader.list(2)?;
    reader.list(1)?;
    let mut extensions = Reader(reader.list(2)?);
    let mut hello = Hello::default();
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let mut inner = Reader(extensions.list(2)?);
        match kind {
            0 => hello.name = name(&mut inner)?,
            16 => hello.protocols = protocols(&mut inner)?,
            _ => {}
        }
    }
    Some(hello)
}

fn name(reader: &mut Reader<'_>) -> Option<String> {
    let mut names = Reader(reader.list(2)?);
    (names.number(1)? == 0).then_some(())?;
    let text = std::str::from_utf8(names.list(2)?).ok()?;
    Some(text.to_ascii_lowercase())
}

fn protocols(reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let mut names = Reader(reader.list(2)?);
    let mut all = Vec::new();
    while !names.0.is_empty() {
        all.push(String::from_utf8_lossy(names.list(1)?).into_owned());
    }
    Some(all)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    }

    /// Bytes after their length.
    fn list(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Vec<u8> {
        let mut extensions = vec![0, 0, 0, 10, 0, 8, 0, 0, 5, b'A', b'.', b'c', b'o', b'm'];
        extensions.extend([0, 16, 0, 5, 0, 3, 2, b'h', b'3']);
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 1, 1, 0, 0, u8::try_from(extensions.len()).unwrap()]);
        body.extend(extensions);
        let mut all = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
        all.extend(body);
        all
    }

    #[test]
    fn name_and_protocols_are_found_however_the_hello_is_cut() {
        let bytes = example();
        for end in 0..bytes.len() {
            assert_eq!(look(&bytes[..end]), Looked::Partial, "{end}");
        }
        let expected = Hello { name: "a.com".to_owned(), protocols: vec!["h3".to_owned()] };
        assert_eq!(look(&bytes), Looked::Hello(expected));
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        assert_eq!(look(&[2, 0, 0, 1, 0]), Looked::Bad);
        assert_eq!(look(&[1, 1, 0, 0]), Looked::Bad);
        let mut bytes = example();
        let last = bytes.len() - 1;
        bytes[last - 2] = 9;
        assert_eq!(look(&bytes), Looked::Bad);
    }
}
