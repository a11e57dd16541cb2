//! The subscription to a control plane.
//!
//! Owns the stream, what is held by it and what is kept on disk. Hands complete configurations to everybody else.

pub(crate) mod ask;
pub(crate) mod client;
pub(crate) mod files;
mod lives;
pub(crate) mod shelves;
pub(crate) mod store;
mod stream;
mod wire;
