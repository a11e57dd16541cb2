//! HTTP/1 over connections that are driven by whoever uses them: no task and no channel of their own.
//!
//! Owns what the connections of a worker share: the memory into which they read, recent field names, the memory in which
//! heads are written, and the date.

mod client;
mod date;
mod link;
mod server;
mod writer;

pub(crate) use client::{Client, ClientBody, Outbound};
pub(crate) use server::{ServerBody, serve};

use bytes::BytesMut;
use date::Date;
use std::cell::RefCell;
use tombolo_gateway_http1::Names;

/// Memory into which connections read, one piece after the other. What is read stays in it until its last user is gone, so
/// a smaller piece bounds what a slow user can hold on to.
const ARENA: usize = 32 * 1024;

struct Gear {
    arena: BytesMut,
    names: Names,
    out: Vec<u8>,
    date: Date,
}

impl Gear {
    /// Makes room for a read.
    fn room(&mut self, least: usize) -> &mut BytesMut {
        if self.arena.capacity() - self.arena.len() < least {
            self.arena.reserve(ARENA.max(least));
        }
        &mut self.arena
    }
}

thread_local! {
    static GEAR: RefCell<Gear> = RefCell::new(Gear {
        arena: BytesMut::new(),
        names: Names::new(),
        out: Vec::with_capacity(4096),
        date: Date::default(),
    });
}
