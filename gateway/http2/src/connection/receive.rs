//! Reading frames.

use super::{Block, Connection};
use crate::{
    code::{Code, Fault},
    event::{Cause, Event},
    frame::{self, FrameHead, HEAD, MIN_MAX_FRAME, PREFACE, flag, kind},
    stream::Stream,
};
use bytes::{Buf as _, Bytes, BytesMut};

/// Data below this is copied, so that a few bytes do not keep a large buffer alive.
const COPIED: usize = 256;
/// Points for frames that bring nothing, where one is too few.
const EMPTY: u32 = 20;

impl Connection {
    /// Reads one frame; false when none is complete.
    pub(super) fn step(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        if self.preface > 0 && !self.preface(input)? {
            return Ok(false);
        }
        let Some(head) = FrameHead::parse(input) else { return Ok(false) };
        if head.length > MIN_MAX_FRAME as usize {
            return Err(Fault::size("frame larger than allowed"));
        }
        if !self.greeted && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Fault::protocol("SETTINGS must come first"));
        }
        let total = HEAD + head.length;
        if input.len() < total {
            return Ok(false);
        }
        let continued = self.block.as_ref().is_none_or(|b| head.kind == kind::CONTINUATION && head.stream == b.stream);
        if !continued {
            return Err(Fault::protocol("header block interrupted"));
        }
        if head.kind == kind::DATA {
            self.data(head, input)?;
            return Ok(true);
        }
        let outcome = match input.get(HEAD..total) {
            Some(payload) => self.frame(head, payload),
            None => Ok(()),
        };
        input.advance(total);
        outcome.map(|()| true)
    }

    /// Takes the preface as far as it came; true when it is complete.
    fn preface(&mut self, input: &mut BytesMut) -> Result<bool, Fault> {
        let expected = PREFACE.get(PREFACE.len() - self.preface..).unwrap_or_default();
        let came = input.len().min(expected.len());
        if input.get(..came) != expected.get(..came) {
            return Err(Fault::protocol("no HTTP/2 preface"));
        }
        input.advance(came);
        self.preface -= came;
        Ok(self.preface == 0)
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        match head.kind {
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::RST_STREAM => self.reset_frame(head, payload),
            kind::SETTINGS => self.settings_frame(head, payload),
            kind::PING => self.ping_frame(head, payload),
            kind::GOAWAY => self.goaway_frame(head, payload),
            kind::WINDOW_UPDATE => self.window_frame(head, payload),
            kind::PRIORITY => self.priority_frame(head, payload),
            kind::PUSH_PROMISE => Err(Fault::protocol("push is not allowed")),
            // Unknown frames are ignored, but not for ever.
            _ => self.guard.nuisance(1, "too many unknown frames"),
        }
    }

    fn data(&mut self, head: FrameHead, input: &mut BytesMut) -> Result<(), Fault> {
        input.advance(HEAD);
        if head.stream == 0 {
            return Err(Fault::protocol("DATA without a stream"));
        }
        let (begin, end) = frame::unpad(head, input.get(..head.length).unwrap_or_default())?;
        self.receive_window -= i64::try_from(head.length).unwrap_or(i64::MAX);
        if self.receive_window < 0 {
            return Err(Fault::Connection(Code::FLOW_CONTROL_ERROR, "connection window exceeded"));
        }
        let ends = head.has(flag::END_STREAM);
        if begin == end && !ends {
            self.guard.nuisance(EMPTY, "too many empty frames")?;
        } else {
            self.guard.useful();
        }
        let mut payload = input.split_to(head.length);
        let taken = self.take_data(head, end - begin, ends);
        let Ok(Some(stream)) = taken else {
            self.credit(head.length);
            return taken.map(|_| ());
        };
        self.consumed(stream, head.length - (end - begin));
        payload.truncate(end);
        payload.advance(begin);
        let bytes = if payload.len() < COPIED { Bytes::copy_from_slice(&payload) } else { payload.freeze() };
        if !bytes.is_empty() || ends {
            self.events.push_back(Event::Data { stream, bytes, end: ends });
        }
        if ends {
            self.remote_closed(stream);
        }
        Ok(())
    }

    /// Whether data may come in, and for whom. `None`: it is dropped.
    fn take_data(&mut self, head: FrameHead, content: usize, ends: bool) -> Result<Option<Stream>, Fault> {
        let id = head.stream;
        let Some(stream) = self.streams.find(id) else {
            return match (self.is_idle(id), self.is_ignored(id)) {
                (true, _) => Err(Fault::protocol("DATA on an idle stream")),
                (false, true) => Ok(None),
                (false, false) => Err(Fault::Stream(id, Code::STREAM_CLOSED, "DATA on a closed stream")),
            };
        };
        let Some(slot) = self.streams.slot(stream) else { return Ok(None) };
        if !slot.remote_open {
            return Err(Fault::Stream(id, Code::STREAM_CLOSED, "DATA after the end"));
        }
        if !slot.head_seen {
            return Err(Fault::Stream(id, Code::PROTOCOL_ERROR, "DATA before a head"));
        }
        slot.receive_window -= i64::try_from(head.length).unwrap_or(i64::MAX);
        if slot.receive_window < 0 {
            return Err(Fault::Stream(id, Code::FLOW_CONTROL_ERROR, "stream window exceeded"));
        }
        if let Some(left) = slot.length {
            match left.checked_sub(content as u64) {
                Some(left) if left == 0 || !ends => slot.length = Some(left),
                _ => return Err(Fault::Stream(id, Code::PROTOCOL_ERROR, "body differs from content-length")),
            }
        }
        if slot.discard {
            if ends {
                self.remote_closed(stream);
            }
            return Ok(None);
        }
        Ok(Some(stream))
    }

    fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream == 0 || head.stream.is_multiple_of(2) {
            return Err(Fault::protocol("HEADERS on a stream that cannot be"));
        }
        let (mut begin, end) = frame::unpad(head, payload)?;
        if head.has(flag::PRIORITY) {
            begin += 5;
        }
        let fragment = payload.get(begin..end).ok_or(Fault::size("HEADERS of a wrong size"))?;
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.block(head.stream, ends, fragment);
        }
        self.guard.nuisance(1, "too many header fragments")?;
        self.block = Some(Block { stream: head.stream, end: ends, bytes: fragment.to_vec() });
        Ok(())
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let points = if payload.is_empty() { EMPTY } else { 1 };
        self.guard.nuisance(points, "too many header fragments")?;
        let limit = self.settings.max_block();
        let block = self.block.as_mut().ok_or(Fault::protocol("CONTINUATION without a beginning"))?;
        if block.bytes.len() + payload.len() > limit {
            return Err(Fault::calm("header block too large"));
        }
        block.bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        match self.block.take() {
            Some(block) => self.block(block.stream, block.end, &block.bytes),
            None => Ok(()),
        }
    }

    fn reset_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let code = payload.try_into().map(u32::from_be_bytes).map_err(|_| Fault::size("RST_STREAM of a wrong size"))?;
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Fault::protocol("RST_STREAM on an idle stream"));
        }
        let Some(stream) = self.streams.find(head.stream) else {
            return self.guard.nuisance(1, "too many resets");
        };
        let early = self.streams.peek(stream).is_some_and(|slot| slot.local_open);
        let code = Code(code);
        self.events.push_back(Event::Reset { stream, code, cause: Cause::Peer });
        self.forget(stream);
        if early && self.server { self.guard.reset() } else { self.guard.nuisance(1, "too many resets") }
    }

    /// The peer said all on a stream.
    pub(super) fn remote_closed(&mut self, stream: Stream) {
        let Some(slot) = self.streams.slot(stream) else { return };
        slot.remote_open = false;
        if !slot.local_open {
            self.forget(stream);
            self.guard.completed();
        }
    }

    /// `count` bytes of a stream's data are out of our hands: the peer may send as many again.
    pub fn consumed(&mut self, stream: Stream, count: usize) {
        if count == 0 {
            return;
        }
        self.credit(count);
        let Some(slot) = self.streams.slot(stream) else { return };
        slot.unannounced = slot.unannounced.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        self.announce(stream);
    }

    /// Tells the peer of a stream's window once half of it was consumed.
    pub(super) fn announce(&mut self, stream: Stream) {
        let half = u32::try_from(self.stream_window / 2).unwrap_or(u32::MAX);
        let Some(slot) = self.streams.slot(stream) else { return };
        if slot.remote_open && slot.unannounced > 0 && slot.unannounced >= half {
            let more = std::mem::take(&mut slot.unannounced);
            slot.receive_window += i64::from(more);
            self.output.window(stream.id(), more);
        }
    }

    /// The same for the connection alone.
    pub(super) fn credit(&mut self, count: usize) {
        self.unannounced = self.unannounced.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if self.unannounced > 0 && self.unannounced >= self.settings.connection_window / 2 {
            let more = std::mem::take(&mut self.unannounced);
            self.receive_window += i64::from(more);
            self.output.window(0, more);
        }
    }
}
