//! The receiving side of a request stream.

use super::code;
use bytes::Bytes;
use std::{
    pin::pin,
    task::{Context, Poll, ready},
};
use tombolo_gateway_http3::{Code, Event, MessageReader, Scope, Side, Violation};

/// Taken from a stream at once; more waits within its window.
const PIECE: usize = 64 * 1024;

/// Why nothing more comes.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// The peer broke a rule.
    Broke(Violation),
    /// The peer gave the stream up with a code.
    Reset(u64),
    /// The connection is gone.
    Lost,
}

impl From<Violation> for Trouble {
    fn from(violation: Violation) -> Self {
        Self::Broke(violation)
    }
}

/// A stream's receiving side with the frames on it.
pub(super) struct Receiver {
    stream: quinn::RecvStream,
    reader: MessageReader,
    connection: quinn::Connection,
    /// Everything that will come has come.
    ended: bool,
}

impl Receiver {
    pub(super) fn new(stream: quinn::RecvStream, connection: &quinn::Connection, side: Side, largest: usize) -> Self {
        Self { stream, reader: MessageReader::new(side, largest), connection: connection.clone(), ended: false }
    }

    /// The head that came is an interim one.
    pub(super) fn interim(&mut self) {
        self.reader.interim();
    }

    /// The next part of the message; `None` at its end.
    pub(super) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, Trouble>> {
        loop {
            if let Some(event) = self.reader.read()? {
                return Poll::Ready(Ok(Some(event)));
            }
            if self.ended {
                self.reader.finish()?;
                return Poll::Ready(Ok(None));
            }
            match ready!(self.poll_chunk(cx))? {
                Some(bytes) => self.reader.feed(bytes),
                None => self.ended = true,
            }
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Trouble>> {
        // Made anew each time: it keeps nothing between polls.
        let chunk = ready!(pin!(self.stream.read_chunk(PIECE, true)).poll(cx));
        Poll::Ready(match chunk {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(quinn::ReadError::Reset(code)) => {
                self.ended = true;
                Err(Trouble::Reset(code.into_inner()))
            }
            Err(_) => {
                self.ended = true;
                Err(Trouble::Lost)
            }
        })
    }

    /// Nothing more of it is wanted.
    pub(super) fn stop(&mut self, why: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            let _ = self.stream.stop(code(why));
        }
    }

    /// Does what a broken rule asks for, as far as this side of the stream and the connection are concerned.
    pub(super) fn punish(&mut self, violation: &Violation) {
        match violation.scope {
            Scope::Connection => self.connection.close(code(violation.code), violation.reason.as_bytes()),
            Scope::Stream => self.stop(violation.code),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop(Code::NO_ERROR);
    }
}
