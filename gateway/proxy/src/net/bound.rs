//! The listening sockets of the process, one per worker and address.
//!
//! Owns the sockets that no worker took yet and the knowledge of which addresses are ours. The first worker that asks for
//! an address learns whether another process has it; the others are served without asking again.

use super::socket;
use ahash::AHashMap;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, PoisonError},
};

/// All listening TCP sockets of the process.
#[derive(Debug)]
pub(crate) struct Bound {
    workers: usize,
    addresses: Mutex<AHashMap<SocketAddr, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Bound and not taken.
    free: Vec<TcpListener>,
    /// Taken and not returned.
    taken: usize,
}

/// How a socket is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// IP_TRANSPARENT.
    pub(crate) transparent: bool,
    /// IP_FREEBIND.
    pub(crate) freebind: bool,
    /// `::` takes IPv4 as well.
    pub(crate) ipv4_compat: bool,
    /// Connections that may wait.
    pub(crate) backlog: Option<u32>,
}

impl Bound {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers, addresses: Mutex::default() }
    }

    /// One socket at an address.
    ///
    /// # Errors
    /// What the system says, notably that the address is in use by another process.
    pub(crate) fn take(&self, address: SocketAddr, options: Options) -> io::Result<tokio::net::TcpListener> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = addresses.entry(address).or_default();
        if entry.free.is_empty() && entry.taken == 0 {
            socket::probe(address, options)?;
            for _ in 0..self.workers {
                entry.free.push(socket::listen(address, options)?);
            }
        }
        let socket = match entry.free.pop() {
            Some(socket) => socket,
            None => socket::listen(address, options)?,
        };
        entry.taken += 1;
        tokio::net::TcpListener::from_std(socket)
    }

    /// A socket at this address was closed.
    pub(crate) fn closed(&self, address: SocketAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = addresses.get_mut(&address) {
            entry.taken = entry.taken.saturating_sub(1);
            if entry.taken == 0 {
                addresses.remove(&address);
            }
        }
    }

    /// Addresses that are listened on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<SocketAddr> = addresses.iter().filter(|(_, e)| e.taken > 0).map(|(a, _)| *a).collect();
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_strangers_address_is_an_error_and_our_own_is_not() {
        let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = stranger.local_addr().unwrap();
        let bound = Bound::new(2);
        assert_eq!(bound.take(address, Options::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(stranger);
        let first = bound.take(address, Options::default()).unwrap();
        let second = bound.take(address, Options::default()).unwrap();
        let third = bound.take(address, Options::default()).unwrap();
        assert_eq!(bound.addresses(), [address]);
        drop((first, second, third));
        for _ in 0..3 {
            bound.closed(address);
        }
        assert!(bound.addresses().is_empty());
    }
}
