//! An HTTP/3 client that plays calls of a table, made of quinn and h3.

use crate::{
    backend::map,
    client::{Facts, Scene, client_config},
    http2::{Got, beside, note, request},
    script::{Call, Case, Piece, Tls},
};
use bytes::{Buf as _, Bytes};
use h3::{
    client::{RequestStream, SendRequest},
    error::StreamError,
};
use h3_quinn::{BidiStream, OpenStreams, RecvStream, SendStream};
use quinn::{ClientConfig, Endpoint, TransportConfig, crypto::rustls::QuicClientConfig};
use serde_json::json;
use std::{cell::Cell, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How long a call waits for its answer, and a connection for its handshake.
const PATIENCE: Duration = Duration::from_secs(6);

type Sending = RequestStream<SendStream<Bytes>, Bytes>;
type Receiving = RequestStream<RecvStream, Bytes>;

/// Plays calls on one connection; gives the client's port.
pub async fn run(scene: Scene<'_>, case: &Case, calls: &[Call], facts: &mut Facts) -> u16 {
    let at = "127.0.0.1:0".parse().expect("an address");
    let Ok(endpoint) = Endpoint::client(at) else { return 0 };
    let port = endpoint.local_addr().map_or(0, |address| address.port());
    let opened = tokio::time::timeout(PATIENCE, open(&endpoint, scene, case)).await;
    let (connection, mut sender, driver) = match opened {
        Ok(Ok(opened)) => opened,
        other => {
            let why = other.map_or_else(|_| "quiet".to_owned(), |failed| failed.err().unwrap_or_default());
            facts.insert("connect".into(), json!(why));
            return port;
        }
    };
    let mut open = Vec::new();
    for (n, call) in calls.iter().enumerate() {
        let prefix = if n == 0 { "answer".to_owned() } else { format!("answer{}", n + 1) };
        for piece in &call.before {
            scene.change(piece).await;
        }
        match sender.send_request(request(call, "https", scene.tag)).await {
            Ok(begun) if call.together => open.push((prefix, call, begun)),
            Ok(begun) => finish(scene, call, begun, &prefix, facts).await,
            Err(error) => note(scene.place, facts, &prefix, Err(word(&error))),
        }
    }
    for (prefix, call, begun) in open {
        finish(scene, call, begun, &prefix, facts).await;
    }
    tokio::time::sleep(Duration::from_millis(130)).await;
    facts.insert("connection".into(), json!(if connection.close_reason().is_some() { "closed" } else { "open" }));
    driver.abort();
    endpoint.close(0x100_u32.into(), b"");
    port
}

type Opened = (quinn::Connection, SendRequest<OpenStreams, Bytes>, tokio::task::JoinHandle<()>);

async fn open(endpoint: &Endpoint, scene: Scene<'_>, case: &Case) -> Result<Opened, String> {
    let tls = case.tls.clone().unwrap_or(Tls { sni: "svc.test", ..Tls::default() });
    let config = client_config(&Tls { alpn: vec!["h3"], only: Some(13), ..tls.clone() });
    let config = QuicClientConfig::try_from(config).map_err(|error| error.to_string())?;
    let mut config = ClientConfig::new(Arc::new(config));
    // Plain packets, as any client may send them.
    let mut transport = TransportConfig::default();
    transport.enable_segmentation_offload(false).mtu_discovery_config(None);
    config.transport_config(Arc::new(transport));
    let connecting =
        endpoint.connect_with(config, scene.place.listener(case.on), tls.sni).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|_| "failed".to_owned())?;
    let (mut driver, sender) =
        h3::client::new(h3_quinn::Connection::new(connection.clone())).await.map_err(|_| "no HTTP/3".to_owned())?;
    let driver = tokio::spawn(async move {
        std::future::poll_fn(|cx| driver.poll_close(cx)).await;
    });
    Ok((connection, sender, driver))
}

async fn finish(
    scene: Scene<'_>,
    call: &Call,
    begun: RequestStream<BidiStream<Bytes>, Bytes>,
    prefix: &str,
    facts: &mut Facts,
) {
    let (mut sending, receiving) = begun.split();
    let (seen, progress, cancelled) = (Cell::new(0), Notify::new(), Notify::new());
    let send = async {
        for piece in &call.body {
            if matches!(piece, Piece::Reset(_)) {
                cancelled.notify_one();
            }
            if !play(scene, piece, &mut sending, &seen, &progress).await {
                return;
            }
        }
        let _ = sending.finish().await;
    };
    let receive = async {
        let mut receiving = receiving;
        let received = tokio::select! {
            received = tokio::time::timeout(PATIENCE, receive(&mut receiving, scene, &seen, &progress)) => Some(received),
            () = cancelled.notified() => None,
        };
        match received {
            Some(received) => received.unwrap_or_else(|_| Err("quiet".to_owned())),
            // Who wants no answer says so on both halves: dropping this one does.
            None => {
                drop(receiving);
                Err("cancelled".to_owned())
            }
        }
    };
    let received = beside(send, receive).await;
    note(scene.place, facts, prefix, received);
}

async fn play(scene: Scene<'_>, piece: &Piece, stream: &mut Sending, seen: &Cell<usize>, progress: &Notify) -> bool {
    match piece {
        Piece::Data(bytes) => return stream.send_data(bytes.clone().into()).await.is_ok(),
        Piece::Sleep(_) | Piece::Remove(..) | Piece::Put(_) => scene.change(piece).await,
        Piece::Await(n) => {
            while seen.get() < *n {
                progress.notified().await;
            }
        }
        Piece::Trailers(fields) => return stream.send_trailers(map(fields)).await.is_ok(),
        Piece::End => {}
        Piece::Reset(code) => {
            stream.stop_stream(u64::from(*code).into());
            return false;
        }
    }
    true
}

async fn receive(
    stream: &mut Receiving,
    scene: Scene<'_>,
    seen: &Cell<usize>,
    progress: &Notify,
) -> Result<Got, String> {
    let (parts, ()) = stream.recv_response().await.map_err(|error| word(&error))?.into_parts();
    let (status, headers) = (parts.status.as_u16(), parts.headers);
    let mut got = Got { status, headers, body: Vec::new(), trailers: None, broken: None };
    loop {
        match stream.recv_data().await {
            Ok(Some(mut data)) => {
                got.body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                seen.set(got.body.len());
                scene.stage.has_some();
                progress.notify_one();
            }
            Ok(None) => break,
            Err(error) => {
                got.broken = Some(word(&error));
                return Ok(got);
            }
        }
    }
    match stream.recv_trailers().await {
        Ok(trailers) => got.trailers = trailers,
        Err(error) => got.broken = Some(word(&error)),
    }
    Ok(got)
}

/// An error of a stream in a word.
fn word(error: &StreamError) -> String {
    match error {
        StreamError::RemoteTerminate { code, .. } => format!("stream reset: {code}"),
        StreamError::StreamError { code, .. } => format!("stream: {code}"),
        _ => "connection".to_owned(),
    }
}
