//! Writing header blocks.
//!
//! Owns our dynamic table and an index over it. A header is put into the table when it is seen for the second time, so that
//! values that never repeat (paths, ids, dates) do not push out those that do. Secrets are never put there.

use super::{huffman, integer, statics};
use bytes::{BufMut, BytesMut};
use http::{HeaderName, HeaderValue, header};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::LazyLock,
};

/// The largest table that we fill, whatever the peer allows.
const LARGEST: usize = 4096;
const OVERHEAD: usize = 32;
/// Headers of which is remembered that they were seen once.
const REMEMBERED: usize = 64;
/// A cookie shorter than this could be guessed bit by bit from the size of what is sent.
const SHORT_COOKIE: usize = 20;

/// A pseudo header, with its place in the static table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Authority = 1,
    Method = 2,
    Path = 4,
    Scheme = 6,
    Status = 8,
    Protocol = 0,
}

impl Pseudo {
    const fn text(self) -> &'static str {
        match self {
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Scheme => ":scheme",
            Self::Status => ":status",
            Self::Protocol => ":protocol",
        }
    }
}

/// Hashes are spread already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Index = HashMap<u64, u64, BuildHasherDefault<AsIs>>;

enum Key {
    Pseudo(Pseudo),
    Header(HeaderName),
}

impl Key {
    fn text(&self) -> &str {
        match self {
            Self::Pseudo(pseudo) => pseudo.text(),
            Self::Header(name) => name.as_str(),
        }
    }
}

struct Entry {
    key: Key,
    value: HeaderValue,
    name_hash: u64,
    full_hash: u64,
    size: usize,
}

/// The writing half.
pub(crate) struct Encoder {
    /// Newest first.
    table: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// The smallest and the last size chosen since the last block.
    resized: Option<(usize, usize)>,
    /// By hash of name and value: the running number of the entry.
    full: Index,
    /// By hash of the name: the running number of the newest entry.
    names: Index,
    /// Entries ever put in.
    inserted: u64,
    seen: [u32; REMEMBERED],
    huffman: bool,
}

impl Encoder {
    /// An encoder; `huffman` says whether texts are compressed where that makes them shorter.
    pub(crate) fn new(huffman: bool) -> Self {
        Self {
            table: VecDeque::new(),
            size: 0,
            max: LARGEST,
            resized: None,
            full: Index::default(),
            names: Index::default(),
            inserted: 0,
            seen: [0; REMEMBERED],
            huffman,
        }
    }

    /// The peer allows a table of this size.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        let max = limit.min(LARGEST);
        if max == self.max {
            return;
        }
        let smallest = self.resized.map_or(max, |(smallest, _)| smallest.min(max));
        self.resized = Some((smallest, max));
        self.max = max;
        self.evict(0);
    }

    /// To be called before the first field of a block.
    pub(crate) fn begin(&mut self, out: &mut BytesMut) {
        if let Some((smallest, last)) = self.resized.take() {
            if smallest < last {
                integer::write(out, 0x20, 5, smallest);
            }
            integer::write(out, 0x20, 5, last);
        }
    }

    /// Writes a pseudo header.
    pub(crate) fn pseudo(&mut self, pseudo: Pseudo, value: &str, out: &mut BytesMut) {
        let number = match (pseudo, value) {
            (Pseudo::Method, "GET") => 2,
            (Pseudo::Method, "POST") => 3,
            (Pseudo::Path, "/") => 4,
            (Pseudo::Scheme, "http") => 6,
            (Pseudo::Scheme, "https") => 7,
            (Pseudo::Status, "200") => 8,
            (Pseudo::Status, "204") => 9,
            (Pseudo::Status, "206") => 10,
            (Pseudo::Status, "304") => 11,
            (Pseudo::Status, "400") => 12,
            (Pseudo::Status, "404") => 13,
            (Pseudo::Status, "500") => 14,
            _ => 0,
        };
        if number != 0 {
            return integer::write(out, 0x80, 7, number);
        }
        let name_hash = mix(0, pseudo.text().as_bytes());
        let full_hash = mix(name_hash, value.as_bytes());
        if self.write_known(full_hash, pseudo.text(), value.as_bytes(), out) {
            return;
        }
        let keep = self.repeats(full_hash, pseudo.text().len() + value.len());
        let known = match pseudo as usize {
            0 => self.name_number(name_hash, pseudo.text()),
            number => number,
        };
        self.literal(keep, known, pseudo.text(), value.as_bytes(), out);
        if keep && let Ok(value) = HeaderValue::from_str(value) {
            self.insert(Key::Pseudo(pseudo), value, name_hash, full_hash);
        }
    }

    /// Writes a header.
    pub(crate) fn header(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut BytesMut) {
        let name_hash = mix(0, name.as_str().as_bytes());
        let full_hash = mix(name_hash, value.as_bytes());
        if self.write_known(full_hash, name.as_str(), value.as_bytes(), out) {
            return;
        }
        let known = self.name_number(name_hash, name.as_str());
        if is_secret(name, value) {
            integer::write(out, 0x10, 4, known);
            return self.texts(known, name.as_str(), value.as_bytes(), out);
        }
        let keep = self.repeats(full_hash, name.as_str().len() + value.len());
        self.literal(keep, known, name.as_str(), value.as_bytes(), out);
        if keep {
            self.insert(Key::Header(name.clone()), value.clone(), name_hash, full_hash);
        }
    }

    fn write_known(&self, full_hash: u64, name: &str, value: &[u8], out: &mut BytesMut) -> bool {
        let Some(running) = self.full.get(&full_hash) else { return false };
        let Some((at, entry)) = self.entry(*running) else { return false };
        let same = entry.value.as_bytes() == value && entry.key.text() == name;
        if same {
            integer::write(out, 0x80, 7, at + statics::COUNT + 1);
        }
        same
    }

    fn entry(&self, running: u64) -> Option<(usize, &Entry)> {
        let at = usize::try_from(self.inserted.checked_sub(running)?).ok()?;
        self.table.get(at).map(|entry| (at, entry))
    }

    fn name_number(&self, hash: u64, name: &str) -> usize {
        if let Some(number) = NAMES.get(&hash)
            && statics::TEXT.get(number - 1).is_some_and(|(text, _)| *text == name)
        {
            return *number;
        }
        let Some((at, entry)) = self.names.get(&hash).and_then(|running| self.entry(*running)) else { return 0 };
        if entry.key.text() == name { at + statics::COUNT + 1 } else { 0 }
    }

    /// Whether this header came before, not long ago.
    fn repeats(&mut self, full_hash: u64, size: usize) -> bool {
        if size + OVERHEAD > self.max / 2 {
            return false;
        }
        let mark = u32::try_from(full_hash >> 32).unwrap_or(0) | 1;
        let at = usize::try_from(full_hash % 64).unwrap_or(0);
        self.seen.get_mut(at).is_some_and(|seen| std::mem::replace(seen, mark) == mark)
    }

    fn literal(&self, keep: bool, known: usize, name: &str, value: &[u8], out: &mut BytesMut) {
        if keep {
            integer::write(out, 0x40, 6, known);
        } else {
            integer::write(out, 0, 4, known);
        }
        self.texts(known, name, value, out);
    }

    fn texts(&self, known: usize, name: &str, value: &[u8], out: &mut BytesMut) {
        if known == 0 {
            self.text(name.as_bytes(), out);
        }
        self.text(value, out);
    }

    fn text(&self, text: &[u8], out: &mut BytesMut) {
        if self.huffman {
            let length = huffman::length(text);
            if length < text.len() {
                integer::write(out, 0x80, 7, length);
                return huffman::encode(text, out);
            }
        }
        integer::write(out, 0, 7, text.len());
        out.put_slice(text);
    }

    fn insert(&mut self, key: Key, value: HeaderValue, name_hash: u64, full_hash: u64) {
        let size = key.text().len() + value.len() + OVERHEAD;
        self.evict(size);
        self.size += size;
        self.inserted += 1;
        self.full.insert(full_hash, self.inserted);
        self.names.insert(name_hash, self.inserted);
        self.table.push_front(Entry { key, value, name_hash, full_hash, size });
    }

    fn evict(&mut self, more: usize) {
        while self.size + more > self.max {
            let running = (self.inserted + 1).saturating_sub(u64::try_from(self.table.len()).unwrap_or(0));
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size;
            for (index, hash) in [(&mut self.full, oldest.full_hash), (&mut self.names, oldest.name_hash)] {
                if index.get(&hash) == Some(&running) {
                    index.remove(&hash);
                }
            }
        }
    }

    /// Bytes in the table.
    #[cfg(test)]
    pub(super) fn used(&self) -> (usize, usize) {
        (self.size, self.table.len())
    }
}

/// Names of the static table by their hash.
static NAMES: LazyLock<HashMap<u64, usize, BuildHasherDefault<AsIs>>> = LazyLock::new(|| {
    let mut names = HashMap::default();
    for (at, (name, _)) in statics::TEXT.iter().enumerate() {
        names.entry(mix(0, name.as_bytes())).or_insert(at + 1);
    }
    names
});

fn is_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    value.is_sensitive()
        || match *name {
            header::AUTHORIZATION | header::PROXY_AUTHORIZATION => true,
            header::COOKIE | header::SET_COOKIE => value.len() < SHORT_COOKIE,
            _ => false,
        }
}

/// A quick hash. Whoever finds two texts of one hash makes us write one of them in full, nothing worse.
fn mix(seed: u64, text: &[u8]) -> u64 {
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15;
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word | 1 << 63) * FACTOR;
        let bytes = product.to_le_bytes();
        let half = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        half(0) ^ half(8)
    };
    let mut state = seed ^ 0x51_7cc1_b727_220a ^ u64::try_from(text.len()).unwrap_or(0);
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        state = fold(state, u64::from_le_bytes(*word)).rotate_left(5);
    }
    let mut last = [0; 8];
    if let Some(part) = last.get_mut(..rest.len()) {
        part.copy_from_slice(rest);
    }
    fold(state, u64::from_le_bytes(last))
}
