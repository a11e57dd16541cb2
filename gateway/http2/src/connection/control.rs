//! Frames that concern the connection: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, PRIORITY. And its end.

use super::{ALIVE, Connection, LEAVING, Leaving};
use crate::{
    code::{Code, ConnectionError, Fault},
    event::{Cause, Event},
    frame::{FIRST_WINDOW, FrameHead, MAX_WINDOW, flag, number},
    stream::Stream,
};

const SETTINGS_POINTS: u32 = 10;

impl Connection {
    pub(super) fn settings_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Fault::size("acknowledgement of a wrong size"));
            }
            self.settings_acknowledged();
            return self.guard.nuisance(1, "too many acknowledgements");
        }
        if self.greeted {
            self.guard.nuisance(SETTINGS_POINTS, "too many SETTINGS")?;
        }
        let before = self.peer;
        let server = self.server;
        self.peer.read(payload, server)?;
        self.greeted = true;
        self.encoder.set_limit(self.peer.header_table as usize);
        self.shift_send_windows(i64::from(self.peer.stream_window) - i64::from(before.stream_window))?;
        self.output.settings_ack();
        self.bound_control()?;
        self.events.push_back(Event::Settings);
        Ok(())
    }

    /// From now on the peer keeps to what we announced.
    fn settings_acknowledged(&mut self) {
        if std::mem::replace(&mut self.acknowledged, true) {
            return;
        }
        self.decoder.set_limit(self.settings.header_table as usize);
        let shrunk = i64::from(FIRST_WINDOW) - i64::from(self.settings.stream_window);
        if shrunk > 0 {
            self.stream_window -= shrunk;
            for stream in self.streams.all() {
                if let Some(slot) = self.streams.slot(stream) {
                    slot.receive_window -= shrunk;
                }
                // What was not worth telling of a large window may be all of a small one.
                self.announce(stream);
            }
        }
    }

    fn shift_send_windows(&mut self, by: i64) -> Result<(), Fault> {
        if by == 0 {
            return Ok(());
        }
        for stream in self.streams.all() {
            let Some(slot) = self.streams.slot(stream) else { continue };
            slot.send_window += by;
            if slot.send_window > i64::from(MAX_WINDOW) {
                return Err(Fault::Connection(Code::FLOW_CONTROL_ERROR, "window too large"));
            }
            self.enqueue(stream);
        }
        Ok(())
    }

    pub(super) fn ping_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("PING on a stream"));
        }
        let opaque: [u8; 8] = payload.try_into().map_err(|_| Fault::size("PING of a wrong size"))?;
        self.guard.nuisance(1, "too many PINGs")?;
        if !head.has(flag::ACK) {
            self.output.ping(opaque, true);
            return self.bound_control();
        }
        match opaque {
            ALIVE => self.asked = None,
            LEAVING => self.leave_for_good(),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn goaway_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(Fault::protocol("GOAWAY on a stream"));
        }
        let Some((last, rest)) = payload.split_first_chunk::<4>() else {
            return Err(Fault::size("GOAWAY of a wrong size"));
        };
        let code = rest.first_chunk::<4>().copied().map(u32::from_be_bytes);
        let code = Code(code.ok_or(Fault::size("GOAWAY of a wrong size"))?);
        self.guard.nuisance(SETTINGS_POINTS, "too many GOAWAYs")?;
        self.refused = true;
        if !self.server {
            self.drop_unprocessed(u32::from_be_bytes(*last) & MAX_WINDOW);
        }
        self.events.push_back(Event::GoAway { code });
        Ok(())
    }

    /// Streams above `last` were not and will not be looked at.
    fn drop_unprocessed(&mut self, last: u32) {
        let mut gone: Vec<Stream> = self.streams.all();
        gone.retain(|stream| stream.id() > last);
        gone.sort_unstable_by_key(|stream| stream.id());
        for stream in gone {
            let (code, cause) = (Code::REFUSED_STREAM, Cause::Unprocessed);
            self.events.push_back(Event::Reset { stream, code, cause });
            self.forget(stream);
        }
    }

    pub(super) fn window_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let more = number(payload, "WINDOW_UPDATE of a wrong size")? & MAX_WINDOW;
        self.guard.nuisance(1, "too many WINDOW_UPDATEs")?;
        if head.stream == 0 {
            if more == 0 {
                return Err(Fault::protocol("WINDOW_UPDATE of 0"));
            }
            self.send_window += i64::from(more);
            if self.send_window > i64::from(MAX_WINDOW) {
                return Err(Fault::Connection(Code::FLOW_CONTROL_ERROR, "window too large"));
            }
            return Ok(());
        }
        if self.is_idle(head.stream) {
            return Err(Fault::protocol("WINDOW_UPDATE on an idle stream"));
        }
        let Some(stream) = self.streams.find(head.stream) else { return Ok(()) };
        let Some(slot) = self.streams.slot(stream) else { return Ok(()) };
        if more == 0 {
            return Err(Fault::Stream(head.stream, Code::PROTOCOL_ERROR, "WINDOW_UPDATE of 0"));
        }
        slot.send_window += i64::from(more);
        if slot.send_window > i64::from(MAX_WINDOW) {
            return Err(Fault::Stream(head.stream, Code::FLOW_CONTROL_ERROR, "window too large"));
        }
        self.enqueue(stream);
        Ok(())
    }

    pub(super) fn priority_frame(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream == 0 {
            return Err(Fault::protocol("PRIORITY without a stream"));
        }
        if payload.len() != 5 {
            return Err(match self.streams.find(head.stream) {
                Some(_) => Fault::Stream(head.stream, Code::FRAME_SIZE_ERROR, "PRIORITY of a wrong size"),
                None => Fault::size("PRIORITY of a wrong size"),
            });
        }
        self.guard.nuisance(1, "too many PRIORITY frames")
    }

    /// Begins the end: new streams are still taken until the peer knows. A second call, or the peer's answer, ends that.
    pub fn drain(&mut self) {
        match self.leaving {
            Leaving::No => {
                self.leaving = Leaving::Announced;
                if self.server {
                    self.output.goaway(MAX_WINDOW, Code::NO_ERROR.0);
                    self.output.ping(LEAVING, false);
                } else {
                    self.leaving = Leaving::Final(0);
                }
            }
            Leaving::Announced => self.leave_for_good(),
            Leaving::Final(_) => {}
        }
    }

    fn leave_for_good(&mut self) {
        if self.leaving == Leaving::Announced {
            self.leaving = Leaving::Final(self.last_remote);
            self.output.goaway(self.last_remote, Code::NO_ERROR.0);
        }
    }

    /// Ends it now, from our side.
    pub fn abort(&mut self, code: Code) {
        if self.error.is_none() {
            self.fail(code, "ended by us", false);
        }
    }

    /// Time went on: asks a silent peer whether it lives.
    ///
    /// # Errors
    /// When it did not answer in time.
    pub fn tick(&mut self, now: u64) -> Result<(), ConnectionError> {
        self.now = now;
        let Some((interval, patience)) = self.settings.keepalive else { return Ok(()) };
        match self.asked {
            Some(asked) if now.saturating_sub(asked) >= patience => {
                Err(self.fail(Code::NO_ERROR, "no answer to a PING", false))
            }
            Some(_) => Ok(()),
            None => {
                if now.saturating_sub(self.heard) >= interval {
                    self.asked = Some(now);
                    self.output.ping(ALIVE, false);
                }
                Ok(())
            }
        }
    }

    /// When `tick` has something to do next.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let (interval, patience) = self.settings.keepalive?;
        Some(self.asked.map_or(self.heard.saturating_add(interval), |asked| asked.saturating_add(patience)))
    }
}
