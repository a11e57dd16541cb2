//! QPACK without a dynamic table.
//!
//! Owns the coding of field sections. We announce no table, so a peer may only use the static one and literals; and none
//! of what we write depends on anything that was written before, so no stream ever waits for another.

mod decode;
mod encode;
mod huffman;
mod integer;
mod streams;
mod table;

pub use decode::{Field, decode};
pub use encode::{request, response, trailers};
pub use streams::{DecoderStream, EncoderStream};
pub use table::Pseudo;
