//! The name and the protocols of a client hello, read without an opinion on the rest (RFC 8446, 4.1.2; RFC 6066, 3; RFC 7301, 3.1).
//!
//! Pure. For hellos that are passed on unread; whoever ends TLS uses the library's own reader. Never guesses: a length that does
//! not fit makes the hello malformed.

use super::Hello;

const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Bytes that are taken from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(length(self.take(bytes)?))
    }

    /// What a length of so many bytes announces.
    fn vector(&mut self, bytes: usize) -> Option<Reader<'a>> {
        let length = self.number(bytes)?;
        self.take(length).map(Reader)
    }
}

/// Reads a whole hello from the records that begin a connection.
pub(super) fn read(bytes: &[u8]) -> Option<Hello> {
    let message = joined(bytes)?;
    let mut message = Reader(&message);
    if message.number(1)? != usize::from(CLIENT_HELLO) {
        return None;
    }
    let mut body = message.vector(3)?;
    // Version and random.
    body.take(2 + 32)?;
    let (session, suites, compression) = (body.vector(1)?, body.vector(2)?, body.vector(1)?);
    if session.0.len() > 32 || suites.0.is_empty() || suites.0.len() % 2 != 0 || compression.0.is_empty() {
        return None;
    }
    let mut hello = Hello { server_name: None, alpn: Vec::new(), accepted: None };
    if body.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = body.vector(2)?;
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        let content = extensions.vector(2)?;
        if kind == usize::from(SERVER_NAME) && hello.server_name.is_none() {
            hello.server_name = name(content)?;
        } else if kind == usize::from(ALPN) && hello.alpn.is_empty() {
            hello.alpn = protocols(content)?;
        }
    }
    body.0.is_empty().then_some(hello)
}

/// The handshake message, which may be spread over several records.
fn joined(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut message) = (Reader(bytes), Vec::new());
    loop {
        if rest.number(1)? != usize::from(HANDSHAKE) {
            return None;
        }
        rest.take(2)?;
        let record = rest.vector(2)?;
        if record.0.is_empty() {
            return None;
        }
        message.extend_from_slice(record.0);
        let whole = message.get(1..4).map(|l| 4 + length(l));
        if whole.is_some_and(|whole| message.len() >= whole) {
            return Some(message);
        }
    }
}

fn length(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |n, b| (n << 8) | usize::from(*b))
}

fn name(mut content: Reader<'_>) -> Option<Option<String>> {
    let mut names = content.vector(2)?;
    while !names.0.is_empty() {
        let kind = names.number(1)?;
        let name = names.vector(2)?;
        if kind == 0 {
            let text = std::str::from_utf8(name.0).ok()?;
            let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            return text.chars().all(fine).then(|| Some(text.to_ascii_lowercase())).filter(|_| !text.is_empty());
        }
    }
    Some(None)
}

fn protocols(mut content: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let (mut list, mut all) = (content.vector(2)?, Vec::new());
    while !list.0.is_empty() {
        all.push(list.vector(1)?.0.to_vec());
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello of TLS 1.0 with these extensions.
    fn hello(extensions: &[u8]) -> Vec<u8> {
        let length = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let body =
            [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0], &length(extensions.len()), extensions].concat();
        let message = [&[1, 0][..], &length(body.len()), &body].concat();
        [&[0x16, 3, 1][..], &length(message.len()), &message].concat()
    }

    #[test]
    fn an_old_hello_has_its_name_and_protocols() {
        let name = [0, 0, 0, 9, 0, 7, 0, 0, 4, b'A', b'.', b'b', b'c'];
        let alpn = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
        let bytes = hello(&[&name[..], &alpn].concat());
        let found = read(&bytes).unwrap();
        assert_eq!((found.server_name.as_deref(), found.alpn), (Some("a.bc"), vec![b"h2".to_vec()]));
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_malformed() {
        assert!(read(&hello(&[0, 0, 0, 9, 0, 7, 0, 0, 9, b'a'])).is_none());
        assert!(read(&hello(&[0, 0, 0, 5, 0, 3, 0, 0, 0])).is_none(), "an empty name");
        assert!(read(b"\x16\x03\x01\x00\x00").is_none());
    }
}
