//! `Expect`: row 8 of the attack catalogue (its spellings split the reading of head and body) and row 9 (an answer other
//! than 100 leaves a connection to the server that is not fit for the next request).

use crate::{GATEWAY, POISON};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    files::{Filed, cluster, listener, manager, to},
    recorder::Recorder,
    wire1::Wire,
    world::arrived,
};

const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nhost: a\r\n\r\n";

/// Fields that expect something, or seem to.
const EXPECTATIONS: &[&str] = &[
    "expect: 100-continue",
    "expect: 100-Continue",
    "expect:100-continue\t",
    "expect: 100-continue\r\nexpect: 100-continue",
    "expect: 100-continue, 100-continue",
    "expect: x 100-continue",
    "expect: 100-continue;q=1",
    "expect: 200-ok",
    "expect: y 100-continue\r\nexpect: 100-continue",
    "expect:",
    "expect: \"100-continue\"",
    "expect: 100-continu",
];

/// Row 8: however it is spelled, the body is the body, and what follows is the next request.
#[tokio::test(flavor = "multi_thread")]
async fn expectations_move_no_boundary() {
    let recorder = Recorder::http1().await.unwrap();
    let at: [SocketAddr; 2] = std::array::from_fn(|_| free());
    let door = |name, at, more| listener(name, at, &manager(json!([to("/", "ok")]), &[], &more), None);
    let listeners = [door("own", at[0], json!({})), door("passed", at[1], json!({"proxy_100_continue": true}))];
    let filed = Filed::start(GATEWAY, &listeners, &[cluster("ok", &[recorder.address])]).await.unwrap();
    let (length, mut wrong) = (POISON.len(), Vec::new());
    let chunks = [format!("{length:x}\r\n").as_bytes(), POISON, b"\r\n0\r\n\r\n"].concat();
    let forms = [
        (format!("content-length: {length}"), POISON.to_vec(), length),
        ("transfer-encoding: chunked".to_owned(), chunks, length),
        ("content-length: 0".to_owned(), Vec::new(), 0),
        ("x: no body".to_owned(), Vec::new(), 0),
    ];
    for at in at {
        for expectation in EXPECTATIONS {
            for (framing, body, length) in &forms {
                let head = format!("POST /ask HTTP/1.1\r\nhost: a\r\n{expectation}\r\n{framing}\r\n\r\n");
                for pause in [false, true] {
                    if let Err(error) = play(at, &recorder, head.as_bytes(), body, *length, pause).await {
                        wrong.push(format!("{head:?} (pause {pause}): {error:#}"));
                        let _ = recorder.take();
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    filed.gateway.is_whole().await.unwrap();
}

/// Either it is refused, and with it the connection; or its body arrives as it is and the next request as the next.
async fn play(at: SocketAddr, recorder: &Recorder, head: &[u8], body: &[u8], length: usize, pause: bool) -> Result<()> {
    let mut wire = Wire::new(TcpStream::connect(at).await?);
    wire.send(head).await;
    if pause {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    wire.send(&[body, AFTER].concat()).await;
    let answer = wire.answer(false).await?.context("no answer")?;
    let wanted = if answer.status == 200 {
        let after = wire.answer(false).await?.context("the connection ended before the next request")?;
        ensure!(after.status == 200, "the next request got {after:?}");
        vec![("/ask".to_owned(), length), ("/after".to_owned(), 0)]
    } else {
        ensure!(matches!(answer.status, 400 | 417), "{answer:?}");
        ensure!(answer.field("connection") == Some("close"), "{answer:?} and the connection stays");
        Vec::new()
    };
    ensure!(wire.end().await?.is_empty(), "more answers than requests");
    let arrived = arrived(recorder).await?;
    let seen: Vec<_> = arrived.whole.iter().map(|(head, body)| (head.target.clone(), body.len())).collect();
    ensure!(seen == wanted && arrived.broken.is_empty(), "the server saw {arrived:?}");
    Ok(())
}

/// A server that answers before it has read the body, and then takes whatever comes for the rest of the body, or for the
/// next request: it may, where it was asked whether it wants a body and did not say so.
struct Hasty {
    address: SocketAddr,
    /// What it read that was no request.
    unclean: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Hasty {
    /// `reads`: the body is awaited all the same.
    async fn start(reads: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hasty = Self { address, unclean: Arc::default(), connections: Arc::default() };
        let (unclean, connections) = (hasty.unclean.clone(), hasty.connections.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, SeqCst);
                tokio::spawn(hasty_connection(stream, reads, unclean.clone()));
            }
        });
        hasty
    }
}

async fn hasty_connection(mut stream: TcpStream, reads: bool, unclean: Arc<Mutex<Vec<String>>>) {
    let mut input = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                return;
            }
        };
        let head: Vec<u8> = input.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let script = target.strip_prefix("/early/");
        if script.is_none() && !head.starts_with("GET /number/") {
            unclean.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
        }
        let mut answer = String::new();
        for word in script.unwrap_or("200").split('-') {
            match word {
                "close" => return,
                interim if interim.starts_with('1') => answer += &format!("HTTP/1.1 {interim} Wait\r\n\r\n"),
                last => {
                    answer += &format!("HTTP/1.1 {last} Such\r\ncontent-length: {}\r\n\r\n{target}", target.len());
                }
            }
        }
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        if reads && script.is_some() {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.unwrap_or(0);
            while input.len() < length {
                if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
                    return;
                }
            }
            input.drain(..length);
        }
    }
}

/// Row 9: after each of them, hundreds of requests on pooled connections get their own answers.
#[tokio::test(flavor = "multi_thread")]
async fn early_answers_harm_no_other_request() {
    const SCRIPTS: &[&str] =
        &["200", "417", "404", "500", "401", "100-417", "103-102-403", "100-100-200", "102-500", "close", "103-close"];
    for reads in [false, true] {
        let hasty = Hasty::start(reads).await;
        let at: [SocketAddr; 2] = std::array::from_fn(|_| free());
        let door = |name, at, more| listener(name, at, &manager(json!([to("/", "hasty")]), &[], &more), None);
        let listeners = [door("own", at[0], json!({})), door("passed", at[1], json!({"proxy_100_continue": true}))];
        let filed = Filed::start(GATEWAY, &listeners, &[cluster("hasty", &[hasty.address])]).await.unwrap();
        let mut number = 0;
        let own = at[0];
        for at in at {
            for script in SCRIPTS {
                for expects in [true, false] {
                    // Who asks for a body and then takes it for a request is beyond help.
                    if !reads && (!expects || at == own || script.starts_with("100")) {
                        continue;
                    }
                    for how in [How::Never, How::AtOnce, How::Partly, How::Later] {
                        ask(at, script, expects, how).await;
                        audit(at, &mut number).await;
                    }
                }
            }
        }
        let unclean = hasty.unclean.lock().unwrap().clone();
        // One that does not read bodies takes one for a request at most, and for one whose answer nobody gets.
        assert!(!reads || unclean.is_empty(), "taken for requests: {unclean:#?}");
        assert!(number >= 160, "{number} requests are no audit");
        // Those that may serve again did: the audit went over pooled connections.
        let connections = hasty.connections.load(SeqCst);
        assert!(connections < number / 2, "{connections} connections for {number} requests");
        filed.gateway.is_whole().await.unwrap();
    }
}

/// When the client sends its body.
#[derive(Clone, Copy)]
enum How {
    Never,
    AtOnce,
    Partly,
    Later,
}

async fn ask(at: SocketAddr, script: &str, expects: bool, how: How) {
    let mut wire = Wire::new(TcpStream::connect(at).await.unwrap());
    let expect = if expects { "expect: 100-continue\r\n" } else { "" };
    let head = format!("POST /early/{script} HTTP/1.1\r\nhost: a\r\n{expect}content-length: {}\r\n\r\n", POISON.len());
    let (now, later) = match how {
        How::Never => (&b""[..], &b""[..]),
        How::AtOnce => (POISON, &b""[..]),
        How::Partly => (&POISON[..9], &b""[..]),
        How::Later => (&b""[..], POISON),
    };
    wire.send(&[head.as_bytes(), now].concat()).await;
    let answer = wire.answer(false).await.unwrap().unwrap();
    let wanted = script.rsplit('-').next().unwrap().parse().unwrap_or(503);
    assert_eq!(answer.status, wanted, "{script}: {answer:?}");
    wire.send(later).await;
    if answer.field("connection") != Some("close") {
        assert!(matches!(how, How::AtOnce), "{script}: {answer:?}, and the body is still to come");
    }
    drop(wire);
}

/// Requests one after the other, each with its own answer.
async fn audit(at: SocketAddr, number: &mut usize) {
    let mut wire = Wire::new(TcpStream::connect(at).await.unwrap());
    for _ in 0..5 {
        *number += 1;
        wire.send(format!("GET /number/{number} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
        let answer = wire.answer(false).await.unwrap().unwrap();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!((answer.status, body), (200, format!("/number/{number}")));
    }
}
