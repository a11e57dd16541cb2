//! A backend that speaks HTTP/2.

use super::{Connection, Seen, Stage, brief, note};
use crate::script::{Act, End, Fields};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, task::JoinSet};

/// Serves one connection.
pub(super) async fn serve(connection: Connection) {
    let Connection { backend, stage, stream, facts, .. } = connection;
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let Ok(mut server) = builder.handshake::<_, Bytes>(stream).await else { return };
    let (mut calls, leaving) = (JoinSet::new(), Arc::new(Notify::new()));
    loop {
        let (request, respond) = tokio::select! {
            next = server.accept() => match next {
                Some(Ok(next)) => next,
                _ => return,
            },
            () = leaving.notified() => {
                server.graceful_shutdown();
                continue;
            }
        };
        if super::health::is_check(&request) {
            calls.spawn(super::health::version2((backend, stage.clone()), request, respond));
            continue;
        }
        let tag = request.headers().get("x-case").and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (act, seen) = stage.take(backend, tag.as_deref());
        seen.lock().expect("nobody panics with it").extend(facts.clone());
        if act.end == End::GoAway {
            leaving.notify_one();
        }
        calls.spawn(one((backend, stage.clone()), request, respond, act, seen));
    }
}

async fn one(
    (backend, stage): (u16, Arc<Stage>),
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    act: Act,
    seen: Seen,
) {
    let (parts, mut body) = request.into_parts();
    let protocol = parts.extensions.get::<h2::ext::Protocol>().map(|p| p.as_str().to_owned());
    let line = format!("{} {} HTTP/2", parts.method, parts.uri.path_and_query().map_or("", |p| p.as_str()));
    note(&seen, "line", json!(line));
    note(&seen, "scheme", json!(parts.uri.scheme_str()));
    note(&seen, "authority", json!(parts.uri.authority().map(ToString::to_string)));
    note(&seen, "protocol", json!(protocol));
    note(&seen, "headers", fields(&parts.headers));
    if act.echo || protocol.is_some() || parts.method == http::Method::CONNECT {
        return echo(body, &mut respond, &act, &seen).await;
    }
    let outcome = collect(&mut body).await;
    note(&seen, "body", json!(brief(&outcome.body)));
    note(&seen, "trailers", outcome.trailers.as_ref().map_or(json!([]), fields));
    if let Some(broken) = outcome.broken {
        note(&seen, "broken", json!(broken));
        return;
    }
    let waited = tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(act.delay)) => None,
        reset = std::future::poll_fn(|cx| respond.poll_reset(cx)) => Some(reset),
    };
    if let Some(reset) = waited {
        note(&seen, "broken", json!(reset.map_or_else(|_| "connection".into(), |r| format!("{r:?}"))));
        return;
    }
    let head = parts.method == http::Method::HEAD;
    answer((backend, &stage), &mut respond, &act, head).await;
}

/// What came of a body.
pub(crate) struct Collected {
    /// Its bytes.
    pub(crate) body: Vec<u8>,
    /// Its trailers.
    pub(crate) trailers: Option<HeaderMap>,
    /// Why it is not whole.
    pub(crate) broken: Option<String>,
}

/// Reads a body to its end.
pub(crate) async fn collect(stream: &mut RecvStream) -> Collected {
    let mut outcome = Collected { body: Vec::new(), trailers: None, broken: None };
    while let Some(chunk) = stream.data().await {
        match chunk {
            Ok(chunk) => {
                let _ = stream.flow_control().release_capacity(chunk.len());
                outcome.body.extend_from_slice(&chunk);
            }
            Err(error) => {
                outcome.broken = Some(why(&error));
                return outcome;
            }
        }
    }
    match stream.trailers().await {
        Ok(trailers) => outcome.trailers = trailers,
        Err(error) => outcome.broken = Some(why(&error)),
    }
    outcome
}

/// An error of a stream in a word.
pub(crate) fn why(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_reset() => format!("stream reset: {reason:?}"),
        _ => "connection".to_owned(),
    }
}

fn fields(map: &HeaderMap) -> Value {
    map.iter().map(|(n, v)| json!([n.as_str(), String::from_utf8_lossy(v.as_bytes())])).collect()
}

/// Fields of a table as they are sent.
pub(crate) fn map(list: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        map.append(*name, value.parse().expect("values of the tables are values"));
    }
    map
}

async fn answer((backend, stage): (u16, &Stage), respond: &mut SendResponse<Bytes>, act: &Act, head: bool) {
    if let End::ResetStream(code) = act.end {
        return respond.send_reset(Reason::from(code));
    }
    let mut response = Response::new(());
    *response.status_mut() = act.status.unwrap_or(200).try_into().expect("a status of a table is one");
    *response.headers_mut() = map(&act.headers);
    let body = act.body.clone().unwrap_or_else(|| format!("b{backend}").into_bytes());
    if head {
        let _ = respond.send_response(response, true);
        return;
    }
    if act.trailers_only {
        response.headers_mut().extend(map(&act.trailers));
        let _ = respond.send_response(response, true);
        return;
    }
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    tokio::time::sleep(Duration::from_millis(act.body_delay)).await;
    let last = act.trailers.is_empty() && !matches!(act.end, End::ResetStreamInBody(_));
    if !send(&mut stream, body.into(), last).await {
        return;
    }
    if let End::ResetStreamInBody(code) = act.end {
        tokio::time::sleep(Duration::from_millis(30)).await;
        stage.until_it_has_some().await;
        stream.send_reset(Reason::from(code));
    } else if !last {
        let _ = stream.send_trailers(map(&act.trailers));
    }
}

/// Sends bytes as the window allows; false when the stream is gone.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes, last: bool) -> bool {
    if bytes.is_empty() {
        return stream.send_data(bytes, last).is_ok();
    }
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return false };
        let part = bytes.split_to(room.min(bytes.len()));
        let end = last && bytes.is_empty();
        if stream.send_data(part, end).is_err() {
            return false;
        }
    }
    true
}

async fn echo(mut body: RecvStream, respond: &mut SendResponse<Bytes>, act: &Act, seen: &Seen) {
    let mut response = Response::new(());
    *response.status_mut() = act.status.unwrap_or(200).try_into().expect("a status of a table is one");
    *response.headers_mut() = map(&act.headers);
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let mut received = Vec::new();
    while let Some(chunk) = body.data().await {
        match chunk {
            Ok(chunk) => {
                let _ = body.flow_control().release_capacity(chunk.len());
                received.extend_from_slice(&chunk);
                note(seen, "body", json!(brief(&received)));
                if !send(&mut stream, chunk.to_ascii_uppercase().into(), false).await {
                    return;
                }
            }
            Err(error) => return note(seen, "broken", json!(why(&error))),
        }
    }
    let trailers = body.trailers().await.ok().flatten();
    note(seen, "trailers", trailers.as_ref().map_or(json!([]), fields));
    if act.trailers.is_empty() {
        let _ = stream.send_data(Bytes::from_static(b"<end>"), true);
    } else {
        let _ = stream.send_trailers(map(&act.trailers));
    }
}
