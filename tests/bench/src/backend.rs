//! A backend that costs as little as possible: it counts requests instead of reading them.
//!
//! HTTP/1.1 requests must have no body. HTTP/2 is hyper's, told apart by the connection preface.

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::{Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, net::SocketAddr, rc::Rc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
};

const END: &[u8] = b"\r\n\r\n";

#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

/// Serves until it is ended.
pub(crate) async fn run(listen: SocketAddr, bytes: usize) -> Result<()> {
    let listener = bind(listen)?;
    let body = Bytes::from(vec![b'x'; bytes]);
    let mut whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
    whole.extend_from_slice(&body);
    let whole: Rc<[u8]> = whole.into();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (whole, body) = (whole.clone(), body.clone());
        tokio::task::spawn_local(async move {
            // A client that goes away ends its own connection only.
            let _ = serve(stream, &whole, body).await;
        });
    }
}

/// A listener with room for many connections at once.
pub(crate) fn bind(listen: SocketAddr) -> Result<TcpListener> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(listen)?;
    Ok(socket.listen(4096)?)
}

async fn serve(stream: TcpStream, whole: &[u8], body: Bytes) -> Result<()> {
    let mut first = [0; 3];
    if stream.peek(&mut first).await? == 3 && &first == b"PRI" {
        return serve_http2(stream, body).await;
    }
    serve_http1(stream, whole).await
}

async fn serve_http1(mut stream: TcpStream, whole: &[u8]) -> Result<()> {
    let mut input = BytesMut::with_capacity(16 * 1024);
    let mut output = Vec::with_capacity(whole.len());
    while stream.read_buf(&mut input).await? > 0 {
        output.clear();
        while let Some(at) = input.windows(END.len()).position(|w| w == END) {
            let _ = input.split_to(at + END.len());
            output.extend_from_slice(whole);
        }
        stream.write_all(&output).await?;
        input.reserve(8 * 1024);
    }
    Ok(())
}

async fn serve_http2(stream: TcpStream, body: Bytes) -> Result<()> {
    let service = service_fn(move |_: hyper::Request<Incoming>| {
        let response = Response::new(Full::new(body.clone()));
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(Local);
    builder.max_concurrent_streams(1024).initial_connection_window_size(1 << 24).initial_stream_window_size(1 << 20);
    builder.serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}
