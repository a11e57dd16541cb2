//! HTTP: serving clients and forwarding what they ask.
//!
//! Owns the choice of the version and the life of a connection; codecs are behind their seam. A connection that is idle holds no timer and no
//! buffer of ours.

pub(crate) mod body;
mod exchange;
pub(crate) mod filters;
mod forward;
pub(crate) mod handle;
mod logs;
mod mirror;
mod on_demand;
pub(crate) mod reply;
pub(crate) mod response;
mod send;
pub(crate) mod timer;
mod tries;
pub(crate) mod tunnel;

pub(crate) use exchange::{Downstream, Exchange};
pub(crate) use logs::Logs;

use crate::{
    codec,
    inbound::Inbound,
    listen::{Handle, Limits, Signal},
    net::{sniff, stream::Stream},
};
use bytes::BytesMut;
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};
use tokio::io::AsyncReadExt as _;
use tombolo_gateway_core::config::{Codec, Hcm};

/// A request's head must be complete after this when nothing is configured.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a connection until it ends.
pub(crate) async fn serve(inbound: Box<Inbound>, hcm: Arc<Hcm>, stream: Stream) {
    let handle = inbound.entered.handle.clone();
    let limits = Limits {
        idle: hcm.timeouts.idle,
        head: Some(hcm.timeouts.request_headers.unwrap_or(HEAD_TIMEOUT)),
        life: hcm.timeouts.max_connection,
        abrupt: false,
    };
    handle.settle(limits);
    let Some((http2, stream)) = Box::pin(version(&hcm, stream, &handle)).await else { return };
    drop(handle);
    let (downstream, entered) = Downstream::new(*inbound, hcm, http2);
    if http2 {
        codec::http2::serve(&downstream, stream).await;
    } else {
        codec::http1::serve(&downstream, stream).await;
    }
    drop(entered);
}

/// Which version is spoken: by ALPN, by configuration, or by the first bytes.
async fn version(hcm: &Hcm, stream: Stream, handle: &Handle) -> Option<(bool, Stream)> {
    match (hcm.codec, stream.alpn()) {
        (Codec::Http1, _) => Some((false, stream)),
        (Codec::Http2, _) => Some((true, stream)),
        (Codec::Auto, Some(b"h2")) => Some((true, stream)),
        (Codec::Auto, Some(b"http/1.1" | b"http/1.0")) => Some((false, stream)),
        (Codec::Http3, _) => None,
        (Codec::Auto, _) => {
            let sniffed = pin!(sniff_preface(stream, handle));
            // Nothing is under way before the first bytes: being told to finish means to end.
            let closed = pin!(std::future::poll_fn(|cx| match handle.poll_signal(cx) {
                Signal::None | Signal::Last => Poll::Pending,
                Signal::Drain | Signal::Close => Poll::Ready(()),
            }));
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
