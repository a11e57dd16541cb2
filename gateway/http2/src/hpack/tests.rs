//! Tests of HPACK: the vectors of RFC 7541, bounds, and that both halves understand each other.

use super::{Decoder, Encoder, Pseudo, huffman, integer};
use crate::head::{Collector, HeadLimits, Part};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { fields: 1000, bytes: 1 << 20 };

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn collector(part: Part) -> Collector {
    Collector::new(part, LIMITS, 8)
}

/// Decodes a request and writes it as lines.
fn request(decoder: &mut Decoder, block: &str) -> String {
    let mut into = collector(Part::Request);
    decoder.decode(&hex(block), &mut into).unwrap();
    let (head, _) = into.request(false).unwrap();
    let text = |b: &Bytes| String::from_utf8(b.to_vec()).unwrap();
    let mut all = format!("{} {} {} {}", head.method, text(&head.scheme), text(&head.path), text(&head.authority));
    for (name, value) in &head.headers {
        all += &format!("\n{name}: {}", value.to_str().unwrap());
    }
    all
}

fn response(decoder: &mut Decoder, block: &str) -> String {
    let mut into = collector(Part::Response);
    decoder.decode(&hex(block), &mut into).unwrap();
    let (head, _) = into.response().unwrap();
    let mut all = head.status.as_str().to_owned();
    for (name, value) in &head.headers {
        all += &format!("\n{name}: {}", value.to_str().unwrap());
    }
    all
}

#[test]
fn integers_are_those_of_appendix_c_1() {
    for (value, bits, expect) in [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a")] {
        let mut out = BytesMut::new();
        integer::write(&mut out, 0, bits, value);
        assert_eq!(out.to_vec(), hex(expect));
        assert_eq!(integer::read(&mut &out[..], bits), Some(value));
    }
    assert_eq!(integer::read(&mut &hex("1fffffffffffff")[..], 5), None, "too large");
    assert_eq!(integer::read(&mut &hex("1f80")[..], 5), None, "cut off");
}

#[test]
fn requests_without_huffman_are_those_of_appendix_c_3() {
    let mut d = Decoder::new(4096);
    let first = "GET http / www.example.com";
    assert_eq!(request(&mut d, "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d"), first);
    assert_eq!(d.used(), (57, 1));
    assert_eq!(request(&mut d, "8286 84be 5808 6e6f 2d63 6163 6865"), format!("{first}\ncache-control: no-cache"));
    assert_eq!(d.used(), (110, 2));
    let third = "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65";
    assert_eq!(request(&mut d, third), "GET https /index.html www.example.com\ncustom-key: custom-value");
    assert_eq!(d.used(), (164, 3));
}

#[test]
fn requests_with_huffman_are_those_of_appendix_c_4() {
    let mut d = Decoder::new(4096);
    let first = "GET http / www.example.com";
    assert_eq!(request(&mut d, "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"), first);
    assert_eq!(request(&mut d, "8286 84be 5886 a8eb 1064 9cbf"), format!("{first}\ncache-control: no-cache"));
    let third = "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf";
    assert_eq!(request(&mut d, third), "GET https /index.html www.example.com\ncustom-key: custom-value");
    assert_eq!(d.used(), (164, 3));
}

const FIRST: &str =
    "302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com";

#[test]
fn responses_evict_as_in_appendix_c_5_and_c_6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 54\
         6e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d\
         4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572\
         7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b\
         97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf\
         cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, coded] {
        let mut d = Decoder::new(256);
        // The table of the examples is shrunk by the peer first.
        d.decode(&hex("3fe101"), &mut collector(Part::Response)).unwrap();
        assert_eq!(response(&mut d, blocks[0]), FIRST);
        assert_eq!(d.used(), (222, 4));
        assert_eq!(response(&mut d, blocks[1]), FIRST.replace("302", "307"));
        assert_eq!(d.used(), (222, 4));
        assert_eq!(
            response(&mut d, blocks[2]),
            "200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\n\
             content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
        );
        assert_eq!(d.used(), (215, 3));
    }
}

#[test]
fn broken_blocks_are_refused() {
    let bad = [
        ("80", "index 0"),
        ("be", "outside the table"),
        ("ffffffffff7f", "integer too large"),
        ("82 3fe11f", "size update after a field"),
        ("20 20 20", "three size updates"),
        ("3fe2ff03", "table larger than allowed"),
        ("00", "name missing"),
        ("0003 6162", "text cut off"),
        ("0001 61", "value missing"),
        ("0081 ff 0161", "only padding, eight bits"),
        ("0081 00 0161", "padding of zeros"),
        ("0084 ffffffff 0161", "end symbol"),
    ];
    for (block, why) in bad {
        let decoded = Decoder::new(4096).decode(&hex(block), &mut collector(Part::Request));
        assert!(decoded.is_err(), "{why}");
    }
}

#[test]
fn a_peer_that_was_told_to_shrink_says_so_first() {
    let mut d = Decoder::new(100);
    d.decode(&hex("82"), &mut collector(Part::Request)).unwrap();
    d.set_limit(100);
    assert!(d.decode(&hex("82"), &mut collector(Part::Request)).is_err());
    let mut d = Decoder::new(100);
    d.set_limit(100);
    d.decode(&hex("3f45 82"), &mut collector(Part::Request)).unwrap();
    d.decode(&hex("82"), &mut collector(Part::Request)).unwrap();
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut d = Decoder::new(4096);
    d.decode(&hex("3f1f 4001610162"), &mut collector(Part::Request)).unwrap();
    assert_eq!(d.used(), (34, 1));
    let long = format!("400161{}{}", "3f", "62".repeat(63));
    d.decode(&hex(&long), &mut collector(Part::Request)).unwrap();
    assert_eq!(d.used(), (0, 0));
}

fn encode(encoder: &mut Encoder, headers: &HeaderMap) -> BytesMut {
    let mut out = BytesMut::new();
    encoder.begin(&mut out);
    for (name, value) in headers {
        encoder.header(name, value, &mut out);
    }
    out
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> HeaderMap {
    let mut into = collector(Part::Trailers);
    decoder.decode(block, &mut into).unwrap();
    into.trailers().unwrap()
}

#[test]
fn a_header_that_repeats_costs_a_byte() {
    let mut headers = HeaderMap::new();
    headers.insert("x-envoy-expected-rq-timeout-ms", HeaderValue::from_static("15000"));
    headers.insert("server", HeaderValue::from_static("envoy"));
    let mut encoder = Encoder::new(true);
    let mut decoder = Decoder::new(4096);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let block = encode(&mut encoder, &headers);
        assert_eq!(decode(&mut decoder, &block), headers);
        sizes.push(block.len());
    }
    assert_eq!(sizes[2], 2);
    assert_eq!(encoder.used(), decoder.used());
}

#[test]
fn secrets_never_enter_a_table() {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer abc"));
    headers.insert("cookie", HeaderValue::from_static("a=1"));
    let mut odd = HeaderValue::from_static("hidden");
    odd.set_sensitive(true);
    headers.insert("x-key", odd);
    let mut encoder = Encoder::new(true);
    let mut decoder = Decoder::new(4096);
    for _ in 0..4 {
        let block = encode(&mut encoder, &headers);
        let back = decode(&mut decoder, &block);
        assert_eq!(back, headers);
        assert!(back.values().all(HeaderValue::is_sensitive), "the next hop keeps them out of its tables, too");
    }
    assert_eq!(encoder.used(), (0, 0));
    assert_eq!(decoder.used(), (0, 0));
}

#[test]
fn size_changes_are_announced() {
    let mut headers = HeaderMap::new();
    headers.insert("x-a", HeaderValue::from_static("1"));
    let mut encoder = Encoder::new(false);
    let mut decoder = Decoder::new(4096);
    for limit in [4096, 0, 4096, 64, 200, 1 << 30] {
        encoder.set_limit(limit);
        for _ in 0..3 {
            let block = encode(&mut encoder, &headers);
            assert_eq!(decode(&mut decoder, &block), headers);
            assert_eq!(encoder.used(), decoder.used());
        }
    }
    encoder.set_limit(0);
    encoder.set_limit(4096);
    let block = encode(&mut encoder, &headers);
    assert_eq!(&block[..4], &hex("20 3fe11f")[..], "the smallest, then the last");
    assert_eq!(decode(&mut decoder, &block), headers);
}

#[test]
fn pseudo_headers_go_both_ways() {
    let mut encoder = Encoder::new(true);
    let mut decoder = Decoder::new(4096);
    for _ in 0..4 {
        let mut block = BytesMut::new();
        encoder.begin(&mut block);
        encoder.pseudo(Pseudo::Method, "BREW", &mut block);
        encoder.pseudo(Pseudo::Scheme, "https", &mut block);
        encoder.pseudo(Pseudo::Authority, "pots.test:8443", &mut block);
        encoder.pseudo(Pseudo::Path, "/coffee?milk=no", &mut block);
        let mut into = collector(Part::Request);
        decoder.decode(&block, &mut into).unwrap();
        let (head, _) = into.request(false).unwrap();
        assert_eq!(head.method, Method::from_bytes(b"BREW").unwrap());
        assert_eq!((&head.authority[..], &head.path[..]), (&b"pots.test:8443"[..], &b"/coffee?milk=no"[..]));
    }
}

fn headers() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = prop_oneof![
        Just("server".to_owned()),
        Just("content-type".to_owned()),
        Just("cookie".to_owned()),
        "[a-z][a-z0-9-]{0,12}"
            .prop_filter("forbidden", |n| !["te", "host", "upgrade", "content-length"].contains(&&**n)),
    ];
    let value = prop_oneof![
        Just(b"same".to_vec()),
        proptest::collection::vec(prop_oneof![32_u8..127, 128_u8..=255], 0..60),
        "[a-c]{0,3}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec((name, value), 0..12)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(blocks in proptest::collection::vec((headers(), proptest::option::of(0_usize..600)), 1..12), coded: bool) {
        let mut encoder = Encoder::new(coded);
        let mut decoder = Decoder::new(4096);
        for (block, limit) in blocks {
            if let Some(limit) = limit {
                encoder.set_limit(limit);
            }
            let mut map = HeaderMap::new();
            for (name, value) in block {
                map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(&value).unwrap());
            }
            let bytes = encode(&mut encoder, &map);
            prop_assert_eq!(decode(&mut decoder, &bytes), map);
            prop_assert_eq!(encoder.used(), decoder.used());
        }
    }

    #[test]
    fn huffman_goes_both_ways(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut coded = BytesMut::new();
        huffman::encode(&text, &mut coded);
        prop_assert_eq!(coded.len(), huffman::length(&text));
        let mut back = BytesMut::new();
        prop_assert!(huffman::decode(&coded, &mut back));
        prop_assert_eq!(&back[..], &text[..]);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..6)) {
        let mut decoder = Decoder::new(4096);
        for block in blocks {
            let mut into = collector(Part::Request);
            if decoder.decode(&block, &mut into).is_err() {
                break;
            }
            let _ = into.request(true);
            prop_assert!(decoder.used().0 <= 4096);
        }
    }

    #[test]
    fn any_bytes_are_huffman_or_not(text in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut back = BytesMut::new();
        if huffman::decode(&text, &mut back) {
            let mut again = BytesMut::new();
            huffman::encode(&back, &mut again);
            prop_assert_eq!(&again[..], &text[..], "there is one way to write a text");
        }
    }
}
