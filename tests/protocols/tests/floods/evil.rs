//! Servers: row 30 of the attack catalogue (a server that says goodbye and goes on, that takes no streams, that resets what
//! it let go) and thirty more that break a rule or make work. The client gets an error or what is whole, never a part that
//! looks whole; the gateway and everybody else are none the worse.

use crate::GATEWAY;
use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    files::{Filed, cluster, cluster2, listener, manager, to},
    flood::Honest,
    recorder::Recorder,
    wire1::Wire,
    wire2::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE, PUSH_PROMISE, RST_STREAM,
        SETTINGS, WINDOW_UPDATE, block, fields, frame,
    },
};

/// What the client may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// An error of the gateway's, or an answer that breaks off.
    Fails,
    /// The whole answer: what else the server did was after it, or harmless.
    Serves,
    /// One or the other: a server may also fall silent on a connection that serves again.
    Either,
}
use Fate::{Either, Fails, Serves};

/// A server: what it says first, and what when a request came. The connection stays unless `ends`.
struct Server {
    name: &'static str,
    first: Vec<u8>,
    then: Vec<u8>,
    ends: bool,
    fate: Fate,
}

fn settings(list: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        list.iter().flat_map(|(number, value)| [&number.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn head(list: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, 1, &block(&fields(list)))
}

fn data(bytes: &[u8], flags: u8) -> Vec<u8> {
    frame(DATA, flags, 1, bytes)
}

const OK: &[(&str, &str)] = &[(":status", "200")];

fn whole() -> Vec<u8> {
    [head(OK, 0), data(b"whole", END_STREAM)].concat()
}

fn part() -> Vec<u8> {
    [head(OK, 0), data(b"part", 0)].concat()
}

fn leaving() -> Vec<Server> {
    let server = |name, then: Vec<u8>, fate| Server { name, first: settings(&[]), then, ends: false, fate };
    let ends = |name, then: Vec<u8>, fate| Server { name, first: settings(&[]), then, ends: true, fate };
    let none = settings(&[(3, 0)]);
    vec![
        server("GOAWAY, then no streams", [goaway(1, 0), none.clone()].concat(), Fails),
        server("GOAWAY, no streams, and the answer", [goaway(1, 0), none.clone(), whole()].concat(), Serves),
        server("GOAWAY, then a reset", [goaway(1, 0), reset(1, 8)].concat(), Fails),
        server("GOAWAY, a part, then a reset", [goaway(1, 0), part(), reset(1, 0)].concat(), Fails),
        server("GOAWAY that lets nothing live, then an answer", [goaway(0, 0), whole()].concat(), Fails),
        server("GOAWAY for ever", goaway(1, 0).repeat(5000), Fails),
        server("GOAWAY that takes back", [goaway(1, 0), goaway(99, 0), whole()].concat(), Either),
        server("GOAWAY with an error, then an answer", [goaway(1, 2), whole()].concat(), Either),
        Server { name: "no streams from the start", first: none, then: Vec::new(), ends: false, fate: Fails },
        ends("end without a word", Vec::new(), Fails),
        ends("end in the middle", part(), Fails),
        ends("end in the middle of a frame", [head(OK, 0), data(b"whole", END_STREAM)[..11].to_vec()].concat(), Fails),
        ends("the answer, then the end", whole(), Serves),
        server("a reset with no error", reset(1, 0), Fails),
        server("a refusal", reset(1, 7), Fails),
        server("the answer, then a reset", [whole(), reset(1, 0)].concat(), Either),
        server("a part, then a reset with no error", [part(), reset(1, 0)].concat(), Fails),
    ]
}

fn breaking() -> Vec<Server> {
    let server = |name, then: Vec<u8>, fate| Server { name, first: settings(&[]), then, ends: false, fate };
    let with = |more: &[(&str, &str)]| [head(&[OK, more].concat(), 0), data(b"whole", END_STREAM)].concat();
    vec![
        Server {
            name: "HTTP/1",
            first: b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole".to_vec(),
            then: whole(),
            ends: false,
            fate: Fails,
        },
        server("a head without a status", [head(&[("x", "1")], 0), data(b"whole", END_STREAM)].concat(), Fails),
        server("two statuses", with(OK), Fails),
        server("a status that is none", [head(&[(":status", "2000")], 0), data(b"x", END_STREAM)].concat(), Fails),
        server("101", head(&[(":status", "101")], 0), Fails),
        server("capitals", with(&[("X-Up", "1")]), Fails),
        server("connection", with(&[("connection", "close")]), Fails),
        server("transfer-encoding", with(&[("transfer-encoding", "chunked")]), Fails),
        server("a line break in a value", with(&[("x", "a\r\nset-cookie: b")]), Fails),
        server("two lengths", with(&[("content-length", "5"), ("content-length", "5")]), Fails),
        server("longer than announced", with(&[("content-length", "3")]), Fails),
        server("shorter than announced", with(&[("content-length", "50")]), Fails),
        server("a body before a head", data(b"whole", END_STREAM), Fails),
        server("an answer to nobody", frame(HEADERS, END_HEADERS, 99, &block(&fields(OK))), Fails),
        server("a stream of the server's", frame(HEADERS, END_HEADERS, 2, &block(&fields(OK))), Fails),
        server(
            "a push",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &block(&fields(OK))].concat()),
            Fails,
        ),
        server("a table that is not there", frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x7f]), Fails),
        server("a frame too large", [&[1, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 65_536]].concat(), Fails),
        server("padding beyond the frame", [head(OK, 0), frame(DATA, PADDED, 1, &[9, 0])].concat(), Fails),
        server("a window of 0", frame(WINDOW_UPDATE, 0, 1, &[0; 4]), Fails),
        server("a window beyond all bounds", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(2), Fails),
        server("trailers that do not end", [part(), head(&[("x", "1")], 0)].concat(), Fails),
        server("trailers with a status", [part(), head(OK, END_STREAM)].concat(), Fails),
        server(
            "a head interrupted",
            [frame(HEADERS, 0, 1, &block(&fields(OK))), data(b"x", END_STREAM)].concat(),
            Fails,
        ),
        server("settings that are none", settings(&[(4, u32::MAX)]), Fails),
    ]
}

fn flooding() -> Vec<Server> {
    let server = |name, then: Vec<u8>, fate| Server { name, first: settings(&[]), then, ends: false, fate };
    let large = fields(&[(":status", "200"), ("x", &"y".repeat(60_000))]);
    // An entry of 3,900 bytes, and references to it.
    let bomb = [&block(&fields(OK))[..], &[0x40, 1, b'n', 0x7f, 0xbd, 0x1d], &[b'x'; 3900], &[0xbe; 12_000]].concat();
    let begun = frame(HEADERS, 0, 1, &block(&fields(OK)));
    let twice = block(&large).chunks(16_384).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let pieces: Vec<u8> = twice.iter().flat_map(|piece| frame(CONTINUATION, 0, 1, piece)).collect();
    vec![
        server("hints for ever", head(&[(":status", "103"), ("link", "</x>")], 0).repeat(20_000), Fails),
        server("PING for ever", frame(PING, 0, 0, &[1; 8]).repeat(20_000), Fails),
        server("SETTINGS for ever", settings(&[(3, 9)]).repeat(20_000), Fails),
        server("a body of nothing for ever", [head(OK, 0), data(b"", 0).repeat(20_000)].concat(), Fails),
        server(
            "a head of nothing for ever",
            [begun.clone(), frame(CONTINUATION, 0, 1, b"").repeat(20_000)].concat(),
            Fails,
        ),
        server("a head for ever", [begun, pieces.repeat(10)].concat(), Fails),
        server("a head that grows", frame(HEADERS, END_HEADERS, 1, &bomb), Fails),
        server("unknown frames for ever", frame(0xee, 0, 0, b"x").repeat(20_000), Fails),
        server("silence", Vec::new(), Fails),
    ]
}

/// Reads the preface and a request's head, saying what the script says; then holds the connection.
async fn serve(mut stream: TcpStream, first: Vec<u8>, then: Vec<u8>, ends: bool) -> Result<()> {
    let mut input = vec![0; PREFACE.len()];
    stream.read_exact(&mut input).await?;
    ensure!(input == PREFACE, "no preface");
    stream.write_all(&first).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]]))?];
        stream.read_exact(&mut payload).await?;
        if head[3] == HEADERS {
            break;
        }
    }
    let _ = stream.write_all(&then).await;
    if ends {
        return Ok(());
    }
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

async fn start(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let (first, then, ends) = (server.first.clone(), server.then.clone(), server.ends);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, first.clone(), then.clone(), ends));
        }
    });
    at
}

/// One request; what of it is whole.
async fn ask(at: SocketAddr, path: &str) -> Result<bool> {
    let mut wire = Wire::new(TcpStream::connect(at).await?);
    wire.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
    let answer = match wire.answer(false).await {
        Ok(Some(answer)) => answer,
        // It broke off. Silence is no such thing.
        Err(error) if !error.to_string().contains("silent") => return Ok(false),
        Ok(None) => bail!("no answer at all"),
        Err(error) => return Err(error),
    };
    match answer.status {
        200 => {
            ensure!(answer.body == b"whole", "{} was taken for whole", answer.body.escape_ascii());
            Ok(true)
        }
        502..=504 => Ok(false),
        other => bail!("status {other}"),
    }
}

async fn play(servers: Vec<Server>) {
    let recorder = Recorder::http1().await.unwrap();
    let at = free();
    let mut clusters = vec![cluster("ok", &[recorder.address])];
    let mut routes = vec![to("/probe", "ok")];
    for (number, server) in servers.iter().enumerate() {
        clusters.push(cluster2(&format!("evil{number}"), &[start(server).await]));
        // Silence is waited for; an answer may take its time.
        let timeout = if server.fate == Serves { "60s" } else { "1s" };
        routes.push(json!({
            "match": {"path": format!("/{number}")},
            "route": {"cluster": format!("evil{number}"), "timeout": timeout},
        }));
    }
    let listeners = [listener("door", at, &manager(Value::from(routes), &[], &json!({})), None)];
    let filed = Filed::start(GATEWAY, &listeners, &clusters).await.unwrap();
    let honest = Honest::start(at).await.unwrap();
    let before = filed.gateway.most_memory().unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for (number, server) in servers.iter().enumerate() {
        let (name, fate) = (server.name, server.fate);
        asked.spawn(async move {
            // Twice, so that what is left of the first time is met.
            for turn in ["first", "second"] {
                let whole = ask(at, &format!("/{number}")).await.map_err(|e| format!("{name}, {turn}: {e:#}"))?;
                let fine = match fate {
                    Fails => !whole,
                    Serves => whole,
                    Either => true,
                };
                if !fine {
                    return Err(format!("{name}, {turn}: whole {whole}, and {fate:?} was to be"));
                }
            }
            Ok(())
        });
    }
    let wrong: Vec<String> = asked.join_all().await.into_iter().filter_map(Result::err).collect();
    let calm = honest.end().await.unwrap();
    let grown = filed.gateway.most_memory().unwrap().saturating_sub(before);
    println!("{} servers: {} KiB more; {calm:?}", servers.len(), grown >> 10);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(grown < 32 << 20, "{grown} bytes more");
    filed.gateway.is_whole().await.unwrap();
}

/// Row 30.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_leave_are_let_go() {
    play(leaving()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_break_rules_serve_nobody() {
    play(breaking()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_flood_serve_nobody() {
    play(flooding()).await;
}
