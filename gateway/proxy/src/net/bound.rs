//! The listening sockets of the process: TCP sockets one per worker and address, Unix sockets one that all workers share.
//!
//! Owns the sockets that no worker took yet and the knowledge of which addresses are ours. The first worker that asks for
//! an address learns whether another process has it; the others are served without asking again.

use super::{socket, unix};
use ahash::AHashMap;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::net::UnixListener;

/// All listening sockets of the process.
#[derive(Debug)]
pub(crate) struct Bound {
    workers: usize,
    addresses: Mutex<Addresses>,
    paths: Mutex<AHashMap<Arc<str>, Shared>>,
}

/// By port, then by address: whether anything of a port is ours is one look.
type Addresses = BTreeMap<(u16, SocketAddr), Entry>;

/// A Unix socket with the number of those who accept from it.
#[derive(Debug)]
struct Shared {
    socket: unix::Listening,
    taken: usize,
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
        Self { workers, addresses: Mutex::default(), paths: Mutex::default() }
    }

    /// One socket at an address.
    ///
    /// # Errors
    /// What the system says, notably that the address is in use by another process.
    pub(crate) fn take(&self, address: SocketAddr, options: Options) -> io::Result<tokio::net::TcpListener> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // An address that overlaps one of ours is ours, too: asking would only tell of ourselves.
        if !is_ours(&addresses, address) {
            socket::probe(address, options)?;
            let all = (0..self.workers).map(|_| socket::listen(address, options));
            let free = all.collect::<io::Result<_>>()?;
            addresses.insert(key(address), Entry { free, taken: 0 });
        }
        let entry = addresses.entry(key(address)).or_default();
        let socket = match entry.free.pop() {
            Some(socket) => Ok(socket),
            None => socket::listen(address, options),
        };
        match socket.and_then(tokio::net::TcpListener::from_std) {
            Ok(socket) => {
                entry.taken += 1;
                Ok(socket)
            }
            Err(error) => {
                // Nobody accepts from what is left of it.
                if entry.taken == 0 {
                    addresses.remove(&key(address));
                }
                Err(error)
            }
        }
    }

    /// The socket at a path, shared with whoever has it already.
    ///
    /// # Errors
    /// What the system says, notably that somebody else listens there.
    pub(crate) fn take_unix(&self, path: &Arc<str>, mode: Option<u32>) -> io::Result<UnixListener> {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = paths.get_mut(path) {
            let socket = shared.socket.again(path, mode)?;
            shared.taken += 1;
            return Ok(socket);
        }
        let listening = unix::Listening::bind(path, mode)?;
        match listening.again(path, None) {
            Ok(socket) => {
                paths.insert(path.clone(), Shared { socket: listening, taken: 1 });
                Ok(socket)
            }
            Err(error) => {
                listening.close(path);
                Err(error)
            }
        }
    }

    /// Somebody accepts no longer at a path; with the last of them the socket's file goes.
    pub(crate) fn closed_unix(&self, path: &str) {
        let mut paths = self.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shared) = paths.get_mut(path) else { return };
        shared.taken = shared.taken.saturating_sub(1);
        if shared.taken == 0
            && let Some(shared) = paths.remove(path)
        {
            shared.socket.close(path);
        }
    }

    /// A socket at this address was closed.
    pub(crate) fn closed(&self, address: SocketAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = addresses.get_mut(&key(address)) {
            entry.taken = entry.taken.saturating_sub(1);
            if entry.taken == 0 {
                addresses.remove(&key(address));
            }
        }
    }

    /// Addresses that are listened on.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<SocketAddr> = addresses.keys().map(|(_, address)| *address).collect();
        all.sort();
        all
    }
}

fn key(address: SocketAddr) -> (u16, SocketAddr) {
    (address.port(), address)
}

/// Whether some socket of ours would get connections that this address gets, too.
fn is_ours(addresses: &Addresses, address: SocketAddr) -> bool {
    let port = address.port();
    let everywhere = |ip: std::net::IpAddr| key(SocketAddr::new(ip, port));
    let first = everywhere(Ipv4Addr::UNSPECIFIED.into());
    if address.ip().is_unspecified() {
        return addresses.range(first..).next().is_some_and(|((of, _), _)| *of == port);
    }
    let all = [first, everywhere(Ipv6Addr::UNSPECIFIED.into()), key(address)];
    all.iter().any(|place| addresses.contains_key(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A listener that moves from all addresses to one is served there although the sockets of other workers are still open.
    #[tokio::test]
    async fn an_address_within_ours_is_ours() {
        let bound = Bound::new(2);
        let free = tombolo_tests_kit::free();
        let all = SocketAddr::new([0, 0, 0, 0].into(), free.port());
        let before = (bound.take(all, Options::default()).unwrap(), bound.take(all, Options::default()).unwrap());
        let _one = bound.take(free, Options::default()).unwrap();
        assert_eq!(bound.addresses(), [all, free]);
        drop(before);
    }

    #[test]
    fn what_is_ours_is_told_by_a_few_looks() {
        let ours = |have: &[&str], asked: &str| {
            let all: Addresses = have.iter().map(|a| (key(a.parse().unwrap()), Entry::default())).collect();
            is_ours(&all, asked.parse().unwrap())
        };
        for have in ["10.0.0.1:80", "0.0.0.0:80", "[::]:80"] {
            assert!(ours(&["9.9.9.9:79", have, "1.1.1.1:81"], "10.0.0.1:80"), "{have}");
        }
        for have in ["10.0.0.1:80", "0.0.0.0:80", "[fe80::1]:80", "[::]:80"] {
            assert!(ours(&["9.9.9.9:79", have, "1.1.1.1:81"], "0.0.0.0:80"), "{have}");
            assert!(ours(&["9.9.9.9:79", have, "1.1.1.1:81"], "[::]:80"), "{have}");
        }
        let others = ["10.0.0.2:80", "[::1]:80", "0.0.0.0:79", "[::]:81"];
        assert!(!ours(&others, "10.0.0.1:80"));
        assert!(!ours(&["0.0.0.0:79", "[::]:81"], "0.0.0.0:80") && !ours(&["0.0.0.0:79", "[::]:81"], "[::]:80"));
    }

    #[tokio::test]
    async fn a_strangers_address_is_an_error_and_our_own_is_not() {
        let address = tombolo_tests_kit::free();
        let stranger = TcpListener::bind(address).unwrap();
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
