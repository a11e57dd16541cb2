//! HPACK (RFC 7541): reading and writing compressed headers.
//!
//! Owns both tables of a connection. Values that repeat are shared, not copied: a header that is in the table costs a
//! counted reference.

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod statics;

pub(crate) use decoder::Decoder;
pub(crate) use encoder::{Encoder, Pseudo};

#[cfg(test)]
mod tests;
