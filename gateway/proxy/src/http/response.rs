//! Bodies of responses on their way to the client.
//!
//! Owns what must live as long as the response does: the connection it comes from, the counts it occupies, and its
//! clocks. When the last byte went out, or nobody wants it any more, everything is given back.

use super::{body::BodyError, exchange::Exchange, timer::Timer};
use crate::{clock, codec::Incoming, upstream::pool::Lease};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use std::{
    borrow::Cow,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tombolo_gateway_core::{
    balance::InFlight,
    breaker::Permit,
    failure::{Failure, Kind},
    time::Millis,
};

/// What polling a body yields.
type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

/// A response's body as the client's codec takes it.
pub(crate) enum Outgoing {
    /// There is none.
    Empty,
    /// All of it is here.
    Full(Option<Bytes>),
    /// The upstream's, as it comes.
    Stream(Box<Streaming>),
}

/// An upstream's body under way.
pub(crate) struct Streaming {
    incoming: Incoming,
    held: Held,
    clocks: Clocks,
    timer: Timer,
    /// Since when nothing moves, once that was noticed.
    still: Option<Instant>,
    trailers: bool,
    pace: Option<Pace>,
    over: bool,
}

/// What a response occupies.
pub(crate) struct Held {
    /// The request.
    pub(crate) exchange: Rc<Exchange>,
    /// The connection.
    pub(crate) lease: Option<Lease>,
    /// The endpoint's count.
    pub(crate) in_flight: Option<InFlight>,
    /// The breaker's count.
    pub(crate) permit: Option<Permit>,
}

/// Clocks of a response; `None`: no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clocks {
    /// The whole exchange.
    pub(crate) global: Option<Millis>,
    /// Nothing moves.
    pub(crate) idle: Option<Duration>,
    /// The stream's life.
    pub(crate) life: Option<Millis>,
    /// The life of the upstream's stream.
    pub(crate) upstream: Option<Millis>,
}

/// A response that is slowed down on purpose.
struct Pace {
    bytes_per_second: f64,
    since: Instant,
    sent: f64,
    waiting: Option<Bytes>,
}

impl Pace {
    /// The rate may be any number: a client may be allowed to say it.
    fn new(kbps: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a rate for faults need not be exact")]
        let bytes_per_second = kbps.max(1) as f64 * 1024.0;
        Self { bytes_per_second, since: Instant::now(), sent: 0.0, waiting: None }
    }
}

impl Streaming {
    /// A body that begins to flow.
    pub(crate) fn new(
        incoming: Incoming,
        held: Held,
        clocks: Clocks,
        timer: Timer,
        kbps: Option<u64>,
        trailers: bool,
    ) -> Box<Self> {
        let pace = kbps.map(Pace::new);
        Box::new(Self { incoming, held, clocks, timer, still: None, trailers, pace, over: false })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(ready) = self.poll_pace(cx) {
            return ready;
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => self.poll_clocks(cx),
            Poll::Ready(None) => {
                self.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.broke(error.failure);
                Poll::Ready(Some(Err(BodyError::Upstream)))
            }
            Poll::Ready(Some(Ok(frame))) => self.moved(frame, cx),
        }
    }

    fn moved(&mut self, mut frame: Frame<Bytes>, cx: &mut Context<'_>) -> Polled {
        // Begins anew with the next wait.
        self.still = None;
        if let Some(trailers) = frame.trailers_mut() {
            self.held.exchange.change_trailers(trailers);
            let mut known = self.held.exchange.facts.borrow_mut();
            known.grpc_status = grpc_status(trailers).or(known.grpc_status);
            if self.held.exchange.downstream.logs_heads() {
                known.trailers = Some(trailers.clone());
            }
            drop(known);
            // Nothing follows trailers, and a codec may not ask.
            self.complete();
            return if self.trailers { Poll::Ready(Some(Ok(frame))) } else { Poll::Ready(None) };
        }
        if let Some(pace) = &mut self.pace {
            match frame.into_data() {
                Ok(data) => {
                    pace.waiting = Some(data);
                    return self.poll(cx);
                }
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        self.held.exchange.add_sent(frame.data_ref().map_or(0, Bytes::len));
        if self.incoming.is_end_stream() {
            self.complete();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Option<Polled> {
        let pace = self.pace.as_mut()?;
        let data = pace.waiting.as_mut()?;
        let allowed = pace.since.elapsed().as_secs_f64() * pace.bytes_per_second - pace.sent;
        // A little at a time, so that the rate is even.
        let slice = (pace.bytes_per_second / 16.0).max(1.0);
        if allowed < slice.min(data.len() as f64) {
            let wait = Duration::from_secs_f64((slice / pace.bytes_per_second).max(0.001));
            if self.timer.poll(cx, Instant::now() + wait).is_pending() {
                return Some(Poll::Pending);
            }
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by the data's length")]
        let take = data.len().min(slice as usize);
        let out = data.split_to(take);
        if data.is_empty() {
            pace.waiting = None;
        }
        pace.sent += take as f64;
        self.held.exchange.add_sent(take);
        Some(Poll::Ready(Some(Ok(Frame::data(out)))))
    }

    /// Waits for the next clock that could run out.
    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Polled {
        let still = *self.still.get_or_insert_with(Instant::now);
        let idle = self.clocks.idle.map(|idle| still + idle);
        let at = |millis: Option<Millis>| millis.map(|m| clock::origin() + Duration::from_millis(m.0));
        let bounds = [idle, at(self.clocks.global), at(self.clocks.life), at(self.clocks.upstream)];
        let Some(next) = bounds.into_iter().flatten().min() else { return Poll::Pending };
        std::task::ready!(self.timer.poll(cx, next));
        // The timer rings at its moment or after it.
        let kind = if bounds[1] == Some(next) {
            Kind::UpstreamTimeout
        } else if bounds[2] == Some(next) {
            Kind::MaxStreamDuration
        } else if bounds[3] == Some(next) {
            Kind::UpstreamMaxStreamDuration
        } else {
            Kind::StreamIdleTimeout
        };
        self.broke(Failure::new(kind));
        Poll::Ready(Some(Err(BodyError::Timeout)))
    }

    /// All of it went out.
    fn complete(&mut self) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let exchange = &self.held.exchange;
        let request_done = {
            let mut known = exchange.facts.borrow_mut();
            known.times.upstream_receive_end = Some(exchange.micros());
            known.source.as_ref().is_none_or(|s| s.borrow().ended())
        };
        exchange.finish();
        self.held.release(request_done);
    }

    /// It ends before its end.
    fn broke(&mut self, failure: Failure) {
        self.over = true;
        {
            let mut known = self.held.exchange.facts.borrow_mut();
            if let Some(flag) = failure.flag() {
                known.flags.insert(flag);
            }
            known.details = Cow::Owned(failure.details(true));
            known.trouble = failure.transport_reason().map(|reason| reason.replace(' ', "_").into());
        }
        self.held.exchange.finish();
        self.held.release(false);
    }
}

impl Held {
    /// Gives everything back; the connection may serve again when both directions are complete.
    pub(crate) fn release(&mut self, complete: bool) {
        self.in_flight = None;
        self.permit = None;
        if let Some(lease) = self.lease.take()
            && complete
        {
            lease.give_back();
        }
    }
}

/// `grpc-status` of headers or trailers.
pub(crate) fn grpc_status(headers: &http::HeaderMap) -> Option<u16> {
    const GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

impl Outgoing {
    /// Moves what is left of the request while the client takes nothing of the response. True when the response's time is up:
    /// its clocks count whether the upstream or the client keeps still.
    pub(crate) fn poll_pump(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Stream(streaming) = self else { return false };
        streaming.incoming.poll_pump(cx);
        !streaming.over && streaming.poll_clocks(cx).is_ready()
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(streaming) => streaming.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(streaming) => streaming.over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream(streaming) => streaming.incoming.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rate_is_too_high() {
        for kbps in [0, 1, 1 << 54, u64::MAX] {
            assert!(Pace::new(kbps).bytes_per_second >= 1024.0, "{kbps}");
        }
    }
}
