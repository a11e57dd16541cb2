//! QUIC's integers: one, two, four or eight bytes, the first two bits say which.

use bytes::BufMut;

/// The largest.
pub const MAX: u64 = (1 << 62) - 1;

/// Reads one; `None` when more bytes are needed. With it comes how many bytes it took.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

/// Writes one. Larger values than [`MAX`] do not exist in HTTP/3 and are cut to it.
pub fn encode(value: u64, out: &mut impl BufMut) {
    match value {
        0..=0x3f => out.put_uint(value, 1),
        0x40..=0x3fff => out.put_uint(value | 0x4000, 2),
        0x4000..=0x3fff_ffff => out.put_uint(value | 0x8000_0000, 4),
        _ => out.put_u64(value.min(MAX) | 0xc000_0000_0000_0000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=MAX) {
            let mut out = Vec::new();
            encode(value, &mut out);
            prop_assert_eq!(decode(&out), Some((value, out.len())));
            prop_assert_eq!(decode(&out[..out.len() - 1]), None);
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(decode(&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]), Some((151_288_809_941_952_652, 8)));
        assert_eq!(decode(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(decode(&[0x40, 0x25]), Some((37, 2)));
    }
}
