//! A message's body as it comes: data, its promised length, trailers.

use super::receive::{Receiver, Trouble};
use crate::codec::Broken;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    cell::Cell,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tombolo_gateway_core::failure::{Failure, Kind};
use tombolo_gateway_http3::{Code, Event, Side, Violation, trailers};

/// What the sending side of a stream must say because its receiving side broke a rule.
pub(super) type Verdict = Rc<Cell<Option<Code>>>;

/// A body.
pub(crate) struct Body {
    receiver: Receiver,
    side: Side,
    /// Read before the body was asked for.
    ahead: Option<Event>,
    /// Bytes that must still come.
    left: Option<u64>,
    largest: usize,
    over: bool,
    verdict: Verdict,
    /// Lives as long as the body does.
    _held: Option<Box<dyn std::any::Any>>,
}

impl Body {
    pub(super) fn new(receiver: Receiver, side: Side, left: Option<u64>, largest: usize) -> Self {
        Self { receiver, side, ahead: None, left, largest, over: false, verdict: Rc::default(), _held: None }
    }

    /// A body of which the first part was read.
    pub(super) fn with_ahead(mut self, ahead: Event) -> Self {
        self.ahead = Some(ahead);
        self
    }

    /// Keeps something for as long as the body is wanted.
    pub(super) fn holding(mut self, held: Box<dyn std::any::Any>) -> Self {
        self._held = Some(held);
        self
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.clone()
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let event = match self.ahead.take() {
            Some(event) => Ok(Some(event)),
            None => ready!(self.receiver.poll_event(cx)),
        };
        let frame = event.and_then(|event| self.understand(event).map_err(Trouble::from));
        match frame {
            Ok(Some(frame)) if frame.is_trailers() => match self.receiver.poll_event(cx) {
                // Nobody asks for what comes after trailers, so it is looked at now.
                Poll::Ready(Err(trouble)) => {
                    self.over = true;
                    Poll::Ready(Some(Err(self.broken(&trouble))))
                }
                Poll::Ready(Ok(_)) | Poll::Pending => {
                    self.over = true;
                    Poll::Ready(Some(Ok(frame)))
                }
            },
            Ok(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Ok(None) => {
                self.over = true;
                Poll::Ready(None)
            }
            Err(trouble) => {
                self.over = true;
                Poll::Ready(Some(Err(self.broken(&trouble))))
            }
        }
    }

    fn understand(&mut self, event: Option<Event>) -> Result<Option<Frame<Bytes>>, Violation> {
        match event {
            Some(Event::Data(data)) => {
                if let Some(left) = &mut self.left {
                    *left = left
                        .checked_sub(data.len() as u64)
                        .ok_or(Violation::message("the body is longer than its length"))?;
                }
                Ok(Some(Frame::data(data)))
            }
            Some(Event::Trailers(section)) => {
                self.check_length()?;
                Ok(Some(Frame::trailers(trailers(section, self.largest)?)))
            }
            Some(Event::Head(_)) => Err(Violation::message("a second head")),
            None => {
                self.check_length()?;
                Ok(None)
            }
        }
    }

    fn check_length(&self) -> Result<(), Violation> {
        if self.left.is_some_and(|left| left > 0) {
            return Err(Violation::message("the body is shorter than its length"));
        }
        Ok(())
    }

    fn broken(&mut self, trouble: &Trouble) -> Broken {
        let client = self.side == Side::Request;
        match trouble {
            Trouble::Broke(violation) => {
                self.receiver.punish(violation);
                self.verdict.set(Some(violation.code));
                let kind = if client { Kind::DownstreamReset } else { Kind::UpstreamProtocol };
                Broken { failure: Failure::new(kind).with_reason(violation.reason), malformed: true }
            }
            Trouble::Reset(_) => {
                let kind = if client { Kind::DownstreamReset } else { Kind::UpstreamReset };
                Broken { failure: Failure::new(kind), malformed: false }
            }
            Trouble::Lost => {
                let kind = if client { Kind::DownstreamDisconnect } else { Kind::UpstreamClosed };
                Broken { failure: Failure::new(kind), malformed: false }
            }
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.over
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
