//! QUIC: sockets, endpoints and handshakes, for clients and towards upstreams.
//!
//! Owns one endpoint per worker and address. Which worker serves a connection is written into its connection ids, and the
//! kernel delivers by them, so that a client may change its address without changing the worker. Never speaks HTTP: what
//! comes out of here is a connection whose peer is known.

mod bind;
mod hello;
mod listen;
mod session;
mod transport;
pub(crate) mod upstream;

pub(crate) use bind::Udp;
pub(crate) use listen::{Endpoints, listen};
