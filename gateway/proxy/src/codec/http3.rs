//! HTTP/3 over QUIC, both sides.
//!
//! Owns the streams of a connection: what each is for, and what becomes of it when its peer breaks a rule. The bytes are
//! read by `tombolo-gateway-http3`, the transport is quinn's. Every request is a task of its own, so what goes wrong in one
//! never holds up another.

mod answer;
mod body;
mod client;
mod critical;
mod receive;
mod server;
mod tunnel;

pub(crate) use body::Body;
pub(crate) use client::Sender;
pub(crate) use server::serve;
pub(crate) use tunnel::{Stream, Switched};

use bytes::{BufMut, Bytes, BytesMut};
use quinn::VarInt;
use tombolo_gateway_http3::{Code, HEADERS, begin_frame};

/// Body bytes of up to this size are copied next to their frame's header instead of being sent as a piece of their own.
const SMALL: usize = 256;

/// A code as quinn takes it. All of ours are small.
fn code(code: Code) -> VarInt {
    VarInt::from_u64(code.0).unwrap_or(VarInt::MAX)
}

/// A stream's sending side that says so when it is given up: quinn would end it as if all had been said.
struct Sending {
    stream: quinn::SendStream,
    /// What to say when it is dropped unfinished.
    otherwise: Code,
    over: bool,
}

impl Sending {
    fn new(stream: quinn::SendStream, otherwise: Code) -> Self {
        Self { stream, otherwise, over: false }
    }

    fn finish(&mut self) {
        self.over = true;
        // An error says that the peer stopped it or that the connection is gone: then it is over as well.
        let _ = self.stream.finish();
    }

    fn reset(&mut self, why: Code) {
        self.over = true;
        let _ = self.stream.reset(code(why));
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.over {
            let _ = self.stream.reset(code(self.otherwise));
        }
    }
}

/// Writes a HEADERS frame around what `section` writes.
fn headers_frame(out: &mut BytesMut, section: impl FnOnce(&mut BytesMut)) {
    // Most sections fit a length of two bytes, which is filled in afterwards; a longer form is always allowed.
    let start = out.len();
    out.put_slice(&[1, 0x40, 0]);
    section(out);
    let length = out.len() - start - 3;
    if let Ok(short) = u16::try_from(length)
        && short < 0x4000
        && let Some(place) = out.get_mut(start + 1..start + 3)
    {
        place.copy_from_slice(&(short | 0x4000).to_be_bytes());
        return;
    }
    let section = out.split_off(start + 3);
    out.truncate(start);
    begin_frame(HEADERS, length, out);
    out.put_slice(&section);
}

/// Adds a DATA frame to what is to be written: as bytes of `out` where it is small, else as a piece that follows them.
fn data_frame(out: &mut BytesMut, data: Bytes) -> Bytes {
    begin_frame(tombolo_gateway_http3::DATA, data.len(), out);
    if data.len() <= SMALL {
        out.put_slice(&data);
        return Bytes::new();
    }
    data
}

/// Writes pieces in their order.
async fn write(stream: &mut quinn::SendStream, head: BytesMut, data: Bytes) -> Result<(), quinn::WriteError> {
    match (head.is_empty(), data.is_empty()) {
        (true, true) => Ok(()),
        (_, true) => stream.write_all_chunks(&mut [head.freeze()]).await,
        (true, _) => stream.write_all_chunks(&mut [data]).await,
        (false, false) => stream.write_all_chunks(&mut [head.freeze(), data]).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_gateway_http3::{Event, MessageReader, Side};

    #[test]
    fn sections_of_any_size_are_framed() {
        for size in [0, 5, 0x3fff, 0x4000, 70_000] {
            let mut out = BytesMut::from(&b""[..]);
            headers_frame(&mut out, |out| out.put_bytes(7, size));
            let mut reader = MessageReader::new(Side::Request, 100_000);
            reader.feed(out.freeze());
            assert_eq!(reader.read(), Ok(Some(Event::Head(vec![7; size].into()))), "{size}");
        }
    }
}
