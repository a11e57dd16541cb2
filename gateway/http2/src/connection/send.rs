//! Sending: heads at once and in order, data as the windows allow and in turns.

use super::Connection;
use crate::{
    code::Code,
    event::{Event, Gone, Unopened},
    field::is_forbidden,
    frame::{FrameHead, HEAD, MIN_MAX_FRAME, flag, kind},
    head::RequestLine,
    hpack::Pseudo,
    stream::{Finish, Slot, Stream},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};

/// While more than this waits to be written, data stays with its stream: it can still be dropped there, and others get their
/// turn.
const HIGH: usize = 128 << 10;

impl Connection {
    /// Opens a stream with a request (client).
    ///
    /// # Errors
    /// When there is no room or the connection ends; nothing was written then.
    pub fn send_request(&mut self, line: &RequestLine, headers: &HeaderMap, end: bool) -> Result<Stream, Unopened> {
        if self.is_ending() {
            return Err(Unopened::Ending);
        }
        if self.room() == 0 {
            return Err(Unopened::Full);
        }
        // As Envoy: what a peer that has not yet spoken takes is for it to say.
        if line.protocol.is_some() && self.greeted && !self.peer.extended_connect {
            return Err(Unopened::NotExtended);
        }
        let id = self.next_local;
        self.next_local += 2;
        let fresh = Slot {
            head_sent: true,
            local_open: !end,
            bodiless: *line.method == Method::HEAD,
            connect: *line.method == Method::CONNECT,
            ..self.fresh_slot()
        };
        let stream = self.streams.insert(id, fresh);
        self.write_head(id, end, Some(line), None, headers);
        Ok(stream)
    }

    /// Streams that can still be opened (client).
    #[must_use]
    pub fn room(&self) -> u32 {
        if self.is_ending() {
            return 0;
        }
        let open = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        self.peer.max_streams.min(self.settings.max_streams).saturating_sub(open)
    }

    /// Sends an interim response (server).
    ///
    /// # Errors
    /// When the stream is gone or its response has begun.
    pub fn send_interim(&mut self, stream: Stream, status: StatusCode, headers: &HeaderMap) -> Result<(), Gone> {
        self.streams.slot(stream).filter(|slot| !slot.head_sent && slot.local_open).ok_or(Gone)?;
        self.write_head(stream.id(), false, None, Some(status), headers);
        Ok(())
    }

    /// Sends the head of a response (server).
    ///
    /// # Errors
    /// When the stream is gone or has one already.
    pub fn send_response(
        &mut self,
        stream: Stream,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
    ) -> Result<(), Gone> {
        let slot = self.streams.slot(stream).filter(|slot| !slot.head_sent && slot.local_open).ok_or(Gone)?;
        slot.head_sent = true;
        self.write_head(stream.id(), end, None, Some(status), headers);
        if end {
            self.local_closed(stream);
        }
        Ok(())
    }

    /// Sends data, or keeps it until it may be sent. Look at [`Self::capacity`] first: what is given is taken.
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn send_data(&mut self, stream: Stream, bytes: Bytes, end: bool) -> Result<(), Gone> {
        let slot = self.streams.slot(stream).ok_or(Gone)?;
        if !slot.local_open || !slot.head_sent || !matches!(slot.finish, Finish::No) {
            return Err(Gone);
        }
        if bytes.is_empty() && !end {
            return Ok(());
        }
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let at_once = slot.pending.is_empty()
            && bytes.len() <= MIN_MAX_FRAME as usize
            && (length == 0 || length <= slot.send_window.min(self.send_window));
        if at_once && self.ready.is_empty() && self.output.len() < HIGH {
            slot.send_window -= length;
            self.send_window -= length;
            self.write_data(stream, bytes, end);
            return Ok(());
        }
        if !bytes.is_empty() {
            slot.pending_bytes += bytes.len();
            slot.pending.push_back(bytes);
        }
        if end {
            slot.finish = Finish::End;
        }
        self.enqueue(stream);
        Ok(())
    }

    /// Ends a message with trailers.
    ///
    /// # Errors
    /// When the stream is gone.
    pub fn send_trailers(&mut self, stream: Stream, headers: HeaderMap) -> Result<(), Gone> {
        let slot = self.streams.slot(stream).ok_or(Gone)?;
        if !slot.local_open || !slot.head_sent || !matches!(slot.finish, Finish::No) {
            return Err(Gone);
        }
        if slot.pending.is_empty() {
            self.write_trailers(stream, &headers);
            return Ok(());
        }
        slot.finish = Finish::Trailers(Box::new(headers));
        self.enqueue(stream);
        Ok(())
    }

    /// Bytes that a stream's queue takes now. After 0 there comes [`Event::Writable`].
    pub fn capacity(&mut self, stream: Stream) -> Result<usize, Gone> {
        let most = self.settings.send_buffer;
        let slot = self.streams.slot(stream).filter(|slot| slot.local_open).ok_or(Gone)?;
        let room = most.saturating_sub(slot.pending_bytes);
        slot.waiting |= room == 0;
        Ok(room)
    }

    /// Ends a stream at once. Data that waits is dropped.
    pub fn reset(&mut self, stream: Stream, code: Code) {
        if self.streams.remove(stream) {
            self.write_reset(stream.id(), code);
        }
    }

    /// What still comes in on a stream is of no interest. When our side is complete, the peer is told.
    pub fn discard(&mut self, stream: Stream) {
        let Some(slot) = self.streams.slot(stream) else { return };
        slot.discard = true;
        if slot.remote_open && !slot.local_open {
            self.reset(stream, Code::NO_ERROR);
        }
    }

    /// Writes data of streams that wait, in turns, as far as windows allow and as little as a write takes.
    pub fn pump(&mut self) {
        while self.output.len() < HIGH {
            let Some(stream) = self.ready.pop_front() else { return };
            if !self.send_one(stream) {
                self.ready.push_front(stream);
                return;
            }
        }
    }

    /// Data waits that [`Self::pump`] could write once there is room in the output.
    #[must_use]
    pub fn is_backlogged(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Sends one frame of a stream; false when the connection's window is closed.
    fn send_one(&mut self, stream: Stream) -> bool {
        let connection_window = self.send_window;
        let half = self.settings.send_buffer / 2;
        let Some(slot) = self.streams.slot(stream) else { return true };
        slot.queued = false;
        let Some(first) = slot.pending.front_mut() else {
            self.send_finish(stream);
            return true;
        };
        let window = connection_window.min(slot.send_window);
        if window <= 0 {
            slot.queued = connection_window <= 0;
            return !slot.queued;
        }
        let most = usize::try_from(window).unwrap_or(usize::MAX).min(MIN_MAX_FRAME as usize);
        let bytes =
            if first.len() > most { first.split_to(most) } else { slot.pending.pop_front().unwrap_or_default() };
        let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        slot.send_window -= length;
        slot.pending_bytes -= bytes.len();
        let last = slot.pending.is_empty() && matches!(slot.finish, Finish::End);
        if slot.waiting && slot.pending_bytes <= half {
            slot.waiting = false;
            self.events.push_back(Event::Writable { stream });
        }
        self.send_window -= length;
        self.write_data(stream, bytes, last);
        self.enqueue(stream);
        true
    }

    fn send_finish(&mut self, stream: Stream) {
        let Some(slot) = self.streams.slot(stream) else { return };
        match std::mem::take(&mut slot.finish) {
            Finish::No => {}
            Finish::End => self.write_data(stream, Bytes::new(), true),
            Finish::Trailers(headers) => self.write_trailers(stream, &headers),
        }
    }

    /// Puts a stream among those that have something to send, if it has.
    pub(super) fn enqueue(&mut self, stream: Stream) {
        let Some(slot) = self.streams.slot(stream) else { return };
        if slot.local_open && !slot.queued && slot.sendable() {
            slot.queued = true;
            self.ready.push_back(stream);
        }
    }

    fn write_data(&mut self, stream: Stream, bytes: Bytes, end: bool) {
        self.guard.useful();
        self.output.data(stream.id(), bytes, end);
        if end {
            self.local_closed(stream);
        }
    }

    fn write_trailers(&mut self, stream: Stream, headers: &HeaderMap) {
        self.write_head(stream.id(), true, None, None, headers);
        self.local_closed(stream);
    }

    /// We said all on a stream.
    fn local_closed(&mut self, stream: Stream) {
        let Some(slot) = self.streams.slot(stream) else { return };
        slot.local_open = false;
        slot.finish = Finish::No;
        if !slot.remote_open {
            self.forget(stream);
            self.guard.completed();
        } else if slot.discard {
            self.reset(stream, Code::NO_ERROR);
        }
    }

    fn write_head(
        &mut self,
        id: u32,
        end: bool,
        line: Option<&RequestLine>,
        status: Option<StatusCode>,
        headers: &HeaderMap,
    ) {
        let (tail, encoder) = (self.output.tail(), &mut self.encoder);
        let start = tail.len();
        tail.extend_from_slice(&[0; HEAD]);
        encoder.begin(tail);
        if let Some(line) = line {
            request_line(encoder, line, tail);
        }
        if let Some(status) = status {
            encoder.pseudo(Pseudo::Status, status.as_str(), tail);
        }
        for (name, value) in headers {
            let host = line.is_some() && name == header::HOST;
            let te = name == header::TE && value != "trailers";
            if !host && !te && !is_forbidden(name) {
                encoder.header(name, value, tail);
            }
        }
        finish_block(tail, start, id, end, self.peer.max_frame as usize);
    }
}

fn request_line(encoder: &mut crate::hpack::Encoder, line: &RequestLine, out: &mut BytesMut) {
    encoder.pseudo(Pseudo::Method, line.method.as_str(), out);
    if *line.method != Method::CONNECT || line.protocol.is_some() {
        encoder.pseudo(Pseudo::Scheme, line.scheme, out);
    }
    if !line.authority.is_empty() {
        encoder.pseudo(Pseudo::Authority, line.authority, out);
    }
    if *line.method != Method::CONNECT || line.protocol.is_some() {
        encoder.pseudo(Pseudo::Path, line.path, out);
    }
    if let Some(protocol) = line.protocol {
        encoder.pseudo(Pseudo::Protocol, protocol, out);
    }
}

/// Puts the frame's head before a block, or cuts the block into several frames.
fn finish_block(out: &mut BytesMut, start: usize, stream: u32, end: bool, most: usize) {
    let flags = if end { flag::END_STREAM } else { 0 };
    let length = out.len() - start - HEAD;
    if length <= most {
        let head = FrameHead { length, kind: kind::HEADERS, flags: flags | flag::END_HEADERS, stream };
        if let Some(place) = out.get_mut(start..start + HEAD) {
            place.copy_from_slice(&head.bytes());
        }
        return;
    }
    let block = out.split_off(start + HEAD);
    out.truncate(start);
    let pieces = block.len().div_ceil(most);
    for (at, piece) in block.chunks(most).enumerate() {
        let (kind, first) = if at == 0 { (kind::HEADERS, flags) } else { (kind::CONTINUATION, 0) };
        let last = if at + 1 == pieces { flag::END_HEADERS } else { 0 };
        FrameHead { length: piece.len(), kind, flags: first | last, stream }.put(out);
        out.extend_from_slice(piece);
    }
}
