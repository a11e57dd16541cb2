//! One HTTP/1.1 request on a connection of its own, in proxy form where the target is an absolute URI.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON, null when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A text field of the JSON body, empty when there is none.
    #[must_use]
    pub fn field(&self, pointer: &str) -> String {
        self.json().pointer(pointer).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
    }
}

/// Sends `GET target` to `address`, within a minute.
///
/// # Errors
/// When the connection or the exchange fails.
pub async fn get(address: &str, target: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    tokio::time::timeout(Duration::from_secs(60), exchange(address, target, headers))
        .await
        .with_context(|| format!("GET {target} at {address} took longer than 60 s"))?
        .with_context(|| format!("GET {target} at {address}"))
}

async fn exchange(address: &str, target: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let uri: http::Uri = target.parse()?;
    let host = uri.authority().map_or(address, |authority| authority.as_str()).to_owned();
    let mut request = http::Request::get(uri);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", host);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    driver.abort();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}
