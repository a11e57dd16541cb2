//! Accepts connections and finds out what is spoken on each: HTTP/1.1, HTTP/2 with prior knowledge, or plain bytes.
//!
//! Owns the sockets. Reads until the first bytes decide, gives them back to the codec, and drains on request. Used by
//! the workload's `main` and its tests.

use super::{Me, echo, tls::Hello};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{io::Cursor, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"TRACE "];
/// Connections at once on one address; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;

/// A client may take this long for its TLS hello.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Its address.
    pub(super) remote: SocketAddr,
    /// Its TLS hello.
    pub(super) hello: Arc<Hello>,
}

impl Caller {
    fn plain(remote: SocketAddr) -> Self {
        Self { remote, hello: Arc::default() }
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
    Bytes,
    /// Too few bytes to say.
    Unknown,
}

/// Judges the first bytes of a connection.
pub(super) fn spoken(first: &[u8]) -> Spoken {
    let fits = |word: &[u8]| first.starts_with(word);
    let may_fit = |word: &[u8]| word.starts_with(first);
    if fits(PREFACE) {
        Spoken::Http2
    } else if METHODS.iter().any(|m| fits(m)) {
        Spoken::Http1
    } else if may_fit(PREFACE) || METHODS.iter().any(|m| may_fit(m)) {
        Spoken::Unknown
    } else {
        Spoken::Bytes
    }
}

/// Binds every address, then serves each until told to stop.
pub(super) async fn bind(
    me: Arc<Me>,
    addresses: &[(SocketAddr, Option<TlsAcceptor>)],
    stop: &CancellationToken,
) -> anyhow::Result<JoinSet<()>> {
    let mut servers = JoinSet::new();
    for (address, secure) in addresses {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        servers.spawn(accept(me.clone(), listener, secure.clone(), stop.clone()));
    }
    Ok(servers)
}

pub(super) async fn accept(me: Arc<Me>, listener: TcpListener, secure: Option<TlsAcceptor>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, remote)) => {
                    connections.spawn(begin(me.clone(), stream, remote, secure.clone(), stop.clone()));
                }
                // Out of descriptors, or the client left already: neither may end the loop.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Ends TLS where it is spoken.
async fn begin(
    me: Arc<Me>,
    stream: TcpStream,
    remote: SocketAddr,
    secure: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    // Failing to set an option costs latency only.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = secure else { return connection(me, stream, Caller::plain(remote), stop).await };
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let server_name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
    let hello = Hello { secure: true, server_name };
    connection(me, stream, Caller { remote, hello: Arc::new(hello) }, stop).await;
}

async fn connection<S>(me: Arc<Me>, mut stream: S, caller: Caller, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut first = BytesMut::with_capacity(1024);
    let spoken = loop {
        tokio::select! {
            () = stop.cancelled() => return,
            read = stream.read_buf(&mut first) => match read {
                Ok(0) if first.is_empty() => return,
                Ok(0) => break Spoken::Bytes,
                Ok(_) => match spoken(&first) {
                    Spoken::Unknown => {}
                    known => break known,
                },
                Err(_) => return,
            },
        }
    };
    let first = first.freeze();
    match spoken {
        Spoken::Http1 => http1(me, whole(first, stream), caller, stop).await,
        Spoken::Http2 => http2(me, whole(first, stream), caller, stop).await,
        Spoken::Bytes | Spoken::Unknown => verbatim(first, stream, stop).await,
    }
}

/// The stream with the bytes that were read ahead put back in front.
fn whole<S>(first: Bytes, stream: S) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, write) = tokio::io::split(stream);
    tokio::io::join(Cursor::new(first).chain(read), write)
}

async fn http1<S>(me: Arc<Me>, stream: S, caller: Caller, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| echo::answer(me.clone(), request, caller.clone()));
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn http2<S>(me: Arc<Me>, stream: S, caller: Caller, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| echo::answer(me.clone(), request, caller.clone()));
    let mut connection = std::pin::pin!(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Sends back what comes in, byte for byte.
async fn verbatim<S>(first: Bytes, mut stream: S, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if stream.write_all(&first).await.is_err() {
        return;
    }
    let (mut read, mut write) = tokio::io::split(stream);
    tokio::select! {
        _ = tokio::io::copy(&mut read, &mut write) => {}
        () = stop.cancelled() => {}
    }
    // The client sees the end of the stream whichever way it ended.
    let _ = write.shutdown().await;
}
