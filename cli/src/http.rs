//! One HTTP request, one answer: the little client that readiness probes, status, checks and stand-in workloads share.
//!
//! Owns a connection only for the length of one request, bounds every answer and gives every request a deadline.
//! Never follows redirects and never speaks TLS: whoever needs TLS here has a sidecar for it.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// Largest answer that is read.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// What to ask.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    /// Where to connect.
    pub(crate) to: SocketAddr,
    /// The method.
    pub(crate) method: Method,
    /// A path, or an absolute URI when `to` is a proxy.
    pub(crate) uri: Uri,
    /// Headers; `host` is added from the URI or the address when absent.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// Until the last byte of the answer.
    pub(crate) deadline: Duration,
    /// HTTP/2 with prior knowledge instead of HTTP/1.1.
    pub(crate) http2: bool,
}

impl Ask {
    /// A GET of a path, with ten seconds of patience.
    #[must_use]
    pub(crate) fn get(to: SocketAddr, uri: Uri) -> Self {
        Self {
            to,
            method: Method::GET,
            uri,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            deadline: Duration::from_secs(10),
            http2: false,
        }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
    /// Trailers, empty when there were none.
    #[cfg_attr(not(test), expect(dead_code, reason = "only the stand-in's own tests look at trailers"))]
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Nobody listens, or the network says no.
    #[error("{to}: {source}")]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The exchange broke.
    #[error("{to}: {reason}")]
    Exchange {
        /// Where to.
        to: SocketAddr,
        /// What broke.
        reason: String,
    },
    /// Too slow.
    #[error("{to}: no answer within {} ms", .deadline.as_millis())]
    Deadline {
        /// Where to.
        to: SocketAddr,
        /// The time it had.
        deadline: Duration,
    },
}

/// Asks over a connection of its own.
///
/// # Errors
/// When nobody answers in time, or not in HTTP.
pub(crate) async fn ask(ask: Ask) -> Result<Answer, NoAnswer> {
    let (to, deadline) = (ask.to, ask.deadline);
    match tokio::time::timeout(deadline, exchange(ask)).await {
        Ok(result) => result,
        Err(_) => Err(NoAnswer::Deadline { to, deadline }),
    }
}

async fn exchange(ask: Ask) -> Result<Answer, NoAnswer> {
    let to = ask.to;
    let broke = |e: &dyn std::error::Error| NoAnswer::Exchange { to, reason: chain(e) };
    let stream = TcpStream::connect(to).await.map_err(|source| NoAnswer::Connect { to, source })?;
    // Latency of small requests matters more here than packets.
    stream.set_nodelay(true).map_err(|source| NoAnswer::Connect { to, source })?;
    let io = TokioIo::new(stream);
    let http2 = ask.http2;
    let request = request(ask).map_err(|e| broke(&e))?;
    // The connection runs beside the request and ends with this scope.
    let mut tasks = tokio::task::JoinSet::new();
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(|e| broke(&e))?;
        tasks.spawn(connection);
        sender.send_request(request).await.map_err(|e| broke(&e))?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|e| broke(&e))?;
        tasks.spawn(connection);
        sender.send_request(request).await.map_err(|e| broke(&e))?
    };
    let (parts, body) = response.into_parts();
    let collected = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|e| broke(&*e))?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok(Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes(), trailers })
}

fn request(ask: Ask) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut uri = ask.uri;
    if ask.http2 && uri.authority().is_none() {
        // HTTP/2 names the authority in a pseudo header, which hyper takes from the URI.
        let host = ask.headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).map(str::to_owned);
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let authority = host.unwrap_or_else(|| ask.to.to_string());
        uri = Uri::builder().scheme("http").authority(authority).path_and_query(path).build()?;
    }
    let host = uri.authority().map_or_else(|| ask.to.to_string(), |a| a.as_str().to_owned());
    let mut request = Request::builder()
        .method(ask.method)
        .uri(uri)
        .version(if ask.http2 { Version::HTTP_2 } else { Version::HTTP_11 })
        .body(Full::new(ask.body))?;
    *request.headers_mut() = ask.headers;
    if ask.http2 {
        request.headers_mut().remove(http::header::HOST);
    } else if !request.headers().contains_key(http::header::HOST) {
        let value = http::HeaderValue::from_str(&host)?;
        request.headers_mut().insert(http::header::HOST, value);
    }
    Ok(request)
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
