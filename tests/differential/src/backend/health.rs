//! Answers to health checks, which are told from requests by what they say of themselves and take nothing of a script.

use super::{Connection, collect, send};
use crate::{
    http1::{Message, Wire},
    script::Health,
};
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderName, HeaderValue, Request, Response};
use std::time::Duration;

/// How a checker names itself.
const AGENT: &str = "Envoy/HC";
/// Where gRPC asks.
const GRPC: &str = "/grpc.health.v1.Health/Check";

/// Answers an HTTP/1.1 check; nothing: it was none.
pub(super) async fn version1(wire: &mut Wire, connection: &Connection, request: &Message) -> Option<()> {
    request.values("user-agent").find(|agent| *agent == AGENT)?;
    let fields = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let status = match connection.stage.check(connection.backend, &request.line, fields) {
        Health::Status(status) => status,
        Health::Silent => std::future::pending().await,
        Health::Grpc(_) | Health::Only(_) => 500,
    };
    wire.write(format!("HTTP/1.1 {status} Health\r\ncontent-length: 0\r\n\r\n").as_bytes()).await;
    Some(())
}

/// Whether an HTTP/2 request is a check.
pub(super) fn is_check(request: &Request<RecvStream>) -> bool {
    request.uri().path() == GRPC || request.headers().get("user-agent").is_some_and(|agent| agent == AGENT)
}

/// Answers an HTTP/2 check.
pub(super) async fn version2(
    connection: (u16, std::sync::Arc<super::Stage>),
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (parts, mut body) = request.into_parts();
    let asked = collect(&mut body).await.body;
    let text: String = asked.iter().map(|byte| char::from(*byte)).collect();
    let line = format!("{} {} {:?} {text:?}", parts.method, parts.uri.path(), parts.uri.authority());
    let field = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap_or("?"));
    let health = connection.1.check(connection.0, &line, parts.headers.iter().map(field).collect());
    let mut response = Response::new(());
    let (message, status) = match health {
        Health::Silent => return tokio::time::sleep(Duration::from_secs(60)).await,
        Health::Status(status) if parts.uri.path() != GRPC => {
            *response.status_mut() = status.try_into().expect("a status of a table is one");
            let _ = respond.send_response(response, true);
            return;
        }
        Health::Status(200) => (Some(1), "0"),
        Health::Status(_) => (Some(2), "0"),
        Health::Grpc(status) => (None, status),
        // The message has one field: tag, length, name.
        Health::Only(name) if asked.get(7..).is_some_and(|asked| asked == name.as_bytes()) => (Some(1), "0"),
        Health::Only(_) => (None, "5"),
    };
    let end = |map: &mut http::HeaderMap| map.insert("grpc-status", status.parse().expect("a number is a value"));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let Some(message) = message else {
        end(response.headers_mut());
        let _ = respond.send_response(response, true);
        return;
    };
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    send(&mut stream, Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, message]), false).await;
    let mut trailers = http::HeaderMap::new();
    end(&mut trailers);
    let _ = stream.send_trailers(trailers);
}
