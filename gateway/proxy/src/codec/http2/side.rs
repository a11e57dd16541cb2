//! One stream, as its connection's task and its user share it: what came in and waits, and who waits for it.
//!
//! Outlives the stream's place in the connection: what came in can still be read when both ends have closed.

use crate::codec::Broken;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    task::{Context, Waker},
};
use tombolo_gateway_core::failure::{Failure, Flag, Kind};
use tombolo_gateway_http2::ResponseHead;

/// Pieces of data below this are put together once several wait.
const SMALL: usize = 256;
const SEVERAL: usize = 8;
const TOGETHER: usize = 4096;

/// What a client gets for its request.
pub(super) type Answer = Result<(Box<ResponseHead>, Option<u64>), (Failure, bool)>;

/// A stream.
#[derive(Default)]
pub(crate) struct Side {
    queue: RefCell<VecDeque<Bytes>>,
    trailers: RefCell<Option<Box<HeaderMap>>>,
    /// The peer's message is complete.
    ended: Cell<bool>,
    broken: RefCell<Option<Broken>>,
    /// Nothing can be said any more.
    gone: Cell<bool>,
    /// How it ended, for the log.
    fate: Cell<Option<(Flag, &'static str)>>,
    /// Nobody will read what comes in.
    pub(super) unwanted: Cell<bool>,
    /// The client waits for a 100 (Continue).
    pub(super) expects: Cell<bool>,
    /// The head of the response went out.
    pub(super) answered: Cell<bool>,
    /// Length of the peer's body, as it said.
    pub(super) length: Cell<Option<u64>>,
    pub(super) answer: RefCell<Option<Answer>>,
    /// Headers of a 100 (Continue).
    pub(super) interim: RefCell<Option<HeaderMap>>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    task: RefCell<Option<Waker>>,
}

fn keep(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut place = place.borrow_mut();
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

fn wake(place: &RefCell<Option<Waker>>) {
    let waker = place.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Side {
    /// Data came.
    pub(super) fn push(&self, bytes: Bytes, end: bool) {
        if !bytes.is_empty() {
            let mut queue = self.queue.borrow_mut();
            let several = queue.len() >= SEVERAL;
            match queue.back_mut().filter(|last| several && bytes.len() < SMALL && last.len() < TOGETHER) {
                Some(last) => {
                    let mut both = BytesMut::with_capacity(last.len() + bytes.len());
                    both.extend_from_slice(last);
                    both.extend_from_slice(&bytes);
                    *last = both.freeze();
                }
                None => queue.push_back(bytes),
            }
        }
        if end {
            self.ended.set(true);
        }
        wake(&self.reader);
    }

    /// Trailers came.
    pub(super) fn finish(&self, trailers: Option<Box<HeaderMap>>) {
        *self.trailers.borrow_mut() = trailers;
        self.ended.set(true);
        wake(&self.reader);
    }

    /// The peer's message breaks off; what came before is still there.
    pub(super) fn break_off(&self, broken: Broken) {
        if !self.ended.get() {
            self.broken.borrow_mut().get_or_insert(broken);
        }
        wake(&self.reader);
    }

    /// Nothing can be sent any more.
    pub(super) fn end(&self, fate: (Flag, &'static str)) {
        self.gone.set(true);
        self.tell(fate);
        self.break_off(Broken { failure: Failure::new(Kind::DownstreamDisconnect), malformed: false });
        wake(&self.writer);
        wake(&self.task);
    }

    /// How it will have ended, if nobody says otherwise.
    pub(super) fn tell(&self, fate: (Flag, &'static str)) {
        if self.fate.get().is_none() {
            self.fate.set(Some(fate));
        }
    }

    /// Bytes that came in and were not read.
    pub(crate) fn unread(&self) -> u64 {
        self.queue.borrow().iter().map(|piece| piece.len() as u64).sum()
    }

    /// How it ended.
    pub(crate) fn fate(&self) -> Option<(Flag, &'static str)> {
        self.fate.get()
    }

    /// Whether nothing can be said any more; otherwise whoever asks is told when that changes.
    pub(super) fn poll_gone(&self, cx: &Context<'_>) -> bool {
        keep(&self.task, cx);
        self.gone.get()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    pub(super) fn wait_to_read(&self, cx: &Context<'_>) {
        keep(&self.reader, cx);
    }

    pub(super) fn wait_to_write(&self, cx: &Context<'_>) {
        keep(&self.writer, cx);
    }

    pub(super) fn writable(&self) {
        wake(&self.writer);
    }

    /// The response came, or will not come.
    pub(super) fn answer(&self, answer: Answer) {
        self.answer.borrow_mut().get_or_insert(answer);
        wake(&self.task);
    }

    /// An interim response came.
    pub(super) fn hint(&self, headers: HeaderMap) {
        *self.interim.borrow_mut() = Some(headers);
        wake(&self.task);
    }

    pub(super) fn pop(&self) -> Option<Bytes> {
        self.queue.borrow_mut().pop_front()
    }

    pub(super) fn take_trailers(&self) -> Option<Box<HeaderMap>> {
        self.trailers.borrow_mut().take()
    }

    pub(super) fn broken(&self) -> Option<Broken> {
        self.broken.borrow().clone()
    }

    /// The peer's message is complete, read or not.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The peer's message is complete and read.
    pub(super) fn is_read(&self) -> bool {
        self.ended.get() && self.queue.borrow().is_empty() && self.trailers.borrow().is_none()
    }
}
