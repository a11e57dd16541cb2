//! What comes first on a connection: PROXY headers, client hellos, the beginning of HTTP.

use crate::{Target, targets::seeds};
use tombolo_gateway_proxy::fuzzing;

/// Targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "proxy_protocol", feed: proxy_protocol, seeds: proxy_headers },
    Target { name: "client_hello", feed: client_hello, seeds: hellos },
    Target { name: "http_preface", feed: http_preface, seeds: prefaces },
];

/// A header is found at one length only, and more bytes behind it change nothing.
fn proxy_protocol(input: &[u8]) {
    let Some(length) = fuzzing::proxy_protocol(input) else { return };
    assert!(length <= input.len(), "a header longer than what was read");
    assert_eq!(fuzzing::proxy_protocol(&input[..length]), Some(length), "the header alone reads otherwise");
    for shorter in 0..length {
        assert_eq!(fuzzing::proxy_protocol(&input[..shorter]), None, "complete before its end");
    }
}

fn proxy_headers() -> Vec<Vec<u8>> {
    let mut four = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    four.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0x1f, 0x90, 0x01, 0xbb]);
    let mut six = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    six.extend_from_slice(&[0; 36]);
    vec![
        b"PROXY TCP4 10.0.0.1 10.0.0.2 8080 443\r\nGET / HTTP/1.1\r\n".to_vec(),
        b"PROXY TCP6 ::1 2001:db8::1 1 65535\r\n".to_vec(),
        b"PROXY UNKNOWN\r\n".to_vec(),
        four,
        six,
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
    ]
}

/// However a hello is cut, the verdict is the same.
fn client_hello(input: &[u8]) {
    let whole = fuzzing::client_hello(&[input]);
    let (first, second) = input.split_at(input.len() / 2);
    if let Some(name) = fuzzing::client_hello(&[first, second]) {
        assert_eq!(whole, Some(name), "the cut changes what is read");
    }
}

fn hellos() -> Vec<Vec<u8>> {
    vec![fuzzing::sample_hello("a.example"), fuzzing::sample_hello("outbound_.80_.v1_.b.default.svc.cluster.local")]
}

/// More bytes never take a verdict back.
fn http_preface(input: &[u8]) {
    let whole = fuzzing::http(input);
    for end in 0..input.len() {
        if let Some(verdict) = fuzzing::http(&input[..end]) {
            assert_eq!(whole, Some(verdict), "the verdict changed after {end} bytes");
            return;
        }
    }
}

fn prefaces() -> Vec<Vec<u8>> {
    seeds(&[
        b"GET / HTTP/1.1\r\nhost: a\r\n",
        b"POST /x HTTP/1.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\0",
    ])
}
