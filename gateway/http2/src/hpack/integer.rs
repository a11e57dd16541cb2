//! Integers with a prefix (RFC 7541, section 5.1).

use bytes::BufMut;

/// Reads an integer of which the first byte keeps `bits` bits. `None`: cut off, or larger than anything sensible.
pub(super) fn read(at: &mut &[u8], bits: u8) -> Option<usize> {
    let (first, rest) = at.split_first()?;
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    *at = rest;
    if value < mask {
        return Some(value);
    }
    // Four more bytes give 28 bits: more than any table or string may have.
    for shift in [0, 7, 14, 21] {
        let (byte, rest) = at.split_first()?;
        *at = rest;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes an integer behind `pattern`, which fills the bits above the prefix.
pub(super) fn write(out: &mut impl BufMut, pattern: u8, bits: u8, value: usize) {
    let mask = (1_usize << bits) - 1;
    let low = |v: usize| u8::try_from(v & 0xff).unwrap_or(0);
    if value < mask {
        return out.put_u8(pattern | low(value));
    }
    out.put_u8(pattern | low(mask));
    let mut rest = value - mask;
    while rest >= 128 {
        out.put_u8(low(rest & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.put_u8(low(rest));
}
