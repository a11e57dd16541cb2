//! Connections that stop being HTTP: upgrades and CONNECT.
//!
//! Owns the task that moves bytes until both sides are done. A tunnel counts as a request under way until then.

use super::{
    exchange::Exchange,
    reply,
    response::{Held, Outgoing},
    tries,
};
use crate::{
    clock,
    codec::Upgrade,
    tcp::relay::{self, Ends},
    upstream::{
        choice::{self, Question},
        cluster::{Cluster, Wish},
        connect,
        keeper::Live,
    },
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use std::{
    borrow::Cow,
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tombolo_gateway_core::{
    balance::Request,
    decision::Forward,
    failure::{Failure, Flag, Kind},
    forward::finish_response,
    head::Head,
    time::{Millis, millis},
};

/// Clocks of a tunnel; `None`: no bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    /// Silence of both sides for so long ends it.
    pub(crate) idle: Option<Duration>,
    /// The upstream lets it live until then.
    pub(crate) end: Option<Millis>,
}

/// Moves bytes between both sides of an upgrade once the heads are out.
pub(crate) fn pass(exchange: &Rc<Exchange>, client: Upgrade, upstream: Upgrade, held: Held, clocks: Clocks) {
    let exchange = exchange.clone();
    tokio::task::spawn_local(async move {
        if let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) {
            let ends = relay(&exchange, client, upstream, clocks).await;
            count(&exchange, ends);
        }
        exchange.finish();
        drop(held);
    });
}

fn count(exchange: &Exchange, ends: Ends) {
    exchange.add_sent(usize::try_from(ends.to_client).unwrap_or(usize::MAX));
    exchange.tunnelled.set(ends.to_upstream);
}

/// The answer that agrees to an upgrade, as HTTP/1 has it; HTTP/2 says the same with a 200, and the codecs translate.
pub(crate) fn switched(head: &Head, parts: &mut http::response::Parts) {
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    if head.method == Method::CONNECT {
        parts.headers.remove(header::CONNECTION);
        parts.headers.remove(header::UPGRADE);
        return;
    }
    if !parts.headers.contains_key(header::UPGRADE)
        && let Ok(kind) = HeaderValue::try_from(head.upgrade.as_str())
    {
        parts.headers.insert(header::UPGRADE, kind);
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// Ends a CONNECT here: what follows is raw TCP with an endpoint of the cluster.
pub(crate) async fn terminate(
    exchange: &Rc<Exchange>,
    live: &Live,
    forward: &Forward,
    cluster: Rc<Cluster>,
    head: Box<Head>,
    client: Option<Upgrade>,
) -> Response<Outgoing> {
    let downstream = &exchange.downstream;
    let worker = &downstream.worker;
    let upstream = cluster.upstream();
    let request = Request { hash: forward.hash, subset: forward.metadata_match.as_deref(), ..Request::default() };
    let question = Question {
        request,
        original: choice::original(&downstream.listener, downstream.info.local),
        headers: Some(&head.headers),
        host: forward.forward_host.as_deref().unwrap_or(&head.authority),
        tried: 0,
    };
    let picked = choice::choose(worker, &cluster, &upstream, &question, worker.now()).await;
    let (Some(choice::Picked { endpoint, .. }), Some(client)) = (picked, client) else {
        exchange.facts.borrow_mut().head = Some(head);
        return reply::failure(exchange, Failure::new(Kind::NoHealthyUpstream), 1);
    };
    let wish = Wish {
        downstream_http2: false,
        priority: forward.priority,
        host: &head.authority,
        addresses: downstream.info.remote.zip(downstream.info.local),
        downstream: downstream.handle.id,
        http1_only: false,
    };
    let upstream = endpoint.upstream();
    let opened = match endpoint.tcp_target(&worker.around, live, &upstream, &wish) {
        Ok(target) => connect::open(&target).await,
        Err(failure) => Err(failure),
    };
    let mut headers = HeaderMap::new();
    finish_response(&downstream.hcm, Some(&head), true, &mut headers);
    {
        let mut known = exchange.facts.borrow_mut();
        known.head = Some(head);
        known.endpoint = Some(endpoint);
        known.attempts = 1;
    }
    let stream = match opened {
        Ok(stream) => stream,
        Err(failure) => return reply::failure(exchange, failure, 1),
    };
    {
        let mut known = exchange.facts.borrow_mut();
        known.status = 200;
        known.details = Cow::Borrowed("via_upstream");
    }
    let life = tries::upstream_life(forward, &upstream).map(|life| worker.now().after(millis(life)));
    let (exchange, clocks) = (exchange.clone(), Clocks { idle: forward.timeouts.idle, end: life });
    tokio::task::spawn_local(async move {
        if let Ok(client) = client.await {
            let ends = relay(&exchange, client, stream, clocks).await;
            count(&exchange, ends);
        }
        exchange.finish();
    });
    let mut response = Response::new(Outgoing::Empty);
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = headers;
    response
}

async fn relay<A, B>(exchange: &Exchange, client: A, upstream: B, clocks: Clocks) -> Ends
where
    A: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    B: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let handle = exchange.downstream.handle.clone();
    let ends = std::cell::Cell::new(Ends::default());
    let first = Cell::new(None);
    let last = Cell::new(Instant::now());
    let moved = || {
        last.set(Instant::now());
        handle.touch();
    };
    let client = Noted { stream: client, side: relay::Side::Client, first: &first };
    let upstream = Noted { stream: upstream, side: relay::Side::Upstream, first: &first };
    tokio::select! {
        () = relay::run(client, upstream, &ends, moved) => {}
        () = std::future::poll_fn(|cx| handle.poll_close(cx)) => {}
        kind = over(&last, clocks) => {
            let failure = Failure::new(kind);
            let mut known = exchange.facts.borrow_mut();
            known.flags.extend(failure.flag().into_iter().collect());
            known.details = Cow::Owned(failure.details(true));
            return ends.get();
        }
    }
    let told = exchange.stream.borrow().as_ref().map(|side| side.fate());
    let fate = match told {
        // On a stream an end is only an end.
        Some(fate) => fate,
        None => Some((Flag::DownstreamConnectionTermination, "downstream_remote_disconnect"))
            .filter(|_| first.get() == Some(relay::Side::Client)),
    };
    if let Some((flag, details)) = fate {
        let mut known = exchange.facts.borrow_mut();
        known.flags.insert(flag);
        known.details = Cow::Borrowed(details);
    }
    ends.get()
}

/// Resolves when nothing has moved for so long, or when it has lived for too long.
async fn over(last: &Cell<Instant>, clocks: Clocks) -> Kind {
    let end = clocks.end.map(|end| clock::origin() + Duration::from_millis(end.0));
    loop {
        let silent = clocks.idle.map(|idle| last.get() + idle);
        let Some(until) = [silent, end].into_iter().flatten().min() else { return std::future::pending().await };
        if until <= Instant::now() {
            return if end == Some(until) { Kind::UpstreamMaxStreamDuration } else { Kind::StreamIdleTimeout };
        }
        tokio::time::sleep_until(until.into()).await;
    }
}

/// A side of a tunnel of which it is noted whether it was the first to end.
struct Noted<'a, S> {
    stream: S,
    side: relay::Side,
    first: &'a Cell<Option<relay::Side>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() == before && self.first.get().is_none() {
            self.first.set(Some(self.side));
        }
        Poll::Ready(outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
