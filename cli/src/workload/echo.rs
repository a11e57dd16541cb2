//! The answer: who this workload is and what it received, as JSON, or wrapped in a gRPC message.
//!
//! Owns the shape of the JSON that scripts and tests read. Request bodies are counted, never kept.

use super::{Me, call, query, serve::Caller};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Incoming};
use serde_json::{Map, Value, json};
use std::{convert::Infallible, net::SocketAddr, sync::Arc};

/// Bytes of a request body that are read; the rest is refused.
const BODY_LIMIT: u64 = 64 * 1024 * 1024;

pub(super) type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;

/// Answers one request.
pub(super) async fn answer(
    me: Arc<Me>,
    request: Request<Incoming>,
    caller: Caller,
) -> Result<Response<AnswerBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let grpc = is_grpc(&parts.headers);
    let received = match count(body).await {
        Ok(received) => received,
        Err(reason) => return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, reason)),
    };
    let pairs = query::pairs(parts.uri.query().unwrap_or(""));
    let wishes = match query::wishes(&pairs) {
        Ok(wishes) => wishes,
        Err(reason) => return Ok(plain(StatusCode::BAD_REQUEST, reason)),
    };
    let attempt = attempt(&me, &parts.headers);
    if !wishes.delay.is_zero() {
        tokio::time::sleep(wishes.delay).await;
    }
    let mut called = Vec::new();
    for url in &wishes.calls {
        called.push(call::call(&me, url, &parts.headers).await);
    }
    let mut report = describe(&me, &parts, &pairs, caller.remote);
    if caller.hello.secure {
        report.insert("tls".into(), json!({"server_name": caller.hello.server_name}));
    }
    report.insert("body_bytes".into(), json!(received));
    report.insert("attempt".into(), json!(attempt));
    if !called.is_empty() {
        report.insert("called".into(), Value::Array(called));
    }
    if grpc {
        return Ok(grpc_message(&Value::Object(report)));
    }
    let failing = attempt <= wishes.flaky;
    let asked = if failing { Some(503) } else { wishes.status };
    let status = asked.and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::OK);
    let mut response = match wishes.size {
        Some(size) => plain(status, "x".repeat(size)),
        None => json_body(status, &Value::Object(report)),
    };
    // Lets a caller that only sees headers tell who answered.
    if let Ok(name) = HeaderValue::from_str(&me.name) {
        response.headers_mut().insert("x-tombolo-workload", name);
    }
    Ok(response)
}

fn attempt(me: &Me, headers: &HeaderMap) -> u32 {
    let Some(id) = headers.get("x-request-id").and_then(|v| v.to_str().ok()) else { return 1 };
    me.flaky.lock().map_or(1, |mut attempts| attempts.count(id))
}

fn describe(
    me: &Me,
    parts: &http::request::Parts,
    pairs: &[(String, String)],
    remote: SocketAddr,
) -> Map<String, Value> {
    let host = parts.uri.authority().map(|a| a.as_str().to_owned());
    let host = host.or_else(|| header_text(&parts.headers, &header::HOST)).unwrap_or_default();
    let report = json!({
        "workload": me.name,
        "pod": me.name,
        "namespace": me.namespace,
        "site": me.site,
        "labels": me.labels,
        "service_account": me.service_account,
        "version": me.version,
        "hostname": me.hostname,
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": query_object(pairs),
        "host": host,
        "protocol": protocol(parts),
        "headers": headers_object(&parts.headers),
        "peer": peer(&parts.headers),
        "remote": remote.to_string(),
    });
    match report {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn protocol(parts: &http::request::Parts) -> &'static str {
    match parts.version {
        Version::HTTP_2 if is_grpc(&parts.headers) => "gRPC",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// A repeated name becomes a list, because dropping a value would hide what a proxy did.
fn query_object(pairs: &[(String, String)]) -> Value {
    let mut map = Map::new();
    for (key, value) in pairs {
        push(&mut map, key, value.clone());
    }
    Value::Object(map)
}

fn headers_object(headers: &HeaderMap) -> Value {
    let mut map = Map::new();
    for (name, value) in headers {
        push(&mut map, name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    Value::Object(map)
}

fn push(map: &mut Map<String, Value>, key: &str, value: String) {
    match map.get_mut(key) {
        None => {
            map.insert(key.to_owned(), Value::String(value));
        }
        Some(Value::Array(list)) => list.push(Value::String(value)),
        Some(one) => *one = json!([one.clone(), value]),
    }
}

/// The caller's identity as the sidecar says it: the URI of the last element of `x-forwarded-client-cert`.
pub(super) fn peer(headers: &HeaderMap) -> String {
    let Some(text) = header_text(headers, &http::HeaderName::from_static("x-forwarded-client-cert")) else {
        return String::new();
    };
    let fields = split_quoted(&text, ',').pop().unwrap_or_default();
    let uri = split_quoted(&fields, ';').into_iter().find_map(|field| {
        let (key, value) = field.split_once('=')?;
        key.trim().eq_ignore_ascii_case("uri").then(|| value.trim().trim_matches('"').to_owned())
    });
    uri.unwrap_or_default()
}

/// Splits outside of double quotes.
fn split_quoted(text: &str, at: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        if c == '"' {
            quoted = !quoted;
        }
        if c == at && !quoted {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn header_text(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).collect();
    if values.is_empty() { None } else { Some(values.join(",")) }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"))
}

async fn count(mut body: Incoming) -> Result<u64, String> {
    let mut received = 0;
    if body.is_end_stream() {
        return Ok(0);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("the request body broke off: {e}"))?;
        received += frame.data_ref().map_or(0, |data| data.len() as u64);
        if received > BODY_LIMIT {
            return Err(format!("request bodies end at {BODY_LIMIT} bytes"));
        }
    }
    Ok(received)
}

fn json_body(status: StatusCode, value: &Value) -> Response<AnswerBody> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    with_type(status, "application/json", text.into())
}

fn plain(status: StatusCode, text: String) -> Response<AnswerBody> {
    with_type(status, "text/plain", text.into())
}

fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<AnswerBody> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A unary answer: one message whose field 1 is the JSON as a string, then the status in trailers.
fn grpc_message(value: &Value) -> Response<AnswerBody> {
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut message = BytesMut::with_capacity(text.len() + 16);
    message.put_u8(0x0a);
    put_varint(&mut message, text.len());
    message.put_slice(&text);
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
