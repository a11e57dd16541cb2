//! Protobuf's wire format, written.

pub(super) const VARINT: u32 = 0;
pub(super) const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const FIXED32: u32 = 5;

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn tag(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint(out, u64::from(number << 3 | wire));
}

pub(super) fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    tag(out, number, LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A message within another one whose length is known only afterwards.
#[derive(Debug)]
pub(super) struct Open {
    before: usize,
    from: usize,
}

impl Open {
    pub(super) fn begin(out: &mut Vec<u8>, number: u32) -> Self {
        let before = out.len();
        tag(out, number, LENGTH);
        // One byte is enough for the length of most.
        out.push(0);
        Self { before, from: out.len() }
    }

    pub(super) fn end(self, out: &mut Vec<u8>) {
        let length = out.len() - self.from;
        if let (Ok(length @ 0..0x80), Some(place)) = (u8::try_from(length), out.get_mut(self.from - 1)) {
            *place = length;
            return;
        }
        let mut told = Vec::with_capacity(10);
        varint(&mut told, length as u64);
        out.splice(self.from - 1..self.from, told);
    }

    /// There was nothing to write.
    pub(super) fn undo(self, out: &mut Vec<u8>) {
        out.truncate(self.before);
    }
}
