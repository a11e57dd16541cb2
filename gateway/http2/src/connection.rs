//! A connection, from its first byte to its end, in either role.
//!
//! Owns what is true of the whole connection: settings of both sides, windows, the order of streams, the way it ends. Reading
//! stands in `receive`, header blocks in `heads`, sending in `send`.

mod control;
mod heads;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use crate::{
    code::{Code, ConnectionError, Fault},
    event::{Cause, Event},
    frame::{FIRST_WINDOW, MAX_WINDOW, PREFACE},
    guard::Guard,
    hpack::{Decoder, Encoder},
    output::Output,
    settings::{PeerSettings, Settings},
    stream::{Slot, Stream, Streams},
};
use bytes::{BufMut as _, BytesMut};
use std::collections::VecDeque;

/// Streams that we reset and that the peer may not know of yet.
const REMEMBERED: usize = 128;
/// What our PINGs carry: to see whether the peer lives, and to learn that it knows of our GOAWAY.
const ALIVE: [u8; 8] = *b"tombolo?";
const LEAVING: [u8; 8] = *b"tombolo!";

/// How far its end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// Not at all.
    No,
    /// It was announced; streams that the peer opened before it knew are still taken.
    Announced,
    /// Streams above this number are not taken.
    Final(u32),
}

/// A header block that continues in the next frame.
struct Block {
    stream: u32,
    end: bool,
    bytes: Vec<u8>,
}

/// An HTTP/2 connection without its socket.
pub struct Connection {
    server: bool,
    settings: Settings,
    peer: PeerSettings,
    /// The peer's first SETTINGS arrived.
    greeted: bool,
    /// Ours were acknowledged.
    acknowledged: bool,
    /// Bytes of the preface that still have to come.
    preface: usize,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    events: VecDeque<Event>,
    output: Output,
    guard: Guard,
    /// Window of fresh streams, as the peer knows it.
    stream_window: i64,
    receive_window: i64,
    unannounced: u32,
    send_window: i64,
    /// Streams with something to send.
    ready: VecDeque<Stream>,
    block: Option<Block>,
    /// The highest stream that the peer opened.
    last_remote: u32,
    /// The next stream that we open.
    next_local: u32,
    leaving: Leaving,
    /// The peer sent GOAWAY.
    refused: bool,
    error: Option<ConnectionError>,
    recently_reset: VecDeque<u32>,
    /// Fields of the last head.
    expected: usize,
    now: u64,
    /// When something last came in.
    heard: u64,
    /// A PING was sent then and is not answered.
    asked: Option<u64>,
}

impl Connection {
    /// The server's side of a connection. `now` is any clock of milliseconds that never goes back.
    #[must_use]
    pub fn server(settings: Settings, now: u64) -> Self {
        Self::new(settings, true, now)
    }

    /// The client's side of a connection.
    #[must_use]
    pub fn client(settings: Settings, now: u64) -> Self {
        Self::new(settings, false, now)
    }

    fn new(settings: Settings, server: bool, now: u64) -> Self {
        let announced = settings.announced(server);
        let window = settings.connection_window.clamp(FIRST_WINDOW, MAX_WINDOW);
        let mut connection = Self {
            server,
            peer: PeerSettings::default(),
            greeted: false,
            acknowledged: false,
            preface: if server { PREFACE.len() } else { 0 },
            decoder: Decoder::new(settings.header_table as usize),
            encoder: Encoder::new(settings.huffman),
            streams: Streams::default(),
            events: VecDeque::new(),
            output: Output::default(),
            guard: Guard::default(),
            // A smaller window than the first one holds only when the peer knows of it.
            stream_window: i64::from(settings.stream_window.clamp(FIRST_WINDOW, MAX_WINDOW)),
            receive_window: i64::from(window),
            unannounced: 0,
            send_window: i64::from(FIRST_WINDOW),
            ready: VecDeque::new(),
            block: None,
            last_remote: 0,
            next_local: 1,
            leaving: Leaving::No,
            refused: false,
            error: None,
            recently_reset: VecDeque::new(),
            expected: 8,
            now,
            heard: now,
            asked: None,
            settings,
        };
        if !server {
            connection.output.tail().put_slice(PREFACE);
        }
        connection.output.settings(&announced);
        if window > FIRST_WINDOW {
            connection.output.window(0, window - FIRST_WINDOW);
        }
        connection
    }

    /// Reads what came in. Complete frames are taken out of `input`; a frame that is cut off stays.
    ///
    /// # Errors
    /// When the connection is over. Events that came before are still there.
    pub fn receive(&mut self, input: &mut BytesMut, now: u64) -> Result<(), ConnectionError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.now = now;
        self.guard.at(now);
        if !input.is_empty() {
            self.heard = now;
        }
        loop {
            match self.step(input) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(fault) => self.fault(fault)?,
            }
        }
    }

    /// The next thing that happened.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What waits to be written.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Streams that are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// What the peer announced; defaults before it did.
    #[must_use]
    pub fn peer(&self) -> &PeerSettings {
        &self.peer
    }

    /// The peer's settings arrived.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// It takes no new streams of ours, now or later.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.refused || self.error.is_some() || self.leaving != Leaving::No || self.next_local > MAX_WINDOW
    }

    /// Why it ended, if it did.
    #[must_use]
    pub fn error(&self) -> Option<ConnectionError> {
        self.error
    }

    /// The stream is there: it was neither reset nor completed.
    #[must_use]
    pub fn is_open(&self, stream: Stream) -> bool {
        self.streams.peek(stream).is_some()
    }

    /// Nothing is left to do: it was to end and its last stream is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let leaving = self.refused || matches!(self.leaving, Leaving::Final(_));
        self.error.is_some() || (leaving && self.streams.len() == 0)
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        if self.streams.len() == 0 {
            self.output.trim();
            if self.events.is_empty() {
                self.events = VecDeque::new();
            }
            if self.ready.is_empty() {
                self.ready = VecDeque::new();
            }
        }
    }

    fn fault(&mut self, fault: Fault) -> Result<(), ConnectionError> {
        match fault {
            Fault::Connection(code, reason) => Err(self.fail(code, reason, false)),
            Fault::Malformed(_, reason) if !self.settings.malformed_ends_stream => {
                Err(self.fail(Code::PROTOCOL_ERROR, reason, true))
            }
            Fault::Malformed(id, reason) => self.refuse(id, Code::PROTOCOL_ERROR, reason),
            Fault::Stream(id, code, reason) => self.refuse(id, code, reason),
        }
    }

    fn fail(&mut self, code: Code, reason: &'static str, malformed: bool) -> ConnectionError {
        let error = ConnectionError { code, reason, malformed };
        if !malformed {
            self.output.goaway(if self.server { self.last_remote } else { 0 }, code.0);
        }
        self.error = Some(error);
        error
    }

    /// Ends one stream for what came in on it.
    fn refuse(&mut self, id: u32, code: Code, reason: &'static str) -> Result<(), ConnectionError> {
        if let Some(stream) = self.streams.find(id) {
            self.events.push_back(Event::Reset { stream, code, cause: Cause::Refused(reason) });
            self.forget(stream);
        }
        self.write_reset(id, code);
        // A peer that makes us reset streams is as bad as one that resets them itself.
        // One that opened too many may simply not know our bound yet.
        let counted = match code {
            Code::REFUSED_STREAM => self.guard.nuisance(2, "too many streams"),
            _ => self.guard.reset(),
        };
        let counted = counted.and_then(|()| self.bound_control());
        if let Err(Fault::Connection(code, reason)) = counted { Err(self.fail(code, reason, false)) } else { Ok(()) }
    }

    fn write_reset(&mut self, id: u32, code: Code) {
        self.output.reset(id, code.0);
        if self.recently_reset.len() == REMEMBERED {
            self.recently_reset.pop_front();
        }
        self.recently_reset.push_back(id);
    }

    fn bound_control(&self) -> Result<(), Fault> {
        if self.output.control() > self.settings.max_control {
            return Err(Fault::calm("too many answers wait to be read"));
        }
        Ok(())
    }

    /// A stream that was never opened, by its number.
    fn is_idle(&self, id: u32) -> bool {
        match (self.server, id % 2 == 1) {
            (true, true) => id > self.last_remote,
            (false, true) => id >= self.next_local,
            // We never push and allow no push.
            (_, false) => true,
        }
    }

    /// A stream that we ended, or never took, without the peer knowing yet.
    fn is_ignored(&self, id: u32) -> bool {
        let unknown = matches!(self.leaving, Leaving::Final(last) if self.server && id > last);
        unknown || self.recently_reset.contains(&id)
    }

    fn forget(&mut self, stream: Stream) {
        self.streams.remove(stream);
    }

    fn fresh_slot(&self) -> Slot {
        Slot {
            remote_open: true,
            local_open: true,
            receive_window: self.stream_window,
            send_window: i64::from(self.peer.stream_window),
            ..Slot::default()
        }
    }
}
