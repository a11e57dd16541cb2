//! Filters that change bodies while they pass.
//!
//! Owns the bytes: what is to be done was decided by the core from the heads. A filtered body is an [`Incoming`] like any other and
//! is read only as fast as the other side takes it; what one step makes of one piece is bounded.

mod coder;
mod hooks;
mod web;

pub(crate) use hooks::{foreign_to_web, judged, local, request, response};

use crate::codec::{Broken, Incoming};
use bytes::{Bytes, BytesMut};
use coder::{Decoder, Encoder};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
};
use tombolo_gateway_core::{
    failure::{Failure, Kind},
    filter::{Recode, Recodes},
};
use web::{FromText, ToWeb};

/// A body and what is done to it.
pub(crate) struct Filtered {
    inner: Incoming,
    /// What came and was not worked on yet.
    input: Bytes,
    trailers: Option<HeaderMap>,
    step: Step,
    state: State,
    /// Whose fault it is when the body is not what it should be.
    fault: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Finishing,
    Trailers,
    Over,
}

enum Step {
    Encode(Box<Encoder>),
    Decode(Decoder),
    FromText(FromText),
    ToWeb(ToWeb),
    /// Nothing: the body was read before.
    Whole,
}

/// The bytes that a text of gRPC-Web stands for.
pub(crate) fn bytes_of_text(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let (mut step, mut out) = (FromText::default(), BytesMut::new());
    pieces.iter().try_for_each(|piece| step.run(piece, &mut out)).ok()?;
    step.finish().ok()?;
    Some(out.to_vec())
}

/// A body is not what it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Wraps a body into what is to be done to it. `fault` is what a malformed body means.
pub(crate) fn wrap(recodes: &Recodes, mut body: Incoming, fault: Kind) -> Incoming {
    for recode in recodes {
        let step = match *recode {
            Recode::Compress(coder) => Step::Encode(Box::new(Encoder::new(coder))),
            Recode::Decompress(coding, most) => Step::Decode(Decoder::new(coding, most)),
            Recode::FromText => Step::FromText(FromText::default()),
            Recode::ToWeb(text) => Step::ToWeb(ToWeb::new(text)),
            Recode::Buffer(_) => continue,
        };
        body = boxed(body, Bytes::new(), None, step, fault);
    }
    body
}

fn boxed(inner: Incoming, input: Bytes, trailers: Option<HeaderMap>, step: Step, fault: Kind) -> Incoming {
    Incoming::Filtered(Box::new(Filtered { inner, input, trailers, step, state: State::Reading, fault }))
}

/// Keeps a request back until it is complete. The second is its length.
///
/// # Errors
/// It is longer than allowed, or the client broke it off.
pub(crate) async fn whole(mut body: Incoming, most: u64, counted: &Cell<u64>) -> Result<(Incoming, usize), Failure> {
    let mut all = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|broken| match broken.malformed {
            true => Failure::new(Kind::MalformedRequest),
            false => Failure::new(Kind::DownstreamDisconnect),
        })?;
        if let Some(data) = frame.data_ref() {
            counted.set(counted.get() + data.len() as u64);
        }
        match frame.into_data() {
            Ok(data) if (all.len() + data.len()) as u64 > most => return Err(Failure::new(Kind::RequestTooLarge)),
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let length = all.len();
    Ok((boxed(Incoming::Empty, all.freeze(), trailers, Step::Whole, Kind::MalformedRequest), length))
}

/// Applies what is to be done to a body that is here as a whole.
pub(crate) fn at_once(recodes: &Recodes, body: Bytes) -> Bytes {
    let mut body = body;
    for recode in recodes {
        let Recode::Compress(coder) = *recode else { continue };
        let mut encoder = Encoder::new(coder);
        let mut out = BytesMut::new();
        if encoder.run(&body, &mut out).and_then(|()| encoder.finish(&mut out)).is_ok() {
            body = out.freeze();
        }
    }
    body
}

impl Step {
    /// Works on a part of the input.
    fn run(&mut self, input: &mut Bytes, out: &mut BytesMut) -> Result<(), Malformed> {
        match self {
            Self::Encode(encoder) => encoder.run(&input.split_off(0), out),
            Self::Decode(decoder) => decoder.run(&input.split_to(input.len().min(coder::SLICE)), out),
            Self::FromText(text) => text.run(&input.split_off(0), out),
            Self::ToWeb(web) => {
                web.run(&input.split_off(0), out);
                Ok(())
            }
            Self::Whole => Ok(()),
        }
    }

    /// There is no more input. Trailers may become a part of the body.
    fn finish(&mut self, trailers: &mut Option<HeaderMap>, out: &mut BytesMut) -> Result<(), Malformed> {
        match self {
            Self::Encode(encoder) => encoder.finish(out),
            Self::Decode(decoder) => decoder.finish(out),
            Self::FromText(text) => text.finish(),
            Self::ToWeb(web) => {
                web.finish(trailers.take(), out);
                Ok(())
            }
            Self::Whole => Ok(()),
        }
    }
}

impl Filtered {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if !self.input.is_empty() {
                if let Some(ready) = self.work() {
                    return Poll::Ready(Some(ready));
                }
                continue;
            }
            match self.state {
                State::Reading => match std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                    None => self.state = State::Finishing,
                    Some(Err(broken)) => {
                        self.state = State::Over;
                        return Poll::Ready(Some(Err(broken)));
                    }
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.input = data,
                        Err(frame) => {
                            self.trailers = frame.into_trailers().ok();
                            self.state = State::Finishing;
                        }
                    },
                },
                State::Finishing => {
                    self.state = State::Trailers;
                    let mut out = BytesMut::new();
                    if self.step.finish(&mut self.trailers, &mut out).is_err() {
                        return Poll::Ready(Some(Err(self.malformed())));
                    }
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
                    }
                }
                State::Trailers => {
                    self.state = State::Over;
                    return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }

    /// Works on what is there; `None` when nothing came out of it yet.
    fn work(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        if matches!(self.step, Step::Whole) {
            return Some(Ok(Frame::data(std::mem::take(&mut self.input))));
        }
        let mut out = BytesMut::new();
        if self.step.run(&mut self.input, &mut out).is_err() {
            return Some(Err(self.malformed()));
        }
        (!out.is_empty()).then(|| Ok(Frame::data(out.freeze())))
    }

    fn malformed(&mut self) -> Broken {
        self.state = State::Over;
        self.input = Bytes::new();
        Broken { failure: Failure::new(self.fault), malformed: true }
    }

    /// The body that is changed.
    pub(crate) fn inner(&self) -> &Incoming {
        &self.inner
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.state == State::Over && self.input.is_empty()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.step {
            Step::Whole => SizeHint::with_exact(self.input.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
