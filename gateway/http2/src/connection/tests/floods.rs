//! Tests of floods: what costs the sender little must not cost us much.

use super::*;

/// Feeds `bytes` until the connection ends; says after how many times and with which code.
fn feed_until_calm(bench: &mut Bench, most: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> (usize, Code) {
    for at in 0..most {
        if let Err(error) = bench.feed(&bytes(at)) {
            return (at, error.code);
        }
        bench.events().into_iter().for_each(drop);
        bench.connection.output().take();
    }
    panic!("nothing stopped it");
}

fn flood(what: &str, bytes: impl FnMut(usize) -> Vec<u8>) {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&post(1)).unwrap();
    bench.events();
    let (after, code) = feed_until_calm(&mut bench, 5000, bytes);
    assert_eq!(code, Code::ENHANCE_YOUR_CALM, "{what}");
    assert!(after >= 50, "{what}: ended after {after}, too soon for an honest peer");
}

fn odd(at: usize) -> u32 {
    u32::try_from(at).unwrap() * 2 + 3
}

#[test]
fn floods_end_the_connection() {
    flood("PING", |_| frame(kind::PING, 0, 0, &[0; 8]));
    flood("PING acknowledgements", |_| frame(kind::PING, 1, 0, &[0; 8]));
    flood("SETTINGS", |_| settings(&[]));
    flood("SETTINGS acknowledgements", |_| frame(kind::SETTINGS, 1, 0, &[]));
    flood("PRIORITY", |at| frame(kind::PRIORITY, 0, odd(at), &[0; 5]));
    flood("WINDOW_UPDATE", |_| window(0, 1));
    flood("WINDOW_UPDATE of streams", |_| window(1, 1));
    flood("WINDOW_UPDATE of gone streams", |at| if at == 0 { reset(1, Code::CANCEL) } else { window(1, 1) });
    flood("empty DATA", |_| data(1, b"", false));
    flood("padding alone", |_| frame(kind::DATA, flag::PADDED, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    flood("unknown frames", |_| frame(0xbb, 0, 0, &[]));
    flood("GOAWAY", |_| frame(kind::GOAWAY, 0, 0, &[0; 8]));
    flood("resets of gone streams", |_| reset(1, Code::CANCEL));
}

#[test]
fn rapid_reset_ends_the_connection() {
    flood("HEADERS and RST_STREAM", |at| [get(odd(at)), reset(odd(at), Code::CANCEL)].concat());
}

#[test]
fn made_you_reset_ends_the_connection() {
    flood("window of 0", |at| [post(odd(at)), window(odd(at), 0)].concat());
    flood("window overflow", |at| [post(odd(at)), window(odd(at), 0x7fff_ffff)].concat());
    flood("DATA after the end", |at| [get(odd(at)), data(odd(at), b"x", false)].concat());
    flood("HEADERS after the end", |at| [get(odd(at)), headers(odd(at), true, &[("a", "b")])].concat());
    flood("PRIORITY of a wrong size", |at| [post(odd(at)), frame(kind::PRIORITY, 0, odd(at), &[0; 4])].concat());
    let sized = [&GET[..], &[("content-length", "3")]].concat();
    flood("body too long", |at| [headers(odd(at), false, &sized), data(odd(at), b"more", false)].concat());
}

#[test]
fn resets_of_streams_that_were_served_cost_nothing() {
    let mut bench = Bench::server(Settings::default());
    for at in 0..2000 {
        bench.feed(&get(odd(at))).unwrap();
        let stream = bench.request();
        bench.respond(stream, true);
        bench.connection.output().take();
    }
    assert!(bench.connection.error().is_none());
}

#[test]
fn continuation_floods_end_the_connection() {
    let mut bench = Bench::server(Settings::default());
    bench.feed(&frame(kind::HEADERS, 0, 1, &[])).unwrap();
    let (after, code) = feed_until_calm(&mut bench, 5000, |_| frame(kind::CONTINUATION, 0, 1, &[]));
    assert_eq!(code, Code::ENHANCE_YOUR_CALM);
    assert!(after < 200);
    let mut bench = Bench::server(Settings::default());
    bench.feed(&frame(kind::HEADERS, 0, 1, &[])).unwrap();
    let (after, code) = feed_until_calm(&mut bench, 5000, |_| frame(kind::CONTINUATION, 0, 1, &[0; 16_384]));
    assert_eq!(code, Code::ENHANCE_YOUR_CALM);
    assert!(after < 10, "what is collected is bounded");
}

#[test]
fn small_references_to_large_entries_are_counted_as_what_they_are() {
    let mut bench = Bench::server(Settings::default());
    let mut bomb = block(&GET);
    // One entry of 4,000 bytes, then a byte for each repetition.
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'a'; 4000]);
    bomb.extend_from_slice(&vec![0xbe; 12_000]);
    bench.feed(&frame(kind::HEADERS, 5, 1, &bomb[..16_000])).unwrap();
    let seen = bench.written();
    assert_eq!((seen[0].kind, seen[0].number(0)), (kind::RST_STREAM, Code::INTERNAL_ERROR.0));
    assert!(bench.events().is_empty());
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let mut bench = Bench::server(Settings { max_control: 100, ..Settings::default() });
    let mut sent = 0;
    while bench.feed(&frame(kind::PING, 0, 0, &[0; 8])).is_ok() {
        sent += 1;
        assert!(sent < 200);
    }
    assert!(bench.connection.output().len() < 200 * 17);
}

#[test]
fn more_streams_than_allowed_are_refused_one_by_one() {
    let mut bench = Bench::server(Settings { max_streams: 2, ..Settings::default() });
    bench.feed(&[get(1), get(3), get(5), get(7)].concat()).unwrap();
    assert_eq!(bench.events().len(), 2);
    let refused: Vec<(u32, u32)> = bench.written().iter().map(|f| (f.stream, f.number(0))).collect();
    assert_eq!(refused, [(5, Code::REFUSED_STREAM.0), (7, Code::REFUSED_STREAM.0)]);
}

#[test]
fn time_forgives() {
    let mut bench = Bench::server(Settings::default());
    for second in 0..60 {
        bench.now = second * 1000;
        for _ in 0..90 {
            bench.feed(&frame(kind::PING, 0, 0, &[0; 8])).unwrap();
        }
        bench.connection.output().take();
    }
}
