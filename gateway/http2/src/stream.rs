//! The streams of a connection: their states, windows, and what waits to be sent on them.
//!
//! Owns the slots, which are used again, and the way from a stream's number to its slot.

use ahash::RandomState;
use bytes::Bytes;
use http::HeaderMap;
use std::collections::{HashMap, VecDeque};

/// Names a stream. It stays harmless when the stream is gone: every use of it then says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    slot: u32,
    id: u32,
}

impl Stream {
    /// Its number on the wire.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// Its place among the open streams of its connection: small, and used again later.
    #[must_use]
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// What follows the data that waits.
#[derive(Debug, Default)]
pub(crate) enum Finish {
    /// Not said yet.
    #[default]
    No,
    /// The end.
    End,
    /// Trailers.
    Trailers(Box<HeaderMap>),
}

/// One stream.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "independent facts")]
pub(crate) struct Slot {
    /// 0: free. Set by [`Streams::insert`].
    pub(crate) id: u32,
    /// The peer may still send.
    pub(crate) remote_open: bool,
    /// We may still send.
    pub(crate) local_open: bool,
    /// The head that opens the peer's message came (not an interim one).
    pub(crate) head_seen: bool,
    /// Our head went out.
    pub(crate) head_sent: bool,
    /// What still comes in is of no interest.
    pub(crate) discard: bool,
    /// The response has no body, whatever its head says.
    pub(crate) bodiless: bool,
    /// The request is a CONNECT.
    pub(crate) connect: bool,
    /// It is among those that have something to send.
    pub(crate) queued: bool,
    /// Somebody waits for room.
    pub(crate) waiting: bool,
    /// Bytes that the peer may send.
    pub(crate) receive_window: i64,
    /// Bytes consumed and not yet announced.
    pub(crate) unannounced: u32,
    /// Bytes that we may send.
    pub(crate) send_window: i64,
    /// Bytes of the body still to come, where the head said how many.
    pub(crate) length: Option<u64>,
    /// Data that waits.
    pub(crate) pending: VecDeque<Bytes>,
    /// Its bytes.
    pub(crate) pending_bytes: usize,
    /// What follows it.
    pub(crate) finish: Finish,
}

impl Slot {
    /// Something waits that only needs the stream's own window.
    pub(crate) fn sendable(&self) -> bool {
        if self.pending.is_empty() { !matches!(self.finish, Finish::No) } else { self.send_window > 0 }
    }
}

/// All streams.
#[derive(Default)]
pub(crate) struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32, RandomState>,
}

impl Streams {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn find(&self, id: u32) -> Option<Stream> {
        self.by_id.get(&id).map(|slot| Stream { slot: *slot, id })
    }

    pub(crate) fn slot(&mut self, stream: Stream) -> Option<&mut Slot> {
        self.slots.get_mut(stream.slot()).filter(|slot| slot.id == stream.id)
    }

    pub(crate) fn peek(&self, stream: Stream) -> Option<&Slot> {
        self.slots.get(stream.slot()).filter(|slot| slot.id == stream.id)
    }

    /// Adds a stream.
    pub(crate) fn insert(&mut self, id: u32, mut fresh: Slot) -> Stream {
        fresh.id = id;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            // The queue's memory is used again.
            fresh.pending = std::mem::take(&mut place.pending);
            *place = fresh;
        }
        self.by_id.insert(id, slot);
        Stream { slot, id }
    }

    /// Forgets a stream; false when it was not there.
    pub(crate) fn remove(&mut self, stream: Stream) -> bool {
        let Some(slot) = self.slot(stream) else { return false };
        slot.id = 0;
        slot.pending.clear();
        slot.finish = Finish::No;
        self.by_id.remove(&stream.id);
        self.free.push(stream.slot);
        if self.by_id.is_empty() && self.slots.len() > 64 {
            // A busy time is over.
            *self = Self::default();
        }
        true
    }

    /// All streams, in no order.
    pub(crate) fn all(&self) -> Vec<Stream> {
        self.by_id.iter().map(|(id, slot)| Stream { slot: *slot, id: *id }).collect()
    }
}
