//! What servers say that a gateway asks for itself: name servers, health checks, bodies of gRPC-Web.

use crate::{
    Target,
    targets::{seeds, thirds},
};
use tombolo_gateway_core::health::{Finding, grpc_answer};
use tombolo_gateway_proxy::fuzzing;

/// Targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "dns_message", feed: dns_message, seeds: messages },
    Target { name: "grpc_health", feed: grpc_health, seeds: checks },
    Target { name: "grpc_web", feed: grpc_web, seeds: bodies },
];

const ID: u16 = 0x1234;
const NAME: &str = "a.example";

/// An answer to another question is none, and addresses are of the kind that was asked for.
fn dns_message(input: &[u8]) {
    for version6 in [false, true] {
        let Some(found) = fuzzing::dns_answer(input, ID, NAME, version6) else { continue };
        assert!(found.iter().all(|ip| ip.is_ipv6() == version6), "{found:?} of another kind");
        assert!(found.len() * 4 <= input.len(), "{} addresses of {} bytes", found.len(), input.len());
        assert_eq!(fuzzing::dns_answer(input, !ID, NAME, version6), None, "an answer to another number");
        assert_eq!(fuzzing::dns_answer(input, ID, "b.example", version6), None, "an answer to another name");
    }
}

fn messages() -> Vec<Vec<u8>> {
    let question = |kind: u8| [&b"\x01a\x07example\0\0"[..], &[kind, 0, 1]].concat();
    let head = |answers: u8| vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0];
    let four = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, 1];
    let six = [&[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16][..], &[1; 16]].concat();
    let alias = [&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 4, 1, b'b', 0xc0, 14][..]].concat();
    let of_alias = [0xc0, 39, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0, 0, 2];
    vec![
        [head(1), question(1), four.to_vec()].concat(),
        [head(1), question(28), six].concat(),
        [head(2), question(1), alias, of_alias.to_vec()].concat(),
        [head(0), question(1)].concat(),
        vec![0x12, 0x34, 0x83, 0x83, 0, 1, 0, 0, 0, 0, 0, 0],
        // A name that points at itself.
        [head(1), question(1), vec![0xc0, 27, 0, 1, 0, 1]].concat(),
    ]
}

/// Only a whole message says that a server is well.
fn grpc_health(input: &[u8]) {
    let finding = grpc_answer(Some(0), input);
    if finding == Finding::Healthy {
        assert!(input.len() > 5 && input[0] == 0, "well without a message");
        assert_eq!(grpc_answer(Some(14), input), Finding::Unhealthy, "well in spite of its status");
        assert_eq!(grpc_answer(None, input), Finding::Unhealthy, "well without a status");
    }
}

fn checks() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0, 0, 0, 2, 8, 1],
        vec![0, 0, 0, 0, 2, 8, 2],
        vec![0; 5],
        vec![0, 0, 0, 0, 9, 0x12, 3, 1, 2, 3, 8, 0x81, 0, 0],
    ]
}

/// However a text is cut, the bytes are the same.
fn grpc_web(input: &[u8]) {
    let whole = fuzzing::grpc_web_text(&[input]);
    assert_eq!(whole, fuzzing::grpc_web_text(&thirds(input)), "the cut changes what is read");
    assert!(whole.is_none_or(|bytes| bytes.len() <= input.len()), "more bytes than text");
}

fn bodies() -> Vec<Vec<u8>> {
    seeds(&[b"AAAAAAVoZWxsbw==", b"AAAAAAVoZWxsbw==AAAAAAA=", b"gAAAAA9ncnBjLXN0YXR1czowDQo=", b"AAAA", b"=", b""])
}
