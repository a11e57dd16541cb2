//! Work in crumbs: row 11 of the attack catalogue (bodies in chunks of one byte, answers of the gateway's own that nobody
//! reads). `TOMBOLO_FLOOD` multiplies how many.

use crate::GATEWAY;
use serde_json::json;
use std::time::Duration;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tombolo_tests_kit::free;
use tombolo_tests_protocols::{
    files::{Filed, cluster, listener, manager, to},
    flood,
    recorder::Recorder,
    wire1::Wire,
    world::{Probe, arrived},
};

/// Memory that one client may cost.
const MOST: u64 = 12 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn crumbs_and_unread_answers_cost_little() {
    let recorder = Recorder::http1().await.unwrap();
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = free();
    let routes = json!([to("/deaf", "deaf"), to("/probe", "ok"), to("/ok", "ok")]);
    let clusters = [cluster("ok", &[recorder.address]), cluster("deaf", &[deaf.local_addr().unwrap()])];
    let listeners = [listener("door", at, &manager(routes, &[], &json!({})), None)];
    let filed = Filed::start(GATEWAY, &listeners, &clusters).await.unwrap();
    let gateway = &filed.gateway;
    let mut probe = Probe::open(at).await.unwrap();
    probe.ask().await.unwrap();

    // A body in chunks of one byte arrives whole.
    let count = 100_000 * flood::scale();
    let mut wire = Wire::new(TcpStream::connect(at).await.unwrap());
    wire.send(b"POST /ok HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let before = gateway.most_memory().unwrap();
    wire.send(&[b"1\r\nx\r\n".repeat(count), b"0\r\n\r\n".to_vec()].concat()).await;
    assert_eq!(wire.answer(false).await.unwrap().unwrap().status, 200);
    let body = arrived(&recorder).await.unwrap().whole.pop().unwrap().1;
    assert!(body == b"x".repeat(count), "{} bytes arrived", body.len());
    let grown = gateway.most_memory().unwrap().saturating_sub(before);
    println!("{count} chunks of one byte: {} KiB more", grown >> 10);
    assert!(grown < MOST, "{count} chunks of one byte: {grown} bytes more");

    // The same to a server that reads nothing: what can be sent stays bounded.
    let mut wire = TcpStream::connect(at).await.unwrap();
    wire.write_all(b"POST /deaf HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let before = gateway.most_memory().unwrap();
    let sent = until_full(&mut wire, b"1\r\nx\r\n", count * 20).await;
    probe.ask().await.unwrap();
    let grown = gateway.most_memory().unwrap().saturating_sub(before);
    println!("{sent} bytes of chunks that nobody reads: {} KiB more", grown >> 10);
    assert!(grown < MOST, "{sent} bytes of chunks: {grown} bytes more");
    drop(wire);

    // Requests that are answered here, by a client that reads nothing.
    let mut wire = TcpStream::connect(at).await.unwrap();
    let before = gateway.most_memory().unwrap();
    let request = b"GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n";
    let sent = until_full(&mut wire, request, count * request.len());
    let (sent, ()) = tokio::join!(sent, async {
        for _ in 0..20 {
            probe.ask().await.unwrap();
        }
    });
    let grown = gateway.most_memory().unwrap().saturating_sub(before);
    println!("{} requests of {count} were taken with answers unread: {} KiB more", sent / request.len(), grown >> 10);
    assert!(grown < MOST, "{sent} bytes of requests: {grown} bytes more");
    probe.ask().await.unwrap();
    gateway.is_whole().await.unwrap();
}

/// Sends a piece over and over until that many bytes are out, or nothing moves any more; how many went out.
async fn until_full(wire: &mut TcpStream, piece: &[u8], most: usize) -> usize {
    let pieces = piece.repeat((64 << 10) / piece.len());
    let mut sent = 0;
    while sent < most {
        match timeout(Duration::from_millis(500), wire.write(&pieces)).await {
            // Pieces that are cut would change what is sent.
            Ok(Ok(count)) => {
                sent += count;
                let rest = count % piece.len();
                if rest != 0 && timeout(Duration::from_millis(500), wire.write_all(&piece[rest..])).await.is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    sent
}
