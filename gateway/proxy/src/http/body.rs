//! Bodies of messages, as the codecs take them: one closed type for each direction, nothing boxed behind a trait.
//!
//! Owns the replay buffer of request bodies. Every body is read only as fast as the other side takes it.

use crate::codec::Incoming;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tombolo_gateway_core::filter::TrailerChanges;

/// Why a body ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client went away or broke the rules.
    #[error("the request body was cut short")]
    Downstream,
    /// The upstream went away or broke the rules.
    #[error("the response body was cut short")]
    Upstream,
    /// A clock ran out.
    #[error("timed out")]
    Timeout,
    /// A copy that cannot be kept up with.
    #[error("the copy fell behind")]
    Behind,
}

/// A request body on its way to an upstream.
pub(crate) enum Body {
    /// There is none.
    Empty,
    /// The client's, as it comes.
    Client(Reader),
    /// A copy of the client's.
    Copy(Rc<RefCell<Copied>>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(reader) => reader.poll(cx),
            Self::Copy(copied) => copied.borrow_mut().poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(reader) => reader.is_done(),
            Self::Copy(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(reader) => reader.size_hint(),
            Self::Copy(copied) => copied.borrow().hint,
        }
    }
}

/// A client's request body, which several attempts may read one after the other.
pub(crate) struct Source {
    incoming: Incoming,
    /// What was read, for the next attempt; `None` once it outgrew its bound.
    kept: Option<Vec<Bytes>>,
    kept_bytes: usize,
    most: usize,
    trailers: Option<http::HeaderMap>,
    /// What filters do to the trailers.
    changes: Option<TrailerChanges>,
    state: State,
    /// Bytes read so far.
    bytes: u64,
    exact: Option<u64>,
    copies: Vec<Rc<RefCell<Copied>>>,
    /// Told when the client's body is complete.
    finished: Option<Waker>,
    last_read: std::time::Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    /// The client went away.
    Failed,
    /// The client sent what is no body.
    Malformed,
}

/// A body shared by the attempts of one request.
pub(crate) type SharedSource = Rc<RefCell<Source>>;

impl Source {
    /// A body of which up to `most` bytes are kept for further attempts.
    pub(crate) fn new(incoming: Incoming, most: usize) -> SharedSource {
        let exact = http_body::Body::size_hint(&incoming).exact();
        Rc::new(RefCell::new(Self {
            incoming,
            most,
            exact,
            kept: (most > 0).then(Vec::new),
            kept_bytes: 0,
            trailers: None,
            changes: None,
            state: State::Reading,
            bytes: 0,
            copies: Vec::new(),
            finished: None,
            last_read: std::time::Instant::now(),
        }))
    }

    /// Changes its trailers, should there be any.
    pub(crate) fn change_trailers(&mut self, changes: Option<TrailerChanges>) {
        self.changes = changes;
    }

    /// Bytes read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All of it was read.
    pub(crate) fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The client broke off.
    pub(crate) fn failed(&self) -> bool {
        matches!(self.state, State::Failed | State::Malformed)
    }

    /// The client broke the rules instead of going away.
    pub(crate) fn malformed(&self) -> bool {
        self.state == State::Malformed
    }

    /// Another attempt can read it from the beginning.
    pub(crate) fn replayable(&self) -> bool {
        !self.failed() && (self.kept.is_some() || self.bytes == 0)
    }

    /// The upstream asked for the body with a 100 (Continue).
    pub(crate) fn proceed(&self, headers: &http::HeaderMap) {
        self.incoming.proceed(headers);
    }

    /// When something was last read.
    pub(crate) fn last_read(&self) -> std::time::Instant {
        self.last_read
    }

    /// Resolves when the body is complete or broken off.
    pub(crate) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state != State::Reading {
            return Poll::Ready(());
        }
        self.finished = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Adds a copy that may lag behind by `most` bytes. Only before anything was read.
    pub(crate) fn copy(&mut self, most: usize) -> Body {
        let hint = self.exact.map_or_else(SizeHint::default, SizeHint::with_exact);
        let copied =
            Rc::new(RefCell::new(Copied { queue: VecDeque::new(), bytes: 0, most, end: None, waker: None, hint }));
        self.copies.push(copied.clone());
        Body::Copy(copied)
    }

    fn change(&self, frame: &mut Frame<Bytes>) {
        if let (Some(changes), Some(trailers)) = (&self.changes, frame.trailers_mut()) {
            changes.apply(trailers);
        }
    }

    fn take(&mut self, frame: &Frame<Bytes>) {
        self.last_read = std::time::Instant::now();
        if let Some(data) = frame.data_ref() {
            self.bytes += data.len() as u64;
            for copy in &self.copies {
                copy.borrow_mut().push(data);
            }
            if let Some(kept) = &mut self.kept {
                self.kept_bytes += data.len();
                if self.kept_bytes <= self.most {
                    kept.push(data.clone());
                } else {
                    // Too large to be tried again; what was kept is of no use any more.
                    self.kept = None;
                }
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }

    fn end(&mut self, state: State) {
        self.state = state;
        for copy in self.copies.drain(..) {
            copy.borrow_mut().finish(state == State::Ended);
        }
        if let Some(waker) = self.finished.take() {
            waker.wake();
        }
    }
}

/// One attempt's place in a [`Source`].
pub(crate) struct Reader {
    source: SharedSource,
    at: usize,
    given: u64,
    /// Trailers were passed on, or are not to be.
    trailers_given: bool,
}

impl Reader {
    /// From the beginning, with the trailers or without.
    pub(crate) fn new(source: &SharedSource, trailers: bool) -> Self {
        Self { source: source.clone(), at: 0, given: 0, trailers_given: !trailers }
    }

    fn is_done(&self) -> bool {
        let source = self.source.borrow();
        let all = source.kept.as_ref().is_none_or(|kept| self.at >= kept.len());
        source.state == State::Ended && all && (self.trailers_given || source.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        match self.source.borrow().exact {
            Some(total) => SizeHint::with_exact(total.saturating_sub(self.given)),
            None => SizeHint::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut source = self.source.borrow_mut();
        let again = source.kept.as_ref().and_then(|kept| kept.get(self.at)).cloned();
        if let Some(data) = again {
            self.at += 1;
            self.given += data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match source.state {
            State::Failed | State::Malformed => return Poll::Ready(Some(Err(BodyError::Downstream))),
            State::Ended => {
                let trailers = source.trailers.clone().filter(|_| !std::mem::replace(&mut self.trailers_given, true));
                return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
            }
            State::Reading => {}
        }
        if source.kept.is_none() && self.given < source.bytes {
            // Another attempt read on, and what this one lacks was too much to keep.
            return Poll::Ready(Some(Err(BodyError::Behind)));
        }
        let incoming = &mut source.incoming;
        let next = std::task::ready!(http_body::Body::poll_frame(Pin::new(incoming), cx));
        Poll::Ready(match next {
            None => {
                source.end(State::Ended);
                None
            }
            Some(Err(error)) => {
                source.end(if error.malformed { State::Malformed } else { State::Failed });
                Some(Err(BodyError::Downstream))
            }
            Some(Ok(mut frame)) => {
                source.change(&mut frame);
                source.take(&frame);
                if let Some(data) = frame.data_ref() {
                    self.given += data.len() as u64;
                    self.at += 1;
                } else if std::mem::replace(&mut self.trailers_given, true) {
                    source.end(State::Ended);
                    return Poll::Ready(None);
                }
                if http_body::Body::is_end_stream(&source.incoming) {
                    source.end(State::Ended);
                }
                Some(Ok(frame))
            }
        })
    }
}

/// The queue of a copy.
pub(crate) struct Copied {
    queue: VecDeque<Bytes>,
    bytes: usize,
    most: usize,
    end: Option<bool>,
    waker: Option<Waker>,
    hint: SizeHint,
}

impl Copied {
    fn push(&mut self, data: &Bytes) {
        if self.end.is_some() {
            return;
        }
        self.bytes += data.len();
        if self.bytes > self.most {
            self.queue.clear();
            self.finish(false);
            return;
        }
        self.queue.push_back(data.clone());
        self.wake();
    }

    fn finish(&mut self, whole: bool) {
        self.end.get_or_insert(whole);
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = self.queue.pop_front() {
            self.bytes -= data.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match self.end {
            Some(true) => Poll::Ready(None),
            Some(false) => Poll::Ready(Some(Err(BodyError::Behind))),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
