//! The Huffman code of RFC 7541, appendix B.
//!
//! The code is canonical: codes of one length are consecutive numbers in the order of their symbols. The lengths therefore say
//! everything, and all tables are made from them when this is compiled.

use bytes::{BufMut, BytesMut};

/// Length of each symbol's code in bits. The end symbol, 30 ones, never stands in a text.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Codes up to this long are found by one look into a table.
const FAST_BITS: u32 = 10;
const LONGEST: usize = 30;

struct Tables {
    /// Code of each symbol.
    codes: [u32; 256],
    /// By the next ten bits: symbol and length, or 0 where the code is longer.
    fast: [u16; 1 << FAST_BITS],
    /// First code of each length.
    first: [u32; LONGEST + 1],
    /// Number of codes of each length.
    count: [u32; LONGEST + 1],
    /// Where the symbols of a length begin in `sorted`.
    start: [usize; LONGEST + 1],
    /// Symbols by length, then by value.
    sorted: [u8; 256],
}

static TABLES: Tables = tables();

#[allow(clippy::cast_possible_truncation, reason = "no conversions in constants but `as`; every value fits")]
const fn tables() -> Tables {
    let mut t = Tables {
        codes: [0; 256],
        fast: [0; 1 << FAST_BITS],
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        start: [0; LONGEST + 1],
        sorted: [0; 256],
    };
    let (mut length, mut code, mut placed) = (1, 0_u32, 0);
    while length <= LONGEST {
        code <<= 1;
        t.first[length] = code;
        t.start[length] = placed;
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                t.codes[symbol] = code;
                t.sorted[placed] = symbol as u8;
                t = fill(t, symbol, length as u32, code);
                t.count[length] += 1;
                placed += 1;
                code += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    t
}

/// Enters a short code at every place that begins with it.
#[allow(clippy::cast_possible_truncation, reason = "a symbol and a length fit")]
const fn fill(mut t: Tables, symbol: usize, length: u32, code: u32) -> Tables {
    if length <= FAST_BITS {
        let spare = FAST_BITS - length;
        let mut at = 0;
        while at < 1 << spare {
            t.fast[(code << spare) as usize + at] = (symbol as u16) << 8 | length as u16;
            at += 1;
        }
    }
    t
}

/// Decodes a text behind `out`. False when it holds the end symbol or is padded wrongly.
#[must_use]
pub(super) fn decode(text: &[u8], out: &mut BytesMut) -> bool {
    out.reserve(text.len() * 8 / 5 + 1);
    // Unread bits stand at the top, zeros below.
    let (mut bits, mut have) = (0_u64, 0_u32);
    let mut rest = text.iter();
    loop {
        while have <= 56 {
            let Some(byte) = rest.next() else { break };
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        let Some((symbol, length)) = next(bits) else { return false };
        if length > have {
            // What is left is padding: fewer than eight bits, all ones.
            return have < 8 && bits >> (63 - have) == (1_u64 << (have + 1)) - 2;
        }
        out.put_u8(symbol);
        bits <<= length;
        have -= length;
    }
}

#[inline]
fn next(bits: u64) -> Option<(u8, u32)> {
    let entry = TABLES.fast[usize::try_from(bits >> (64 - FAST_BITS)).unwrap_or(0)];
    if entry != 0 {
        let [symbol, length] = entry.to_be_bytes();
        return Some((symbol, u32::from(length)));
    }
    long(bits)
}

#[cold]
fn long(bits: u64) -> Option<(u8, u32)> {
    for length in 11..=LONGEST {
        let code = u32::try_from(bits >> (64 - length)).unwrap_or(u32::MAX);
        let offset = code.wrapping_sub(TABLES.first[length]);
        if offset < TABLES.count[length] {
            let at = TABLES.start[length] + usize::try_from(offset).ok()?;
            return Some((*TABLES.sorted.get(at)?, u32::try_from(length).ok()?));
        }
    }
    None
}

/// Bytes of a text once encoded.
pub(super) fn length(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|b| usize::from(LENGTHS[usize::from(*b)])).sum();
    bits.div_ceil(8)
}

/// Encodes a text.
pub(super) fn encode(text: &[u8], out: &mut BytesMut) {
    let (mut bits, mut have) = (0_u64, 0_u32);
    for byte in text {
        let at = usize::from(*byte);
        let length = u32::from(LENGTHS[at]);
        bits = bits << length | u64::from(TABLES.codes[at]);
        have += length;
        while have >= 8 {
            have -= 8;
            out.put_u8(u8::try_from(bits >> have & 0xff).unwrap_or(0));
        }
    }
    if have > 0 {
        let padded = bits << (8 - have) | (0xff >> have);
        out.put_u8(u8::try_from(padded & 0xff).unwrap_or(0));
    }
}
