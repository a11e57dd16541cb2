//! Requests to become something else, with bytes behind them in the same segment: rows 2, 3 and 4 of the attack catalogue
//! (bytes forwarded before the server agreed, early bytes after CONNECT, answers other than the agreement).
//!
//! Whatever the server answers, it has seen one request; what lay behind it arrives only once the server agreed, as bytes.

use crate::{POISON, serve};
use anyhow::{Context as _, Result, bail, ensure};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tombolo_controlplane_api::util::pack_any;
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    gateway::Gateway,
    resources,
    scripted::Scripted,
    wire1::Wire,
    wire2::{DATA, END_STREAM, Wire2, fields, frame},
};

/// What the server does, and what an HTTP/1 client sees of it.
const SCRIPTS: &[(&str, u16)] = &[
    ("101", 101),
    ("103 101", 101),
    ("200", 200),
    ("103 200", 200),
    ("100 102 404", 404),
    ("chunked", 200),
    ("until-close close", 200),
    ("204", 204),
    ("404", 404),
    ("426", 426),
    ("500", 500),
    ("nothing", 504),
    ("103", 504),
    ("close", 503),
    ("103 close", 503),
    ("garbage", 502),
];

struct World {
    gateway: Gateway,
    at: SocketAddr,
    origin: Scripted,
    _ads: tombolo_tests_kit::ads::Ads,
}

impl World {
    async fn start() -> Self {
        let (at, origin) = (free(), Scripted::start().await.unwrap());
        let (gateway, _ads) = serve(vec![
            pack_any(resources::raw_cluster("origin", resources::tcp_address(origin.address))),
            resources::plain_listener("door", at, resources::tunnels("origin")),
        ])
        .await;
        Self { gateway, at, origin, _ads }
    }

    /// Notes what went wrong with a case.
    fn note(&self, wrong: &mut Vec<String>, case: &str, played: Result<()>) {
        if let Err(error) = played {
            wrong.push(format!("{case}: {error:#}"));
            self.origin.forget();
        }
    }

    /// Nothing went wrong, in the gateway either.
    async fn end(self, wrong: Vec<String>) {
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        self.gateway.is_whole().await.unwrap();
    }

    /// What the server may have heard: one request, and the poison only as bytes that it agreed to.
    async fn judge(&self, agreed: bool) -> Result<()> {
        let heard = self.origin.heard_at_last().await;
        self.origin.forget();
        let [one] = &heard[..] else { bail!("{} connections: {heard:?}", heard.len()) };
        ensure!(one.early.is_empty(), "before it agreed the server heard {}", one.early.escape_ascii());
        ensure!(!one.head.contains("poison"), "{}", one.head);
        let wanted = if agreed { POISON } else { b"" };
        ensure!(one.late == wanted, "after its answer the server heard {}", one.late.escape_ascii());
        Ok(())
    }
}

async fn version1(world: &World, head: &str, script: &str, status: u16) -> Result<()> {
    let mut wire = Wire::new(TcpStream::connect(world.at).await?);
    let head = format!("{head}\r\nhost: origin.test:80\r\nx-script: {script}\r\n");
    wire.send(&[format!("{head}\r\n").as_bytes(), POISON].concat()).await;
    let agreed = is_agreed(&head, status);
    let answer = wire.answer(agreed).await?.context("no answer")?;
    ensure!(answer.status == status, "{answer:?} instead of {status}");
    if agreed {
        // Both sides are bytes now: the end is passed on, and nothing is answered.
        let rest = wire.end().await?;
        ensure!(!rest.starts_with(b"HTTP/1"), "more came: {}", rest.escape_ascii());
        ensure!(answer.field("content-length").is_none() && answer.field("transfer-encoding").is_none(), "{answer:?}");
    } else {
        let rest = wire.rest().await?;
        ensure!(rest.is_empty(), "the connection went on: {}", rest.escape_ascii());
    }
    world.judge(agreed).await
}

/// A server agrees to CONNECT with any success, to everything else with a 101.
fn is_agreed(head: &str, status: u16) -> bool {
    if head.starts_with("CONNECT ") { (200..300).contains(&status) } else { status == 101 }
}

/// Rows 2 and 4: `Upgrade`, with and without a body, and a second request in the same segment.
#[tokio::test(flavor = "multi_thread")]
async fn upgrades_carry_nothing_before_the_server_agreed() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    let ask = "GET /ask HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13";
    let other = "GET /ask HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: connect-udp";
    for (script, status) in SCRIPTS {
        for head in [ask, other] {
            let played = version1(&world, head, script, *status).await;
            world.note(&mut wrong, &format!("{head:?} {script}"), played);
        }
    }
    world.end(wrong).await;
}

/// Row 3: CONNECT, and a second request in the same segment.
#[tokio::test(flavor = "multi_thread")]
async fn connect_carries_nothing_before_the_server_agreed() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for (script, status) in SCRIPTS {
        let status = match *script {
            // There was nothing to switch to.
            "101" | "103 101" => 502,
            // A tunnel that ends at once is one.
            "until-close close" => continue,
            _ => *status,
        };
        let played = version1(&world, "CONNECT origin.test:80 HTTP/1.1", script, status).await;
        world.note(&mut wrong, script, played);
    }
    world.end(wrong).await;
}

/// What nobody allowed to become something else, or what says that it has a body besides, brings no second request
/// either.
#[tokio::test(flavor = "multi_thread")]
async fn refused_upgrades_end_the_connection() {
    let world = World::start().await;
    for kind in ["tls/1.3", "foo", "h2c, foo", "websocket, foo"] {
        let mut wire = Wire::new(TcpStream::connect(world.at).await.unwrap());
        let head =
            format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {kind}\r\nx-script: 200\r\n\r\n");
        wire.send(&[head.as_bytes(), POISON].concat()).await;
        assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 403, "{kind}");
        assert_eq!(wire.rest().await.unwrap(), b"", "{kind}");
        assert!(world.origin.heard().is_empty(), "{kind}: {:?}", world.origin.heard());
    }
    let length = POISON.len();
    for framing in [format!("content-length: {length}"), "transfer-encoding: chunked".into()] {
        for script in ["101", "200", "404", "nothing", "close"] {
            let mut wire = Wire::new(TcpStream::connect(world.at).await.unwrap());
            let head = format!(
                "POST / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n{framing}\r\nx-script: {script}\r\n\r\n"
            );
            let chunk = format!("{length:x}\r\n").into_bytes();
            let body = if framing.starts_with('c') {
                POISON.to_vec()
            } else {
                [&chunk[..], POISON, b"\r\n0\r\n\r\n"].concat()
            };
            wire.send(&[head.as_bytes(), &body, POISON].concat()).await;
            let answer = wire.answer(false).await.unwrap().unwrap();
            let rest = if answer.status == 101 { wire.end().await } else { wire.rest().await }.unwrap();
            assert_eq!(rest, b"", "{framing}, {script}: more than {answer:?}");
            let silent = answer.status == 504;
            let heard = if silent { world.origin.heard_at_last().await } else { world.origin.heard() };
            world.origin.forget();
            let early: Vec<_> = heard.iter().filter(|heard| !heard.early.is_empty()).collect();
            assert!(heard.len() <= 1 && early.is_empty(), "{framing}, {script}: {heard:?}");
            // A length that is passed on without its body would make the server take the next bytes for it.
            let framed = heard.iter().any(|h| h.head.contains("content-length: 37") || h.head.contains("chunked"));
            let agreed = answer.status == 101;
            assert!(agreed || heard.iter().all(|h| h.late.is_empty()), "{framing}, {script}: {heard:?}");
            assert!(!framed, "{framing}, {script}: {heard:?}");
        }
    }
    world.gateway.is_whole().await.unwrap();
}

/// Rows 3 and 4: extended CONNECT and CONNECT over HTTP/2 with data that does not wait for the answer.
#[tokio::test(flavor = "multi_thread")]
async fn streams_carry_nothing_before_the_server_agreed() {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for (script, status) in SCRIPTS {
        for extended in [true, false] {
            for end in [true, false] {
                if !extended && script.starts_with("until-close") {
                    continue;
                }
                let played = version2(&world, script, *status, extended, end).await;
                world.note(&mut wrong, &format!("{script} (extended {extended}, ends {end})"), played);
            }
        }
    }
    world.end(wrong).await;
}

async fn version2(world: &World, script: &str, status: u16, extended: bool, end: bool) -> Result<()> {
    let mut wire = Wire2::open(world.at).await?;
    let plain = [(":method", "CONNECT"), (":authority", "origin.test:80")];
    let more = [(":scheme", "http"), (":path", "/ask"), (":protocol", "websocket"), ("sec-websocket-version", "13")];
    let head = if extended { [&plain[..], &more].concat() } else { plain.to_vec() };
    wire.head(1, &fields(&[&head[..], &[("x-script", script)]].concat()), false).await;
    wire.send(&frame(DATA, if end { END_STREAM } else { 0 }, 1, POISON)).await;
    wire.until(|wire| wire.fates.get(&1).is_some_and(|fate| fate.status.is_some() || fate.reset.is_some())).await?;
    let fate = wire.fates.get(&1).cloned().unwrap_or_default();
    let agreed = if extended { status == 101 } else { (200..300).contains(&status) };
    let wanted = match status {
        101 if extended => 200,
        101 => 502,
        other => other,
    };
    ensure!(fate.status == Some(wanted), "{fate:?} instead of {wanted}");
    if agreed {
        if !end {
            wire.send(&frame(DATA, END_STREAM, 1, b"")).await;
        }
        // The server hangs up when it heard the end.
        wire.fate(1).await?;
    } else {
        let fate = wire.fate(1).await?;
        ensure!(fate.whole || fate.reset.is_some(), "the stream goes on: {fate:?}");
    }
    world.judge(agreed).await
}
