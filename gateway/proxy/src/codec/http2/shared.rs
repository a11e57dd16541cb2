//! A connection's state, shared by its task and its streams.
//!
//! Nothing here waits: whoever changes something wakes the task, which reads and writes.

use super::{side::Side, wire::Wire};
use crate::{clock, codec::Broken};
use http_body::Body;
use std::{
    cell::{Cell, RefCell, RefMut},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Sleep;
use tombolo_gateway_core::failure::{Failure, Flag, Kind};
use tombolo_gateway_http2::{Cause, Code, Connection, ConnectionError, Event, Stream};

/// While so much waits to be written, nothing is read: whoever does not read answers gets no more of them.
const BACKLOG: usize = 256 * 1024;
/// Reads in one turn before others get theirs.
const READS: usize = 4;

/// How a connection came to its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// The peer closed it, or it broke.
    Closed,
    /// Everything was said.
    Finished,
    /// A rule was broken.
    Error(ConnectionError),
}

/// A stream's user, at the stream's place.
type Place = Option<(Stream, Rc<Side>)>;

/// A connection.
pub(super) struct Shared {
    connection: RefCell<Connection>,
    sides: RefCell<Vec<Place>>,
    task: RefCell<Option<Waker>>,
    /// Nobody wants to use it any more.
    pub(super) unused: Cell<bool>,
    over: Cell<bool>,
    timer: RefCell<Option<Pin<Box<Sleep>>>>,
}

impl Shared {
    pub(super) fn new(connection: Connection) -> Rc<Self> {
        Rc::new(Self {
            connection: RefCell::new(connection),
            sides: RefCell::default(),
            task: RefCell::default(),
            unused: Cell::new(false),
            over: Cell::new(false),
            timer: RefCell::default(),
        })
    }

    /// The state. Never to be held across anything that may use it, too.
    pub(super) fn connection(&self) -> RefMut<'_, Connection> {
        self.connection.borrow_mut()
    }

    /// Lets the task write what was said.
    pub(super) fn wake(&self) {
        let task = self.task.borrow_mut().take();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The task waits.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if task.is_none() {
            *task = Some(cx.waker().clone());
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Enters a stream's user.
    pub(super) fn enter(&self, stream: Stream, side: &Rc<Side>) {
        let mut sides = self.sides.borrow_mut();
        if sides.len() <= stream.slot() {
            sides.resize_with(stream.slot() + 1, || None);
        }
        if let Some(place) = sides.get_mut(stream.slot()) {
            *place = Some((stream, side.clone()));
        }
    }

    pub(super) fn side(&self, stream: Stream) -> Option<Rc<Side>> {
        let sides = self.sides.borrow();
        let (of, side) = sides.get(stream.slot())?.as_ref()?;
        (*of == stream).then(|| side.clone())
    }

    /// Forgets a stream's user.
    pub(super) fn leave(&self, stream: Stream) {
        let mut sides = self.sides.borrow_mut();
        if let Some(place) = sides.get_mut(stream.slot())
            && place.as_ref().is_some_and(|(of, _)| *of == stream)
        {
            *place = None;
        }
    }

    /// Bytes of a stream's data were taken.
    pub(super) fn consumed(&self, stream: Stream, count: usize) {
        let said = {
            let mut connection = self.connection();
            connection.consumed(stream, count);
            !connection.output().is_empty()
        };
        if said {
            self.wake();
        }
    }

    /// Ends a stream.
    pub(super) fn reset(&self, stream: Stream, code: Code) {
        self.connection().reset(stream, code);
        self.leave(stream);
        self.wake();
    }

    /// Moves bytes in both directions until nothing moves. What is not for a stream alone goes to `role`.
    pub(super) fn poll_io(&self, cx: &mut Context<'_>, wire: &mut Wire, role: &mut impl FnMut(Event)) -> Poll<End> {
        for round in 0.. {
            let mut moved = false;
            if self.connection().output().len() < BACKLOG {
                let now = clock::now().0;
                match wire.poll_read(cx, |input| self.connection().receive(input, now)) {
                    Poll::Ready(Ok((0, _)) | Err(_)) => return Poll::Ready(End::Closed),
                    Poll::Ready(Ok((_, taken))) => {
                        moved = true;
                        self.events(role);
                        if let Err(error) = taken {
                            return Poll::Ready(End::Error(error));
                        }
                    }
                    Poll::Pending => {}
                }
            }
            match self.poll_out(cx, wire, role) {
                Err(end) => return Poll::Ready(end),
                Ok(written) if written.is_ready() && self.connection().is_finished() => {
                    return Poll::Ready(End::Finished);
                }
                Ok(_) => {}
            }
            if !moved {
                break;
            }
            if round == READS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.wait(cx);
        let mut connection = self.connection();
        if connection.open_streams() == 0 {
            connection.trim();
        }
        Poll::Pending
    }

    /// Writes what waits, and what then finds room.
    pub(super) fn poll_out(
        &self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        role: &mut impl FnMut(Event),
    ) -> Result<Poll<()>, End> {
        loop {
            self.connection().pump();
            self.events(role);
            let mut connection = self.connection();
            if connection.output().is_empty() {
                return Ok(Poll::Ready(()));
            }
            match wire.poll_write(cx, connection.output()) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(End::Closed),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    fn events(&self, role: &mut impl FnMut(Event)) {
        loop {
            let Some(event) = self.connection().event() else { return };
            match event {
                Event::Data { stream, bytes, end } => self.data(stream, bytes, end),
                Event::Trailers { stream, headers } => {
                    if let Some(side) = self.side(stream) {
                        side.finish((!headers.is_empty()).then_some(headers));
                    }
                }
                Event::Writable { stream } => {
                    if let Some(side) = self.side(stream) {
                        side.writable();
                    }
                }
                other => role(other),
            }
        }
    }

    fn data(&self, stream: Stream, bytes: bytes::Bytes, end: bool) {
        match self.side(stream) {
            Some(side) if !side.unwanted.get() => side.push(bytes, end),
            side => {
                self.connection().consumed(stream, bytes.len());
                if let Some(side) = side.filter(|_| end) {
                    side.finish(None);
                }
            }
        }
    }

    /// The connection is over, and with it every stream. Requests under way on one that broke a rule are as good as any until
    /// they are answered: their bodies break off, and nobody gets the answer.
    pub(super) fn end(&self, failure: &Failure, fate: (Flag, &'static str), broke: bool) {
        self.over.set(true);
        let sides = self.sides.take();
        for (_, side) in sides.into_iter().flatten() {
            if broke && !side.answered.get() {
                side.tell(fate);
                side.break_off(Broken { failure: failure.clone(), malformed: true });
                continue;
            }
            side.answer(Err((failure.clone(), false)));
            side.break_off(Broken { failure: failure.clone(), malformed: false });
            side.end(fate);
        }
    }

    /// Looks after clocks. `also`: something else is due then, in milliseconds.
    pub(super) fn poll_clock(&self, cx: &mut Context<'_>, also: Option<u64>) -> Result<bool, ConnectionError> {
        loop {
            let now = clock::now().0;
            self.connection().tick(now)?;
            if also.is_some_and(|at| at <= now) {
                return Ok(true);
            }
            let deadline = self.connection().deadline();
            let Some(next) = [deadline, also].into_iter().flatten().min() else { return Ok(false) };
            let mut timer = self.timer.borrow_mut();
            let at = (clock::origin() + Duration::from_millis(next)).into();
            let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            if sleep.deadline() != at {
                sleep.as_mut().reset(at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
        }
    }

    /// Moves a body onto a stream as far as there is room.
    pub(super) fn poll_flow<B>(
        &self,
        cx: &mut Context<'_>,
        stream: Stream,
        side: &Side,
        body: &mut B,
    ) -> Poll<Result<(), B::Error>>
    where
        B: Body<Data = bytes::Bytes> + Unpin,
    {
        let mut said = false;
        let polled = loop {
            match self.connection().capacity(stream) {
                Ok(0) => {
                    side.wait_to_write(cx);
                    break Poll::Pending;
                }
                Ok(_) => {}
                // The stream is gone: nobody wants the rest.
                Err(_) => break Poll::Ready(Ok(())),
            }
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => break Poll::Pending,
                Poll::Ready(frame) => frame.transpose()?,
            };
            said = true;
            let last = frame.as_ref().is_none_or(|frame| frame.is_trailers() || body.is_end_stream());
            let mut connection = self.connection();
            let sent = match frame.map(http_body::Frame::into_data) {
                None => connection.send_data(stream, bytes::Bytes::new(), true),
                Some(Ok(data)) => connection.send_data(stream, data, last),
                Some(Err(frame)) => match frame.into_trailers() {
                    Ok(trailers) => connection.send_trailers(stream, trailers),
                    Err(_) => Ok(()),
                },
            };
            if last || sent.is_err() {
                break Poll::Ready(Ok(()));
            }
        };
        if said {
            self.wake();
        }
        polled
    }
}

/// What the end of a stream means to whoever sent a request on it, and whether it was surely not looked at.
pub(super) fn lost(code: Code, cause: Cause) -> (Failure, bool) {
    match cause {
        Cause::Unprocessed => (Failure::new(Kind::UpstreamRefusedStream), true),
        // Whether it is tried again is for the policy to say, as in Envoy.
        Cause::Peer if code == Code::REFUSED_STREAM => (Failure::new(Kind::UpstreamRefusedStream), false),
        Cause::Peer => (Failure::new(Kind::UpstreamReset), false),
        Cause::Refused(reason) => (Failure::new(Kind::UpstreamProtocol).with_reason(reason), false),
    }
}
