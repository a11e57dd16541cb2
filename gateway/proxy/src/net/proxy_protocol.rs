//! The PROXY protocol, versions 1 and 2, read and written (HAProxy's specification, sections 2.1 and 2.2).
//!
//! Pure: bytes in, verdict out. Nothing is repaired: a header that is not exactly right ends the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V1_LONGEST: usize = 107;
/// Type-length-values beyond this are refused rather than buffered.
const V2_LONGEST: usize = 4096;
/// The type of the value that is a checksum of the whole header.
const CRC32C: u8 = 0x03;

/// What a complete header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Source and destination; `None` when the sender spoke for itself (`LOCAL`, `UNKNOWN`).
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// Length of the header, after which the payload begins.
    pub(crate) length: usize,
}

/// What the bytes so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// More bytes are needed.
    Partial,
    /// These bytes do not begin a PROXY header.
    Absent,
    /// A complete header.
    Complete(Header),
    /// A header that is wrong, and why.
    Bad(&'static str),
}

/// Reads a header from the first bytes of a connection.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let same = |wanted: &[u8]| bytes.iter().zip(wanted).all(|(a, b)| a == b);
    if bytes.is_empty() {
        return Parsed::Partial;
    }
    if same(V2_SIGNATURE) {
        return if bytes.len() < 16 { Parsed::Partial } else { v2(bytes) };
    }
    if same(b"PROXY ") {
        return v1(bytes);
    }
    Parsed::Absent
}

fn v1(bytes: &[u8]) -> Parsed {
    let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") else {
        return if bytes.len() >= V1_LONGEST { Parsed::Bad("version 1 line is too long") } else { Parsed::Partial };
    };
    if end + 2 > V1_LONGEST {
        return Parsed::Bad("version 1 line is too long");
    }
    let Ok(line) = std::str::from_utf8(&bytes[..end]) else {
        return Parsed::Bad("version 1 line is not ASCII");
    };
    let length = end + 2;
    let parts: Vec<&str> = line.split(' ').collect();
    let addresses = match parts.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return Parsed::Complete(Header { addresses: None, length }),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, source_port, destination_port] => {
            let address = |ip: &str, port: &str| -> Option<SocketAddr> {
                let ip: IpAddr = ip.parse().ok()?;
                // Leading zeros and signs are refused: the port is as the specification writes it.
                let number: u16 = port.parse().ok()?;
                (number.to_string() == port && ip.is_ipv4() == (*family == "TCP4"))
                    .then_some(SocketAddr::new(ip, number))
            };
            address(source, source_port).zip(address(destination, destination_port))
        }
        _ => None,
    };
    match addresses {
        Some(pair) => Parsed::Complete(Header { addresses: Some(pair), length }),
        None => Parsed::Bad("version 1 line is malformed"),
    }
}

fn v2(bytes: &[u8]) -> Parsed {
    let payload = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if bytes[12] >> 4 != 2 {
        return Parsed::Bad("unknown version");
    }
    if payload > V2_LONGEST {
        return Parsed::Bad("version 2 header is too long");
    }
    let length = 16 + payload;
    let (command, family) = (bytes[12] & 0x0f, bytes[13]);
    if command > 1 {
        return Parsed::Bad("unknown version 2 command");
    }
    if bytes.len() < length {
        return Parsed::Partial;
    }
    let body = &bytes[16..length];
    if command == 0 {
        return Parsed::Complete(Header { addresses: None, length });
    }
    match v2_addresses(family, body) {
        Ok((addresses, used)) => match check_values(&bytes[..length], 16 + used) {
            Ok(()) => Parsed::Complete(Header { addresses, length }),
            Err(reason) => Parsed::Bad(reason),
        },
        Err(reason) => Parsed::Bad(reason),
    }
}

/// Source and destination.
type Pair = (SocketAddr, SocketAddr);

/// The addresses, and how many bytes they take.
fn v2_addresses(family: u8, body: &[u8]) -> Result<(Option<Pair>, usize), &'static str> {
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    // Datagrams are told apart by the sender only: the addresses are read alike.
    let (pair, used) = match family {
        0x11 | 0x12 if body.len() >= 12 => {
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(body[at], body[at + 1], body[at + 2], body[at + 3]));
            ((SocketAddr::new(ip(0), port(8)), SocketAddr::new(ip(4), port(10))), 12)
        }
        0x21 | 0x22 if body.len() >= 36 => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&body[at..at + 16]);
                IpAddr::V6(Ipv6Addr::from(octets))
            };
            ((SocketAddr::new(ip(0), port(32)), SocketAddr::new(ip(16), port(34))), 36)
        }
        // Unspecified, and Unix sockets: the connection's own addresses stand, and what comes with them is left alone.
        0x00 | 0x31 | 0x32 => return Ok((None, body.len())),
        _ => return Err("version 2 address family is unsupported or cut short"),
    };
    Ok((Some(pair), used))
}

/// Every type-length-value, the first of which begins at `from`, must end where the header ends; and a checksum must be that
/// of the header.
fn check_values(header: &[u8], from: usize) -> Result<(), &'static str> {
    let mut rest = header.get(from..).unwrap_or_default();
    let mut summed = false;
    while !rest.is_empty() {
        let [kind, high, low, tail @ ..] = rest else {
            return Err("version 2 value is cut short");
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = tail.get(..length).ok_or("version 2 value exceeds the header")?;
        if *kind == CRC32C {
            let told = value.try_into().map(u32::from_be_bytes).map_err(|_| "version 2 checksum of a wrong size")?;
            let at = header.len() - tail.len();
            if std::mem::replace(&mut summed, true) || told != checksum(header, at) {
                return Err("version 2 checksum is wrong");
            }
        }
        rest = &tail[length..];
    }
    Ok(())
}

/// CRC-32C (Castagnoli) of a header whose own checksum, four bytes at `at`, counts as zeros. Bit by bit: a header is short,
/// and few carry one.
fn checksum(header: &[u8], at: usize) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let sum = header.iter().enumerate().fold(u32::MAX, |sum, (place, byte)| {
        let byte = if (at..at + 4).contains(&place) { 0 } else { *byte };
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ REVERSED } else { sum >> 1 })
    });
    !sum
}

/// A version 1 header, as it is sent to an upstream.
pub(crate) fn write_v1(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let family = match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return b"PROXY UNKNOWN\r\n".to_vec(),
    };
    format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port())
        .into_bytes()
}

/// A version 2 header, as it is sent to an upstream.
pub(crate) fn write_v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut out = V2_SIGNATURE.to_vec();
    let mut body = Vec::with_capacity(36);
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            body.extend_from_slice(&a.octets());
            body.extend_from_slice(&b.octets());
            0x11
        }
        (a, b) => {
            let wide = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            body.extend_from_slice(&wide(a).octets());
            body.extend_from_slice(&wide(b).octets());
            0x21
        }
    };
    body.extend_from_slice(&source.port().to_be_bytes());
    body.extend_from_slice(&destination.port().to_be_bytes());
    out.extend_from_slice(&[0x21, family, 0, u8::try_from(body.len()).unwrap_or(0)]);
    out.extend_from_slice(&body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(a: &str, b: &str) -> (SocketAddr, SocketAddr) {
        (a.parse().unwrap(), b.parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (s, d) in [pair("1.2.3.4:5", "6.7.8.9:80"), pair("[::1]:5", "[fe80::2]:443")] {
            for bytes in [write_v1(s, d), write_v2(s, d)] {
                let length = bytes.len();
                let mut with_payload = bytes.clone();
                with_payload.extend_from_slice(b"GET /");
                assert_eq!(parse(&with_payload), Parsed::Complete(Header { addresses: Some((s, d)), length }));
                for cut in 0..length {
                    assert_eq!(parse(&bytes[..cut]), Parsed::Partial, "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn wrong_headers_are_refused() {
        for bad in [
            &b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"[..],
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd",
        ] {
            assert!(matches!(parse(bad), Parsed::Bad(_)), "{bad:?}: {:?}", parse(bad));
        }
        let mut values = write_v2("1.2.3.4:5".parse().unwrap(), "6.7.8.9:80".parse().unwrap());
        values[15] += 3;
        values.extend_from_slice(&[1, 0, 9]);
        assert_eq!(parse(&values), Parsed::Bad("version 2 value exceeds the header"));
        assert_eq!(checksum(b"123456789", 9), 0xe306_9283, "the check value of this polynomial");
        assert!(matches!(parse(&[b'P'; 1]), Parsed::Partial));
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::Absent);
    }
}
