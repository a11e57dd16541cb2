//! Integers with a prefix of fewer than eight bits, and texts.

use super::huffman;
use bytes::{Buf, BufMut, Bytes};

/// Reads an integer whose first byte gives `bits` bits to it; `None` when it is cut short or larger than anything here can
/// be.
pub(super) fn read(input: &mut Bytes, bits: u32) -> Option<u64> {
    let mask = (1_u64 << bits) - 1;
    let first = u64::from(*input.first()?) & mask;
    input.advance(1);
    if first < mask {
        return Some(first);
    }
    let mut value = mask;
    for shift in (0..56).step_by(7) {
        let byte = *input.first()?;
        input.advance(1);
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes an integer after `flags`, which fill the rest of the first byte.
pub(super) fn write(mut value: u64, bits: u32, flags: u8, out: &mut impl BufMut) {
    let mask = (1_u64 << bits) - 1;
    if value < mask {
        out.put_u8(flags | value.to_le_bytes()[0]);
        return;
    }
    out.put_u8(flags | mask.to_le_bytes()[0]);
    value -= mask;
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] & 0x7f | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

/// Why a text cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is cut short, or its code is wrong.
    Broken,
    /// It is longer than allowed.
    TooLong,
}

/// Reads a text whose first byte gives `bits` bits to the length; the bit above them says whether it is coded.
pub(super) fn text(input: &mut Bytes, bits: u32, most: usize) -> Result<Bytes, Unreadable> {
    let coded = input.first().ok_or(Unreadable::Broken)? >> bits & 1 == 1;
    let length = read(input, bits).and_then(|l| usize::try_from(l).ok()).ok_or(Unreadable::Broken)?;
    if length > input.len() {
        return Err(Unreadable::Broken);
    }
    let raw = input.split_to(length);
    if !coded {
        return if raw.len() > most { Err(Unreadable::TooLong) } else { Ok(raw) };
    }
    match huffman::decode(&raw, most) {
        Some(text) => Ok(text.into()),
        // Eight bits of the longest words stand for two bits of text at least, the shortest for more than one byte.
        None if raw.len() * 8 / 5 > most && huffman::decode(&raw, raw.len() * 2).is_some() => Err(Unreadable::TooLong),
        None => Err(Unreadable::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0_u64..1 << 50, bits in 3_u32..9) {
            let mut out = Vec::new();
            write(value, bits.min(8), 0, &mut out);
            let mut input = Bytes::from(out);
            prop_assert_eq!(read(&mut input, bits.min(8)), Some(value));
            prop_assert!(input.is_empty());
        }
    }

    #[test]
    fn endless_integers_are_refused() {
        assert_eq!(read(&mut Bytes::from_static(&[0xff; 40]), 6), None);
    }
}
