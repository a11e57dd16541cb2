//! The UDP sockets of the process: one per worker and address, in an order that the kernel knows.
//!
//! Owns the choice of the socket for a packet: the first byte of its connection id, modulo the number of sockets.

use crate::net::bound::Options;
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::AttachReusePortCbpf},
};
use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngExt as _;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, UdpSocket},
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Bytes of our connection ids: enough that nobody guesses one.
const ID: usize = 10;
/// Room for bursts, as far as the system allows.
const BUFFER: usize = 2 << 20;

/// All UDP sockets of the process.
#[derive(Debug)]
pub(crate) struct Udp {
    workers: usize,
    addresses: Mutex<HashMap<SocketAddr, Entry>>,
}

#[derive(Debug)]
struct Entry {
    free: Vec<(u8, UdpSocket)>,
    taken: usize,
}

/// A socket with its place among those of the same address.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(super) socket: UdpSocket,
    pub(super) place: Place,
}

/// One of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    index: u8,
    of: u8,
}

impl Udp {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers: workers.clamp(1, 255), addresses: Mutex::default() }
    }

    /// One socket at an address.
    ///
    /// # Errors
    /// What the system says; also while sockets of a listener that is gone are still open there, because the order of the
    /// new ones would not be what the connection ids say.
    pub(super) fn take(&self, address: SocketAddr, options: Options) -> io::Result<Taken> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = match addresses.entry(address) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(Entry { free: open_all(address, self.workers, options)?, taken: 0 })
            }
        };
        let (index, socket) = entry.free.pop().ok_or(io::ErrorKind::AddrInUse)?;
        entry.taken += 1;
        Ok(Taken { socket, place: Place { index, of: u8::try_from(self.workers).unwrap_or(u8::MAX) } })
    }

    /// A socket at this address was closed.
    pub(super) fn closed(&self, address: SocketAddr) {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = addresses.get_mut(&address) {
            entry.taken = entry.taken.saturating_sub(1);
            if entry.taken == 0 {
                addresses.remove(&address);
            }
        }
    }
}

fn open_all(address: SocketAddr, workers: usize, options: Options) -> io::Result<Vec<(u8, UdpSocket)>> {
    // Without sharing first: two gateways must not share an address without anybody noticing.
    drop(open(address, false, options)?);
    let mut all = Vec::with_capacity(workers);
    for index in 0..workers {
        let socket = open(address, true, options)?;
        if index == 0 && workers > 1 {
            steer(&socket, workers)?;
        }
        all.push((u8::try_from(index).unwrap_or(u8::MAX), socket));
    }
    Ok(all)
}

fn open(address: SocketAddr, shared: bool, options: Options) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    if options.freebind && address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    }
    // The system may allow less.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Has the kernel deliver by the first byte of the destination's connection id: it is the sixth byte of packets with a long
/// header and the second of those with a short one. The id that a client makes up for its first packet chooses a worker by
/// chance; every later one was made by that worker.
fn steer(socket: &UdpSocket, workers: usize) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const MODULO: u16 = 0x94;
    const RETURN: u16 = 0x16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_BYTE, 0, 0, 0),
        step(JUMP_IF_SET, 0, 2, 0x80),
        step(LOAD_BYTE, 0, 0, 6),
        step(0x05, 0, 0, 1),
        step(LOAD_BYTE, 0, 0, 1),
        step(MODULO, 0, 0, u32::try_from(workers).unwrap_or(1)),
        step(RETURN, 0, 0, 0),
    ];
    let length = u16::try_from(program.len()).unwrap_or(0);
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    setsockopt(socket, AttachReusePortCbpf, &program).map_err(io::Error::from)
}

/// Makes connection ids that lead back to their worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids(pub(super) Place);

impl Ids {
    /// For a socket that shares its address with no other.
    pub(super) fn of_one() -> Self {
        Self(Place { index: 0, of: 1 })
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id: [u8; ID] = rand::rng().random();
        let Place { index, of } = self.0;
        // The largest byte below the drawn one that leads here; one step up where there is none below.
        let down = id[0] - (id[0] % of);
        id[0] = down.checked_add(index).unwrap_or(index);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lead_back() {
        for of in [1, 2, 3, 7, 200, 255] {
            for index in [0, of / 2, of - 1] {
                let mut ids = Ids(Place { index, of });
                for _ in 0..300 {
                    assert_eq!(ids.generate_cid()[0] % of, index, "{index} of {of}");
                }
            }
        }
    }

    #[test]
    fn the_kernel_delivers_by_id() {
        let udp = Udp::new(3);
        let address = tombolo_tests_kit::free();
        let probe = UdpSocket::bind(address).unwrap();
        assert_eq!(udp.take(address, Options::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(probe);
        let mut taken: Vec<Taken> = (0..3).map(|_| udp.take(address, Options::default()).unwrap()).collect();
        taken.sort_by_key(|t| t.place.index);
        assert!(udp.take(address, Options::default()).is_err());
        for id in 0..9_u8 {
            // Other source ports hash elsewhere, if hashing still decided.
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(&[0x40, id, 1, 2, 3], address).unwrap();
            sender.send_to(&[0xc0, 0, 0, 0, 1, 8, id, 2, 3], address).unwrap();
            let socket = &taken[usize::from(id % 3)].socket;
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut buffer = [0; 16];
            let first = socket.recv(&mut buffer).map(|n| (n, buffer[0]));
            let second = socket.recv(&mut buffer).map(|n| (n, buffer[0]));
            assert_eq!((first.unwrap(), second.unwrap()), ((5, 0x40), (9, 0xc0)), "{id}");
        }
    }
}
