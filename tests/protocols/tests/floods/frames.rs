//! Clients: rows 23 to 29 of the attack catalogue.

use crate::GATEWAY;
use anyhow::{Result, ensure};
use serde_json::json;
use std::net::SocketAddr;
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    files::{Filed, cluster, cluster2, listener, manager, to},
    flood::{self, Honest},
    origin::Origin,
    recorder::{Recorder, Seen},
    wire2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PRIORITY, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, Wire2, block, fields, frame,
    },
};

/// Errors of HTTP/2.
const PROTOCOL: u32 = 1;
const CALM: u32 = 11;
/// Memory that one client may cost, what its kernel buffers take aside.
const MOST: u64 = 24 << 20;

struct World {
    filed: Filed,
    at: SocketAddr,
    recorder: Recorder,
    _origin: Origin,
    before: u64,
}

impl World {
    async fn start() -> Self {
        let (recorder, origin) = (Recorder::http1().await.unwrap(), Origin::start().await.unwrap());
        let at = free();
        // A malformed message ends its stream only: otherwise many floods would end with their first frame.
        let more = json!({"http2_protocol_options": {"override_stream_error_on_invalid_http_message": true}});
        let routes = json!([to("/large", "large"), to("/slow", "large"), to("/", "ok")]);
        let listeners = [listener("door", at, &manager(routes, &[], &more), None)];
        let clusters = [cluster("ok", &[recorder.address]), cluster2("large", &[origin.address])];
        let filed = Filed::start(GATEWAY, &listeners, &clusters).await.unwrap();
        let world = Self { filed, at, recorder, _origin: origin, before: 0 };
        // What the first connection takes is not the floods'.
        let mut wire = Wire2::open(at).await.unwrap();
        wire.send(&get(1, "/warm", true)).await;
        assert_eq!(wire.fate(1).await.unwrap().status, Some(200));
        assert_eq!(world.forwarded(), 1);
        Self { before: world.filed.gateway.most_memory().unwrap(), ..world }
    }

    /// Bytes of memory more than before the floods.
    fn grown(&self) -> u64 {
        self.filed.gateway.most_memory().unwrap().saturating_sub(self.before)
    }

    /// Requests that the server saw the head of, apart from the honest ones.
    fn forwarded(&self) -> usize {
        self.recorder.take().iter().filter(|seen| matches!(seen, Seen::Head(head) if head.target != "/probe")).count()
    }
}

fn get(stream: u32, path: &str, end: bool) -> Vec<u8> {
    let list = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]);
    frame(HEADERS, END_HEADERS | u8::from(end), stream, &block(&list))
}

/// So many streams, each with what follows its head.
fn streams(count: usize, end: bool, follows: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let numbers = (0..u32::try_from(count).unwrap()).map(|number| number * 2 + 1);
    numbers.flat_map(|stream| [get(stream, "/flooded", end), follows(stream)].concat()).collect()
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A flood, and the error with which it is ended.
struct Flood {
    name: &'static str,
    bytes: Vec<u8>,
    code: u32,
}

/// Plays floods one after the other, each on a connection of its own.
async fn play(floods: Vec<Flood>) {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for flood in floods {
        for unread in [false, true] {
            let honest = Honest::start(world.at).await.unwrap();
            let ended = one(&world, &flood, unread).await;
            let calm = honest.end().await.unwrap();
            let grown = world.grown();
            let forwarded = world.forwarded();
            println!(
                "{} (unread {unread}): {} bytes, {} KiB more by now, {forwarded} forwarded; {} honest requests, the \
                 slowest {:?}",
                flood.name,
                flood.bytes.len(),
                grown >> 10,
                calm.answered,
                calm.slowest
            );
            if let Err(error) = ended {
                wrong.push(format!("{} (unread {unread}): {error:#}", flood.name));
            }
            if grown > MOST {
                wrong.push(format!("{} (unread {unread}): {grown} bytes more", flood.name));
            }
            // Bursts that honest clients may have, and what time allows again.
            if forwarded > 1000 {
                wrong.push(format!("{} (unread {unread}): {forwarded} requests reached the server", flood.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    world.filed.gateway.is_whole().await.unwrap();
}

async fn one(world: &World, flood: &Flood, unread: bool) -> Result<()> {
    let mut wire = Wire2::open(world.at).await?;
    if unread {
        wire.flood_unread(&flood.bytes).await;
    } else {
        wire.flood(&flood.bytes).await?;
    }
    wire.until(|wire| wire.goaway.is_some()).await?;
    ensure!(wire.ended || wire.goaway.is_some(), "the connection goes on");
    // A goodbye can get lost when the flood goes on after it.
    let code = wire.goaway.map(|(code, _)| code);
    ensure!(code.is_none_or(|code| code == flood.code), "ended with {code:?} instead of {}", flood.code);
    Ok(())
}

/// Row 23 (rapid reset) and row 24 (MadeYouReset, in eight ways).
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_are_counted() {
    let count = 2000 * flood::scale();
    let calm = |name, bytes| Flood { name, bytes, code: CALM };
    let cancel = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let long =
        [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/flooded"), ("content-length", "1")];
    let lengths: Vec<u8> = (0..u32::try_from(count).unwrap())
        .flat_map(|number| {
            let stream = number * 2 + 1;
            let head = frame(HEADERS, END_HEADERS, stream, &block(&fields(&long)));
            [head, frame(DATA, 0, stream, b"two")].concat()
        })
        .collect();
    play(vec![
        calm("rapid reset", streams(count, true, cancel)),
        calm("rapid reset of bodies", streams(count, false, cancel)),
        calm("WINDOW_UPDATE of 0", streams(count, false, |stream| window(stream, 0))),
        calm("window beyond all bounds", streams(count, false, |stream| window(stream, 0x7fff_ffff))),
        calm("DATA after the end", streams(count, true, |stream| frame(DATA, 0, stream, b"x"))),
        calm("HEADERS after the end", streams(count, true, |stream| get(stream, "/flooded", true))),
        calm("PRIORITY of a wrong size", streams(count, false, |stream| frame(PRIORITY, 0, stream, &[0; 4]))),
        calm("longer than announced", lengths),
        calm("trailers that are a head", streams(count, false, |stream| get(stream, "/flooded", true))),
        calm("trailers that do not end", streams(count, false, |stream| get(stream, "/flooded", false))),
    ])
    .await;
}

/// Row 25 (header blocks without end), row 26 (resets of streams that were never good, unread) and row 27 (frames with
/// nothing in them).
#[tokio::test(flavor = "multi_thread")]
async fn empty_frames_and_endless_heads_are_ended() {
    let count = 20_000 * flood::scale();
    let calm = |name, bytes| Flood { name, bytes, code: CALM };
    let begun = frame(HEADERS, 0, 1, &block(&fields(&[(":method", "GET")])));
    let endless = |piece: &[u8], count: usize| [begun.clone(), frame(CONTINUATION, 0, 1, piece).repeat(count)].concat();
    let after = |one: Vec<u8>| [get(1, "/flooded", false), one.repeat(count)].concat();
    let bad = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("X-Bad", "1")]);
    let bad: Vec<u8> = (0..u32::try_from(count).unwrap())
        .flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &block(&bad)))
        .collect();
    let empty: Vec<u8> = (0..u32::try_from(count).unwrap())
        .flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, b""))
        .collect();
    let nameless = fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/"), ("", "")]);
    let nameless: Vec<u8> = (0..u32::try_from(count).unwrap())
        .flat_map(|number| frame(HEADERS, END_HEADERS | END_STREAM, number * 2 + 1, &block(&nameless)))
        .collect();
    play(vec![
        calm("CONTINUATION of one byte", endless(&[0], count)),
        calm("CONTINUATION of nothing", endless(b"", count)),
        calm("CONTINUATION of much", endless(&[0; 16384], 100)),
        calm("malformed heads", bad),
        calm("heads of nothing", empty),
        calm("fields without name or value", nameless),
        calm("DATA of nothing", after(frame(DATA, 0, 1, b""))),
        calm("DATA of padding", after(frame(DATA, PADDED, 1, &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]))),
        calm(
            "HEADERS in no pieces",
            [frame(HEADERS, 0, 1, b""), frame(CONTINUATION, 0, 1, b"").repeat(count)].concat(),
        ),
    ])
    .await;
}

/// Row 29: frames that ask for answers, or for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn control_frames_without_end_are_ended() {
    let count = 20_000 * flood::scale();
    let calm = |name, bytes: Vec<u8>| Flood { name, bytes, code: CALM };
    let alone = |one: Vec<u8>| one.repeat(count);
    let done = [get(1, "/flooded", true), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])].concat();
    let held: Vec<u8> = (0..100).flat_map(|number| get(number * 2 + 1, "/large/100000", true)).collect();
    let toggled = [frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
    play(vec![
        calm("PING", alone(frame(PING, 0, 0, &[7; 8]))),
        calm("answers to PINGs", alone(frame(PING, 1, 0, &[7; 8]))),
        calm("SETTINGS", alone(frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]))),
        calm("empty SETTINGS", alone(frame(SETTINGS, 0, 0, b""))),
        calm("answers to SETTINGS", alone(frame(SETTINGS, 1, 0, b""))),
        calm("windows that open and close", [held, toggled.repeat(count)].concat()),
        calm("PRIORITY", alone(frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 7]))),
        calm("PRIORITY on itself", alone(frame(PRIORITY, 0, 3, &[0, 0, 0, 3, 7]))),
        calm("windows of one byte", alone(window(0, 1))),
        calm("resets of what is over", [done, frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]).repeat(count)].concat()),
        calm("GOAWAY", alone(frame(GOAWAY, 0, 0, &[0; 8]))),
        calm("unknown frames", alone(frame(0xee, 0, 0, b"x"))),
        Flood { name: "frames of no stream", bytes: alone(frame(DATA, 0, 0, b"")), code: PROTOCOL },
    ])
    .await;
}

/// Row 28: fields that refer to a large one cost as much as if they were written out.
#[tokio::test(flavor = "multi_thread")]
async fn references_count_as_what_they_stand_for() {
    let world = World::start().await;
    let honest = Honest::start(world.at).await.unwrap();
    let plain = block(&fields(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/flooded")]));
    // `cookie` (32 of the static table), or a name of our own, with a value of 3,900 bytes: the first entry of the table.
    let (length, value) = ([0x7f, 0xbd, 0x1d], vec![b'x'; 3900]);
    for first in [[&[0x60][..], &length, &value].concat(), [&[0x40, 1, b'n'][..], &length, &value].concat()] {
        for streams in [1, 50 * u32::try_from(flood::scale()).unwrap()] {
            let mut wire = Wire2::open(world.at).await.unwrap();
            for number in 0..streams {
                let again = if number == 0 { &first[..] } else { &[0xbe][..] };
                let room = 16_384 - plain.len() - again.len();
                let payload = [&plain[..], again, &vec![0xbe; room]].concat();
                assert_eq!(payload.len(), 16_384);
                let stream = number * 2 + 1;
                wire.flood(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &payload)).await.unwrap();
                let over = |wire: &Wire2| {
                    wire.goaway.is_some()
                        || wire.fates.get(&stream).is_some_and(|fate| fate.reset.is_some() || fate.status.is_some())
                };
                wire.until(over).await.unwrap();
                let fate = wire.fates.get(&stream).cloned().unwrap_or_default();
                let refused = fate.reset.is_some() || wire.ended || wire.goaway.is_some() || fate.status == Some(431);
                assert!(refused, "stream {stream}: {fate:?}");
                if wire.ended || wire.goaway.is_some() {
                    break;
                }
            }
        }
    }
    let calm = honest.end().await.unwrap();
    let grown = world.grown();
    println!("references: {} KiB more; {} honest requests, the slowest {:?}", grown >> 10, calm.answered, calm.slowest);
    assert!(grown < MOST, "{grown} bytes more");
    assert_eq!(world.forwarded(), 0);
    world.filed.gateway.is_whole().await.unwrap();
}

/// Row 29: answers that nobody reads, or reads byte by byte.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_wait_outside() {
    let world = World::start().await;
    let honest = Honest::start(world.at).await.unwrap();
    let ask: Vec<u8> = (0..100).flat_map(|number| get(number * 2 + 1, "/large/5000000", true)).collect();
    // A window for everything, and a socket that nobody reads.
    let wide = [frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]), window(0, 0x7fff_0000), ask.clone()].concat();
    let mut unread = Wire2::open(world.at).await.unwrap();
    unread.flood_unread(&wide).await;
    // No window at all, and then a byte at a time.
    let mut dribble = Wire2::open(world.at).await.unwrap();
    let narrow = [frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), ask].concat();
    dribble.flood(&narrow).await.unwrap();
    for _ in 0..5 {
        let bytes: Vec<u8> = (0..100).flat_map(|number| window(number * 2 + 1, 1)).collect();
        dribble.flood(&bytes).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let calm = honest.end().await.unwrap();
    let grown = world.grown();
    println!(
        "answers unread: {} KiB more; {} honest requests, the slowest {:?}",
        grown >> 10,
        calm.answered,
        calm.slowest
    );
    // Of 200 answers each may have a window's worth of its server here: 256 KiB, and as much in buffers.
    assert!(grown < 200 << 20, "{grown} bytes more");
    drop((unread, dribble));
    let mut last = Wire2::open(world.at).await.unwrap();
    last.flood(&get(1, "/probe", true)).await.unwrap();
    assert_eq!(last.fate(1).await.unwrap().status, Some(200));
    world.filed.gateway.is_whole().await.unwrap();
}
