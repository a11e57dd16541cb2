//! HTTP: serving clients and forwarding what they ask.
//!
//! Owns the codecs on the client's side and the life of a connection. A connection that is idle holds no timer and no
//! buffer of ours.

pub(crate) mod body;
mod convert;
mod exchange;
mod forward;
mod handle;
mod logs;
mod mirror;
mod reply;
mod response;
mod tries;
pub(crate) mod tunnel;

pub(crate) use exchange::Downstream;
pub(crate) use logs::Logs;

use crate::{
    inbound::Inbound,
    listen::{Handle, Limits, Signal},
    net::{sniff, stream::Stream},
    upstream::pool::Local,
};
use bytes::BytesMut;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tombolo_gateway_core::config::{Codec, Hcm, Http2Settings};

/// Streams of one HTTP/2 connection when nothing is configured: enough for a browser or a proxy, bounded for an attacker.
const MAX_STREAMS: u32 = 128;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Resets that a peer may have provoked before its connection is ended.
const MAX_RESETS: usize = 64;
/// A request's head must be complete after this when nothing is configured.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a connection until it ends.
pub(crate) async fn serve(inbound: Inbound, hcm: Arc<Hcm>, stream: Stream) {
    let handle = inbound.entered.handle.clone();
    let limits = Limits {
        idle: hcm.timeouts.idle,
        head: Some(hcm.timeouts.request_headers.unwrap_or(HEAD_TIMEOUT)),
        life: hcm.timeouts.max_connection,
        abrupt: false,
    };
    handle.settle(&inbound.chain, limits);
    let Some((http2, stream)) = codec(&hcm, stream, &handle).await else { return };
    let io =
        TokioIo::new(Watched::new(stream, &handle, if http2 { Duration::ZERO } else { hcm.timeouts.delayed_close }));
    let Inbound { worker, listener, chain, info, entered } = inbound;
    let downstream = Downstream::new(worker, listener, chain, hcm, info, handle.clone(), http2);
    if http2 {
        serve_http2(&downstream, io).await;
    } else {
        serve_http1(&downstream, io).await;
    }
    drop(entered);
}

/// Which version is spoken: by ALPN, by configuration, or by the first bytes.
async fn codec(hcm: &Hcm, stream: Stream, handle: &Handle) -> Option<(bool, Stream)> {
    match (hcm.codec, stream.alpn()) {
        (Codec::Http1, _) => Some((false, stream)),
        (Codec::Http2, _) => Some((true, stream)),
        (Codec::Auto, Some(b"h2")) => Some((true, stream)),
        (Codec::Auto, Some(b"http/1.1" | b"http/1.0")) => Some((false, stream)),
        (Codec::Http3, _) => None,
        (Codec::Auto, _) => {
            let sniffed = pin!(sniff_preface(stream, handle));
            let closed = pin!(std::future::poll_fn(|cx| handle.poll_close(cx)));
            match futures_util::future::select(sniffed, closed).await {
                futures_util::future::Either::Left((found, _)) => found,
                futures_util::future::Either::Right(_) => None,
            }
        }
    }
}

async fn sniff_preface(mut stream: Stream, handle: &Handle) -> Option<(bool, Stream)> {
    let mut ahead = BytesMut::new();
    loop {
        ahead.reserve(1024);
        if stream.read_buf(&mut ahead).await.ok()? == 0 {
            return None;
        }
        handle.arrived.store(true, Ordering::Relaxed);
        if let Some(http2) = sniff::preface(&ahead) {
            return Some((http2, stream.with_ahead(ahead.freeze())));
        }
    }
}

/// A stream that notes when something arrives, for the clock of request heads.
struct Watched {
    stream: Stream,
    arrived: Arc<AtomicBool>,
    linger: Arc<AtomicBool>,
    /// How long the last wait may take.
    patience: Duration,
    ended: bool,
    last_wait: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn new(stream: Stream, handle: &Handle, patience: Duration) -> Self {
        let (arrived, linger) = (handle.arrived.clone(), handle.linger.clone());
        Self { stream, arrived, linger, patience, ended: false, last_wait: None }
    }

    /// Reads and drops what a refused client still sends, so that its answer is not lost to a reset. Ready when the client
    /// has closed or had time enough.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let refused = self.linger.load(Ordering::Relaxed) || self.arrived.load(Ordering::Relaxed);
        if self.ended || !refused || self.patience.is_zero() {
            return Poll::Ready(());
        }
        let patience = self.patience;
        let wait = self.last_wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if wait.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 1024];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if outcome.is_ready() {
            if buf.filled().len() > before {
                self.arrived.store(true, Ordering::Relaxed);
            } else {
                self.ended = true;
            }
        }
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        std::task::ready!(self.poll_linger(cx));
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Drives a connection; `graceful` is called once when it is told to finish.
async fn drive<C: Future>(handle: &Handle, connection: C, graceful: impl Fn(Pin<&mut C>)) {
    let mut connection = pin!(connection);
    let mut told = false;
    std::future::poll_fn(|cx| {
        match handle.poll_signal(cx) {
            Signal::None => {}
            Signal::Drain => {
                if !std::mem::replace(&mut told, true) {
                    graceful(connection.as_mut());
                }
            }
            Signal::Close => return Poll::Ready(()),
        }
        connection.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

async fn serve_http1(downstream: &Rc<Downstream>, io: TokioIo<Watched>) {
    let limits = &downstream.hcm.limits;
    let service = service_fn(|request: hyper::Request<Incoming>| handle::handle(downstream.clone(), request));
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .max_headers(usize::try_from(limits.headers).unwrap_or(100))
        .max_header_size(usize::try_from(limits.headers_kb).unwrap_or(60) * 1024)
        .writev(true)
        .half_close(false);
    let connection = builder.serve_connection(io, service).with_upgrades();
    drive(&downstream.handle, connection, |c| c.graceful_shutdown()).await;
}

async fn serve_http2(downstream: &Rc<Downstream>, io: TokioIo<Watched>) {
    let settings: &Http2Settings = &downstream.hcm.http2;
    let service = service_fn({
        let downstream = downstream.clone();
        move |request: hyper::Request<Incoming>| handle::handle(downstream.clone(), request)
    });
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.max_streams.unwrap_or(MAX_STREAMS))
        .initial_stream_window_size(settings.stream_window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(settings.connection_window.unwrap_or(CONNECTION_WINDOW))
        .header_table_size(settings.header_table_size)
        .max_header_list_size(downstream.hcm.limits.headers_kb.saturating_mul(1024))
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_send_buf_size(256 << 10);
    if settings.allow_connect {
        builder.enable_connect_protocol();
    }
    if let Some((interval, patience)) = settings.keepalive {
        builder.keep_alive_interval(interval).keep_alive_timeout(patience);
    }
    let connection = builder.serve_connection(io, service);
    drive(&downstream.handle, connection, |c| c.graceful_shutdown()).await;
}
