//! Reading header blocks.
//!
//! Owns the peer's dynamic table, as fields ready to be shared. Values that are not put into the table are slices of one
//! small buffer; those in the table stand alone, so that a small entry never keeps a large buffer alive.

use super::{huffman, integer, statics};
use crate::{
    field::{Field, Name},
    head::Collector,
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Room that is made for values at once.
const SCRATCH: usize = 1024;
/// What each entry counts for beside its name and value.
const OVERHEAD: usize = 32;

/// A block could not be read: the tables of both sides are out of step from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Undecodable(pub(crate) &'static str);

struct Entry {
    field: Field,
    /// Name, value and overhead.
    size: usize,
    /// Bytes of the name alone, for entries that borrow it.
    name: usize,
}

/// The reading half.
pub(crate) struct Decoder {
    table: VecDeque<Entry>,
    size: usize,
    /// What the peer may fill, chosen by it.
    max: usize,
    /// What we allow it to choose.
    limit: usize,
    /// The peer has to say that it shrank its table before it says anything else.
    owed: bool,
    scratch: BytesMut,
}

impl Decoder {
    /// A decoder for a peer that may fill a table of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        let max = 4096;
        Self { table: VecDeque::new(), size: 0, max, limit: limit.max(max), owed: false, scratch: BytesMut::new() }
    }

    /// The peer acknowledged another limit.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.owed = self.max > limit;
    }

    /// Reads a complete block.
    pub(crate) fn decode(&mut self, block: &[u8], into: &mut Collector) -> Result<(), Undecodable> {
        let mut at = block;
        let mut updates = 0;
        let mut begun = false;
        while let Some(first) = at.first().copied() {
            if first & 0xe0 == 0x20 {
                updates += 1;
                if begun || updates > 2 {
                    return Err(Undecodable("table size update inside a block"));
                }
                self.resize(&mut at)?;
                continue;
            }
            if std::mem::take(&mut self.owed) {
                return Err(Undecodable("table size update missing"));
            }
            begun = true;
            match first {
                0x80.. => self.indexed(&mut at, into)?,
                0x40..0x80 => self.literal(&mut at, 6, first, into)?,
                _ => self.literal(&mut at, 4, first, into)?,
            }
        }
        Ok(())
    }

    fn resize(&mut self, at: &mut &[u8]) -> Result<(), Undecodable> {
        let size = integer::read(at, 5).ok_or(Undecodable("bad integer"))?;
        if size > self.limit {
            return Err(Undecodable("table larger than allowed"));
        }
        self.max = size;
        self.owed = false;
        self.evict(0);
        Ok(())
    }

    fn indexed(&mut self, at: &mut &[u8], into: &mut Collector) -> Result<(), Undecodable> {
        let number = integer::read(at, 7).ok_or(Undecodable("bad integer"))?;
        if let Some((_, field)) = statics::entry(number) {
            into.take_shared(field, statics::size(number));
            return Ok(());
        }
        let entry = self.dynamic(number)?;
        into.take_shared(&entry.field, entry.size);
        Ok(())
    }

    fn dynamic(&self, number: usize) -> Result<&Entry, Undecodable> {
        let at = number.checked_sub(statics::COUNT + 1).ok_or(Undecodable("index 0"))?;
        self.table.get(at).ok_or(Undecodable("index outside the table"))
    }

    fn literal(&mut self, at: &mut &[u8], bits: u8, first: u8, into: &mut Collector) -> Result<(), Undecodable> {
        let number = integer::read(at, bits).ok_or(Undecodable("bad integer"))?;
        let (name, name_size) = if number == 0 {
            let size = self.text(at)?;
            let name = Name::parse(&self.scratch);
            self.scratch.clear();
            (name, size)
        } else if let Some((name, _)) = statics::entry(number) {
            (name.clone(), statics::TEXT.get(number - 1).map_or(0, |(name, _)| name.len()))
        } else {
            let entry = self.dynamic(number)?;
            (entry.field.name(), entry.name)
        };
        let size = self.text(at)? + name_size + OVERHEAD;
        if bits == 6 {
            let value = Bytes::copy_from_slice(&self.scratch);
            self.scratch.clear();
            let field = name.with(value, false);
            into.take_shared(&field, size);
            self.insert(Entry { field, size, name: name_size });
        } else {
            let value = self.scratch.split().freeze();
            into.take(name.with(value, first & 0x10 != 0), size);
        }
        Ok(())
    }

    /// Reads a text into the scratch buffer, which was empty. Returns its length.
    fn text(&mut self, at: &mut &[u8]) -> Result<usize, Undecodable> {
        let coded = at.first().is_some_and(|b| b & 0x80 != 0);
        let length = integer::read(at, 7).ok_or(Undecodable("bad integer"))?;
        let (text, rest) = at.split_at_checked(length).ok_or(Undecodable("text cut off"))?;
        *at = rest;
        let most = if coded { length * 8 / 5 + 1 } else { length };
        if self.scratch.capacity() < most {
            self.scratch = BytesMut::with_capacity(most.max(SCRATCH));
        }
        if !coded {
            self.scratch.extend_from_slice(text);
        } else if !huffman::decode(text, &mut self.scratch) {
            return Err(Undecodable("bad Huffman code"));
        }
        Ok(self.scratch.len())
    }

    fn insert(&mut self, entry: Entry) {
        self.evict(entry.size);
        // An entry larger than the table empties it, and is no error.
        if entry.size <= self.max {
            self.size += entry.size;
            self.table.push_front(entry);
        }
    }

    /// Makes room for `more` bytes.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.max {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size;
        }
    }

    /// Bytes in the table.
    #[cfg(test)]
    pub(super) fn used(&self) -> (usize, usize) {
        (self.size, self.table.len())
    }
}
