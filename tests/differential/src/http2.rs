//! An HTTP/2 client that plays calls of a table.

use crate::{
    backend::{brief, collect, map, send, why},
    client::{Facts, Scene, plain_fields},
    http1::Duplex,
    place::Place,
    script::{Call, Piece},
    tap::{Tap, Watch},
};
use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{ResponseFuture, SendRequest},
    ext::Protocol,
};
use http::{HeaderMap, HeaderName, Method, Request, Response, Uri};
use serde_json::{Value, json};
use std::time::Duration;

/// How long a call waits for its answer.
const PATIENCE: Duration = Duration::from_secs(6);

/// How long the first bytes of a body are waited for, so that they leave with the head.
const HELD: Duration = Duration::from_millis(300);

/// How long a request is sent after its answer is over.
const AFTER: Duration = Duration::from_secs(2);

struct Player<'a> {
    scene: Scene<'a>,
    watch: Watch,
}

/// Plays calls on one connection.
pub async fn run(scene: Scene<'_>, stream: Box<dyn Duplex>, calls: &[Call], facts: &mut Facts) {
    let watch = Watch::default();
    let stream = Tap::new(stream, watch.clone());
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false);
    let Ok((mut client, connection)) = builder.handshake::<_, Bytes>(stream).await else {
        facts.insert("connection".into(), json!("no handshake"));
        return;
    };
    let mut driver = tokio::spawn(connection);
    let player = Player { scene, watch };
    let mut open = Vec::new();
    for (n, call) in calls.iter().enumerate() {
        let prefix = if n == 0 { "answer".to_owned() } else { format!("answer{}", n + 1) };
        match player.begin(&mut client, call).await {
            Ok(begun) if call.together => open.push((prefix, call, begun)),
            Ok(begun) => player.finish(call, begun, &prefix, facts).await,
            Err(error) => {
                facts.insert(prefix, json!(error));
            }
        }
    }
    for (prefix, call, begun) in open {
        player.finish(call, begun, &prefix, facts).await;
    }
    let ended = tokio::time::timeout(Duration::from_millis(130), &mut driver).await;
    let ended = match ended {
        Err(_) => "open",
        Ok(Ok(Ok(()))) => "closed",
        Ok(_) => "failed",
    };
    facts.insert("connection".into(), json!(ended));
    facts.insert("goaways".into(), json!(player.watch.goaways()));
    driver.abort();
}

type Begun = (ResponseFuture, h2::SendStream<Bytes>);

impl Player<'_> {
    async fn begin(&self, client: &mut SendRequest<Bytes>, call: &Call) -> Result<Begun, String> {
        for piece in &call.before {
            self.scene.change(piece).await;
        }
        let ready = tokio::time::timeout(PATIENCE, std::future::poll_fn(|cx| client.poll_ready(cx))).await;
        ready.map_err(|_| "quiet".to_owned())?.map_err(|e| word(&e))?;
        if !call.protocol.is_empty() {
            // Whether extended CONNECT may be used is known once the settings are there.
            for _ in 0..100 {
                if client.is_extended_connect_protocol_enabled() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let end = call.body.is_empty() && call.protocol.is_empty() && call.method != "CONNECT";
        if matches!(call.body.first(), Some(Piece::Data(_))) {
            self.watch.hold();
            let watch = self.watch.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HELD).await;
                watch.release();
            });
        }
        client.send_request(request(call, "http", self.scene.tag), end).map_err(|e| word(&e))
    }

    async fn finish(&self, call: &Call, (response, mut stream): Begun, prefix: &str, facts: &mut Facts) {
        // The answer may come before the request is over: both go on at once.
        let (seen, progress) = (std::cell::Cell::new(0usize), tokio::sync::Notify::new());
        let sending = async {
            for piece in &call.body {
                if !self.piece(piece, &mut stream, &seen, &progress).await {
                    break;
                }
            }
        };
        let receiving = async { tokio::time::timeout(PATIENCE, receive(response, self.scene, &seen, &progress)).await };
        let received = beside(sending, receiving).await;
        match received {
            Err(_) => note(self.scene.place, facts, prefix, Err("quiet".to_owned())),
            Ok(outcome) => note(self.scene.place, facts, prefix, outcome),
        }
    }

    async fn piece(
        &self,
        piece: &Piece,
        stream: &mut h2::SendStream<Bytes>,
        seen: &std::cell::Cell<usize>,
        progress: &tokio::sync::Notify,
    ) -> bool {
        match piece {
            Piece::Data(bytes) => return send(stream, bytes.clone().into(), false).await,
            Piece::Sleep(_) | Piece::Remove(..) | Piece::Put(_) => self.scene.change(piece).await,
            Piece::Await(n) => {
                while seen.get() < *n {
                    progress.notified().await;
                }
            }
            Piece::Trailers(fields) => return stream.send_trailers(map(fields)).is_ok(),
            Piece::End => return stream.send_data(Bytes::new(), true).is_ok(),
            Piece::Reset(code) => stream.send_reset(Reason::from(*code)),
        }
        true
    }
}

/// The head of a call.
pub(crate) fn request(call: &Call, scheme: &str, tag: &str) -> Request<()> {
    let method = if call.method.is_empty() { "GET" } else { call.method };
    let authority = if call.authority.is_empty() { "svc.test" } else { call.authority };
    let uri = if call.path.is_empty() {
        Uri::builder().authority(authority).build()
    } else {
        Uri::builder().scheme(scheme).authority(authority).path_and_query(call.path).build()
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).expect("a method of a table is one");
    *request.uri_mut() = uri.expect("a path of a table is one");
    request.headers_mut().insert("x-case", tag.parse().expect("a tag is a value"));
    for (name, value) in &call.headers {
        let name: HeaderName = name.parse().expect("a name of a table is one");
        request.headers_mut().append(name, value.parse().expect("a value of a table is one"));
    }
    if !call.protocol.is_empty() {
        request.extensions_mut().insert(Protocol::from(call.protocol));
    }
    request
}

/// Sends and receives at once. What waits for more of an answer that is over would wait for ever, so sending gets little time
/// after it.
pub(crate) async fn beside<T>(sending: impl Future<Output = ()>, receiving: impl Future<Output = T>) -> T {
    let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
    tokio::select! {
        received = &mut receiving => {
            let _ = tokio::time::timeout(AFTER, sending).await;
            received
        }
        () = &mut sending => receiving.await,
    }
}

fn word(error: &h2::Error) -> String {
    why(error)
}

/// An answer.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) broken: Option<String>,
}

/// Writes an answer down.
pub(crate) fn note(place: &Place, facts: &mut Facts, prefix: &str, outcome: Result<Got, String>) {
    let mut put = |name: &str, value: Value| facts.insert(format!("{prefix}.{name}"), value);
    let fields = |map: &HeaderMap| {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let list: Vec<(String, String)> = map.iter().map(|(n, v)| (n.to_string(), text(v))).collect();
        plain_fields(place, &list)
    };
    let got = match outcome {
        Ok(got) => got,
        Err(error) => {
            put("broken", json!(error));
            return;
        }
    };
    put("line", json!(got.status));
    put("headers", fields(&got.headers));
    put("body", json!(place.plain(&brief(&got.body))));
    if let Some(trailers) = &got.trailers {
        put("trailers", fields(trailers));
    }
    if let Some(broken) = &got.broken {
        put("broken", json!(broken));
    }
}

async fn receive(
    response: ResponseFuture,
    scene: Scene<'_>,
    seen: &std::cell::Cell<usize>,
    progress: &tokio::sync::Notify,
) -> Result<Got, String> {
    let response: Response<RecvStream> = response.await.map_err(|e| word(&e))?;
    let (parts, mut body) = response.into_parts();
    let mut got =
        Got { status: parts.status.as_u16(), headers: parts.headers, body: Vec::new(), trailers: None, broken: None };
    while let Some(chunk) = body.data().await {
        match chunk {
            Ok(chunk) => {
                let _ = body.flow_control().release_capacity(chunk.len());
                got.body.extend_from_slice(&chunk);
                seen.set(got.body.len());
                scene.stage.has_some();
                progress.notify_one();
            }
            Err(error) => {
                got.broken = Some(word(&error));
                return Ok(got);
            }
        }
    }
    let rest = collect(&mut body).await;
    got.trailers = rest.trailers;
    got.broken = rest.broken;
    Ok(got)
}
