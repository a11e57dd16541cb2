//! Sockets: one stream type for every transport, and what is learned from a connection's first bytes.
//!
//! Owns no task and no configuration.

pub(crate) mod bound;
pub(crate) mod proxy_protocol;
pub(crate) mod sniff;
pub(crate) mod socket;
pub(crate) mod stream;
mod unix;
