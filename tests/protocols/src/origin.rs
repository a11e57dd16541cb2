//! A server behind the gateway, over HTTP/2.

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, net::SocketAddr};
use tokio::{net::TcpListener, task::JoinHandle};

/// A running server.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Origin {
    /// Starts it.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(
                    http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// What it does is in the path: `/echo` gives body and trailers back, `/headers` the head it saw, `/large/N` N bytes,
/// `/slow` a body that never ends, anything else a greeting.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/echo" {
        let Ok(body) = request.into_body().collect().await else { return Ok(with(Bytes::new(), None)) };
        let trailers = body.trailers().cloned();
        return Ok(with(body.to_bytes(), trailers));
    }
    if path == "/headers" {
        let mut lines: Vec<String> =
            request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap_or("?"))).collect();
        lines.push(format!("{} {}", request.method(), request.uri()));
        return Ok(with(Bytes::from(lines.join("\n")), None));
    }
    if let Some(size) = path.strip_prefix("/large/").and_then(|n| n.parse::<usize>().ok()) {
        return Ok(with(Bytes::from(vec![b'x'; size]), None));
    }
    if path == "/slow" {
        let never = tokio_stream::pending::<Result<Frame<Bytes>, Infallible>>();
        return Ok(Response::new(StreamBody::new(never).boxed()));
    }
    Ok(with(Bytes::from_static(b"hello"), None))
}

fn with(data: Bytes, trailers: Option<HeaderMap>) -> Response<Body> {
    let data = (!data.is_empty()).then(|| Ok(Frame::data(data)));
    let frames: Vec<_> = data.into_iter().chain(trailers.map(|t| Ok(Frame::trailers(t)))).collect();
    Response::new(StreamBody::new(tokio_stream::iter(frames)).boxed())
}
