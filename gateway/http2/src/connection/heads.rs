//! Complete header blocks: requests, responses and trailers.

use super::{Connection, Leaving};
use crate::{
    code::{Code, Fault},
    event::Event,
    head::{Collector, Flaw, Part},
    stream::{Slot, Stream},
};
use http::StatusCode;

impl Connection {
    /// A block is complete. Whatever becomes of it, it is decoded: the tables of both sides must stay in step.
    pub(super) fn block(&mut self, id: u32, end: bool, fragment: &[u8]) -> Result<(), Fault> {
        let found = self.streams.find(id);
        let head_seen = found.and_then(|s| self.streams.peek(s)).is_some_and(|slot| slot.head_seen);
        let part = match (self.server, head_seen) {
            (_, true) => Part::Trailers,
            (true, false) => Part::Request,
            (false, false) => Part::Response,
        };
        let mut collector = Collector::new(part, self.settings.head, self.expected);
        let decoded = self.decoder.decode(fragment, &mut collector);
        decoded.map_err(|e| Fault::Connection(Code::COMPRESSION_ERROR, e.0))?;
        match found {
            Some(stream) if head_seen => self.trailers(stream, end, collector),
            Some(stream) => self.response(stream, end, collector),
            None if self.is_idle(id) && self.server => self.request(id, end, collector),
            None if self.is_idle(id) => Err(Fault::protocol("HEADERS on an idle stream")),
            None if self.is_ignored(id) => self.guard.nuisance(1, "too many headers for streams that are gone"),
            None => Err(Fault::Connection(Code::STREAM_CLOSED, "HEADERS on a closed stream")),
        }
    }

    fn request(&mut self, id: u32, end: bool, collector: Collector) -> Result<(), Fault> {
        self.last_remote = id;
        if matches!(self.leaving, Leaving::Final(_)) {
            return self.guard.nuisance(1, "too many streams after GOAWAY");
        }
        if self.streams.len() >= self.settings.max_streams as usize {
            return Err(Fault::Stream(id, Code::REFUSED_STREAM, "too many streams"));
        }
        self.guard.useful();
        self.expected = collector.seen().clamp(4, 32);
        let read = collector.request(self.settings.extended_connect);
        if let Err(Flaw::Malformed(reason)) = &read {
            self.events.push_back(Event::Unheard { reason });
        }
        let (head, length) = read.map_err(|flaw| judge(id, flaw))?;
        if end && length.is_some_and(|length| length != 0) {
            return Err(Fault::Malformed(id, "http2.violation.of.messaging.rule"));
        }
        let fresh = Slot { head_seen: true, remote_open: !end, length, ..self.fresh_slot() };
        let stream = self.streams.insert(id, fresh);
        self.events.push_back(Event::Request { stream, head: Box::new(head), length, end });
        Ok(())
    }

    fn response(&mut self, stream: Stream, end: bool, collector: Collector) -> Result<(), Fault> {
        let id = stream.id();
        self.expected = collector.seen().clamp(4, 32);
        let (head, length) = collector.response().map_err(|flaw| judge(id, flaw))?;
        let malformed = Err(Fault::Malformed(id, "http2.violation.of.messaging.rule"));
        if head.status.is_informational() {
            if end {
                return malformed;
            }
            self.guard.nuisance(1, "too many interim responses")?;
            self.events.push_back(Event::Interim { stream, head });
            return Ok(());
        }
        self.guard.useful();
        let Some(slot) = self.streams.slot(stream) else { return Ok(()) };
        let tunnel = slot.connect && head.status.is_success();
        let empty = slot.bodiless || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = if tunnel {
            None
        } else if empty {
            Some(0)
        } else {
            length
        };
        if end && length.is_some_and(|length| length != 0) {
            return malformed;
        }
        slot.head_seen = true;
        slot.length = length;
        self.events.push_back(Event::Response { stream, head: Box::new(head), length, end });
        if end {
            self.remote_closed(stream);
        }
        Ok(())
    }

    fn trailers(&mut self, stream: Stream, end: bool, collector: Collector) -> Result<(), Fault> {
        let id = stream.id();
        let Some(slot) = self.streams.slot(stream) else { return Ok(()) };
        if !slot.remote_open {
            return Err(Fault::Stream(id, Code::STREAM_CLOSED, "HEADERS after the end"));
        }
        if !end {
            return Err(Fault::Malformed(id, "http2.violation.of.messaging.rule"));
        }
        let (short, discard) = (slot.length.is_some_and(|left| left != 0), slot.discard);
        let headers = collector.trailers().map_err(|flaw| judge(id, flaw))?;
        if short {
            return Err(Fault::Stream(id, Code::PROTOCOL_ERROR, "body differs from content-length"));
        }
        if !discard {
            self.events.push_back(Event::Trailers { stream, headers: Box::new(headers) });
        }
        self.remote_closed(stream);
        Ok(())
    }
}

fn judge(id: u32, flaw: Flaw) -> Fault {
    match flaw {
        Flaw::Malformed(reason) => Fault::Malformed(id, reason),
        Flaw::TooMany => Fault::Stream(id, Code::INTERNAL_ERROR, "http2.too_many_headers"),
        Flaw::TooLarge => Fault::Stream(id, Code::INTERNAL_ERROR, "http2.headers_too_large"),
    }
}
