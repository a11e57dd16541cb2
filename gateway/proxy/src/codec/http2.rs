//! HTTP/2 over connections that have a task each, which owns the socket and nothing else.
//!
//! Owns the way between that task and those who serve or send requests: they write into the connection's state and wake the
//! task once, so that everything that became ready in one turn goes out in one write. Frames and states are the business
//! of `gateway/http2`.

mod body;
mod client;
mod server;
mod shared;
mod side;
mod tunnel;
mod wire;

pub(crate) use body::Http2Body;
pub(crate) use client::{Client, Outbound};
pub(crate) use server::serve;
pub(crate) use side::Side;
pub(crate) use tunnel::Http2Tunnel;
