//! The body of a message that comes in on a stream, of either role.

use super::{shared::Shared, side::Side};
use crate::codec::Broken;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use std::{
    rc::Rc,
    task::{Context, Poll},
};
use tombolo_gateway_http2::{Code, Stream};

/// A body as it comes. Whoever drops it says that the rest is of no interest.
pub(crate) struct Http2Body {
    pub(super) shared: Rc<Shared>,
    pub(super) side: Rc<Side>,
    pub(super) stream: Stream,
    pub(super) server: bool,
    /// What comes is not a body but the other end of a tunnel, which somebody else reads.
    pub(super) tunnel: bool,
    given: u64,
    hesitated: bool,
}

impl Http2Body {
    pub(super) fn new(shared: &Rc<Shared>, side: &Rc<Side>, stream: Stream, server: bool, tunnel: bool) -> Self {
        Self { shared: shared.clone(), side: side.clone(), stream, server, tunnel, given: 0, hesitated: false }
    }

    /// The stream it comes on.
    pub(crate) fn side(&self) -> &Rc<Side> {
        &self.side
    }

    /// As [`http_body::Body::poll_frame`].
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.side.expects.replace(false) {
            self.proceed(&HeaderMap::new());
        }
        if let Some(bytes) = self.side.pop() {
            self.given += bytes.len() as u64;
            self.shared.consumed(self.stream, bytes.len());
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(trailers) = self.side.take_trailers() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        if self.side.has_ended() {
            return Poll::Ready(None);
        }
        if let Some(broken) = self.side.broken() {
            if self.server && self.given == 0 && !std::mem::replace(&mut self.hesitated, true) {
                // The head goes out first, as it does when the body comes later: what an upstream sees must not depend on
                // how the client's bytes were cut.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(broken)));
        }
        self.side.wait_to_read(cx);
        Poll::Pending
    }

    /// Nothing is left of it.
    pub(crate) fn is_over(&self) -> bool {
        self.tunnel || self.side.is_read()
    }

    /// As [`http_body::Body::size_hint`].
    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.side.length.get() {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.given)),
            None => SizeHint::default(),
        }
    }

    /// Tells the client to go on with its body.
    pub(crate) fn proceed(&self, headers: &HeaderMap) {
        self.side.expects.set(false);
        if self.shared.connection().send_interim(self.stream, StatusCode::CONTINUE, headers).is_ok() {
            self.shared.wake();
        }
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        if self.tunnel {
            return;
        }
        self.side.unwanted.set(true);
        let mut unread = 0;
        while let Some(bytes) = self.side.pop() {
            unread += bytes.len();
        }
        if unread > 0 {
            self.shared.consumed(self.stream, unread);
        }
        if self.server {
            self.shared.connection().discard(self.stream);
            self.shared.wake();
        } else if self.shared.connection().is_open(self.stream) {
            self.shared.reset(self.stream, Code::CANCEL);
        } else {
            self.shared.leave(self.stream);
        }
    }
}
