//! Calls that the stand-in makes on behalf of a request: through its sidecar, with the request's trace and baggage.
//!
//! Owns which headers travel on. Never fails the request it serves: a failed call is part of the answer.

use super::Me;
use crate::http::{Answer, Ask, ask, chain};
use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// Headers that keep a trace together; user-given headers and credentials stay behind.
const FORWARDED: [&str; 8] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-request-id",
    "x-ot-span-context",
    "x-cloud-trace-context",
    "grpc-trace-bin",
];

/// The headers that travel on.
pub(super) fn forwarded(from: &HeaderMap) -> HeaderMap {
    from.iter()
        .filter(|(name, _)| FORWARDED.contains(&name.as_str()) || name.as_str().starts_with("x-b3-"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Calls a URL and says what came of it.
pub(super) async fn call(me: &Me, url: &str, headers: &HeaderMap) -> Value {
    match attempt(me, url, headers).await {
        Ok(answer) => {
            let body = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Value::String(answer.text()));
            json!({"url": url, "status": answer.status.as_u16(), "answer": body})
        }
        Err(reason) => json!({"url": url, "status": 0, "error": reason}),
    }
}

async fn attempt(me: &Me, url: &str, headers: &HeaderMap) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(|e| format!("{url:?} is not a URL: {e}"))?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{url:?}: only http:// URLs are called; TLS is the sidecar's work"));
    }
    let (to, uri) = match me.http_proxy {
        Some(proxy) => (proxy, uri),
        None => (resolve(&uri).await?, uri),
    };
    let mut request = Ask::get(to, uri);
    request.headers = forwarded(headers);
    request.deadline = Duration::from_secs(60);
    if me.http_proxy.is_none() {
        // Straight to a server: the path alone, and the authority as Host.
        if let Some(authority) = request.uri.authority()
            && let Ok(value) = http::HeaderValue::from_str(authority.as_str())
        {
            request.headers.insert(http::header::HOST, value);
        }
        let path = request.uri.path_and_query().map_or("/", |p| p.as_str());
        request.uri = path.parse().map_err(|e| format!("{url:?}: {e}"))?;
    }
    ask(request).await.map_err(|e| chain(&e))
}

async fn resolve(uri: &Uri) -> Result<SocketAddr, String> {
    let host = uri.host().ok_or_else(|| "the URL has no host".to_owned())?;
    let port = uri.port_u16().unwrap_or(80);
    let mut found = tokio::net::lookup_host((host, port)).await.map_err(|e| format!("{host}: {e}"))?;
    found.next().ok_or_else(|| format!("{host}: no address"))
}
