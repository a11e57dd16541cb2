//! What the first bytes of a connection say: TLS with which name and protocols, or HTTP of which version.
//!
//! Pure: bytes in, verdict out, so that hostile hellos can be tried without a socket. Runs only on listeners that ask.

mod hello;

use rustls::server::{Accepted, Acceptor};

/// A client hello may not be longer than this; post-quantum key shares stay well below.
pub(crate) const LONGEST_HELLO: usize = 16 * 1024;

/// Verdict on the bytes so far about TLS.
pub(crate) enum Tls {
    /// More bytes are needed.
    Partial,
    /// The connection does not begin with a TLS handshake.
    Absent,
    /// A complete client hello.
    Hello(Box<Hello>),
    /// It begins as TLS does and is then malformed.
    Bad,
}

/// A client hello.
pub(crate) struct Hello {
    /// Server name, lower case.
    pub(crate) server_name: Option<String>,
    /// Offered application protocols in the client's order.
    pub(crate) alpn: Vec<Vec<u8>>,
    /// The hello as rustls holds it, from which a handshake continues; it has consumed every byte it was shown. `None`: a
    /// hello that can be passed on by its name, but that no handshake here would go on from.
    pub(crate) accepted: Option<Accepted>,
}

/// Looks for a client hello in the bytes of a connection as they come. Each byte is looked at once.
pub(crate) struct Sniffer {
    acceptor: Acceptor,
    seen: usize,
}

impl Sniffer {
    /// Nothing seen yet.
    pub(crate) fn new() -> Self {
        Self { acceptor: Acceptor::default(), seen: 0 }
    }

    /// Takes all bytes so far, of which those of earlier calls are not read again.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Tls {
        match bytes {
            [] | [0x16] => return Tls::Partial,
            [0x16, 0x03, ..] => {}
            _ => return Tls::Absent,
        }
        if bytes.len() > LONGEST_HELLO {
            return Tls::Bad;
        }
        let mut rest = bytes.get(self.seen..).unwrap_or_default();
        self.seen = bytes.len();
        while !rest.is_empty() {
            match self.acceptor.read_tls(&mut rest) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        match self.acceptor.accept() {
            Ok(None) => Tls::Partial,
            // What this process would not talk to, somebody behind it may: old versions, missing extensions.
            Err(_) => hello::read(bytes).map_or(Tls::Bad, |hello| Tls::Hello(Box::new(hello))),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let server_name = hello.server_name().map(str::to_ascii_lowercase);
                let alpn = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
                Tls::Hello(Box::new(Hello { server_name, alpn, accepted: Some(accepted) }))
            }
        }
    }
}

/// Verdict on the bytes so far about HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    /// More bytes are needed.
    Partial,
    /// The connection does not begin as HTTP does.
    Absent,
    /// HTTP/1.0 request line.
    Http10,
    /// HTTP/1.1 request line.
    Http11,
    /// The HTTP/2 preface.
    Http2,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A request line longer than this is not looked at any further.
const LONGEST_LINE: usize = 8 * 1024;
const LONGEST_METHOD: usize = 24;

/// Whether the HTTP/2 preface begins the bytes; `None` while it still might.
pub(crate) fn preface(bytes: &[u8]) -> Option<bool> {
    let shared = bytes.iter().zip(PREFACE).take_while(|(a, b)| a == b).count();
    if shared == PREFACE.len() {
        return Some(true);
    }
    (shared < bytes.len()).then_some(false)
}

/// Reads the beginning of an HTTP connection.
pub(crate) fn http(bytes: &[u8]) -> Http {
    let shared = bytes.iter().zip(PREFACE).take_while(|(a, b)| a == b).count();
    if shared == PREFACE.len() {
        return Http::Http2;
    }
    if shared == bytes.len() {
        return Http::Partial;
    }
    let Some(space) = bytes.iter().take(LONGEST_METHOD + 1).position(|b| *b == b' ') else {
        let token = bytes.iter().all(|b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_'));
        return if token && bytes.len() <= LONGEST_METHOD { Http::Partial } else { Http::Absent };
    };
    if space == 0 || !bytes[..space].iter().all(|b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_')) {
        return Http::Absent;
    }
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        return if bytes.len() < LONGEST_LINE { Http::Partial } else { Http::Absent };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    if line.ends_with(b" HTTP/1.1") {
        Http::Http11
    } else if line.ends_with(b" HTTP/1.0") {
        Http::Http10
    } else {
        Http::Absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn hello_bytes(name: &'static str) -> Vec<u8> {
        crate::tls::install_crypto();
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"istio".to_vec(), b"h2".to_vec()];
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut out = Vec::new();
        connection.write_tls(&mut out).unwrap();
        out
    }

    #[test]
    fn a_hello_is_found_at_every_split() {
        let bytes = hello_bytes("Reviews.Example");
        let mut sniffer = Sniffer::new();
        for cut in 0..bytes.len() {
            assert!(matches!(sniffer.feed(&bytes[..cut]), Tls::Partial), "cut at {cut}");
        }
        let Tls::Hello(hello) = sniffer.feed(&bytes) else { panic!("no hello") };
        assert_eq!(hello.server_name.as_deref(), Some("reviews.example"));
        assert_eq!(hello.alpn, vec![b"istio".to_vec(), b"h2".to_vec()]);
    }

    #[test]
    fn what_is_not_tls_is_told_at_once() {
        assert!(matches!(Sniffer::new().feed(b"G"), Tls::Absent));
        assert!(matches!(Sniffer::new().feed(&[0x16, 0x03, 0x01, 0, 4, 9, 9, 9, 9]), Tls::Bad));
    }

    #[test]
    fn http_versions() {
        assert_eq!(http(b"GET / HTTP/1.1\r\n"), Http::Http11);
        assert_eq!(http(b"GET / HTTP/1.0\r\n"), Http::Http10);
        assert_eq!(http(PREFACE), Http::Http2);
        assert_eq!(http(b"PRI"), Http::Partial);
        assert_eq!(http(b"PRIVATE / HTTP/1.1\r\n"), Http::Http11);
        assert_eq!(http(b""), Http::Partial);
        assert_eq!(http(b"GE"), Http::Partial);
        assert_eq!(http(b"GET /"), Http::Partial);
        assert_eq!(http(b"\x00\x01"), Http::Absent);
        assert_eq!(http(b"HELO mail\r\n"), Http::Absent);
        assert_eq!(http(&[b'A'; 64]), Http::Absent);
    }
}
