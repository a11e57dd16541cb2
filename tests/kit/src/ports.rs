//! Ports for what is about to listen.
//!
//! A port that the system chose and that was given back can be anybody's a moment later: another test's that runs beside this
//! one, or that of an outgoing connection. So these lie below those that the system chooses from, and each process holds
//! blocks of its own. The first port of a block is the lock: it stays bound for as long as the process lives, in the very
//! network where the ports count, and the system lets go of it however the process ends.
//!
//! Used by all tests that must know an address before anything listens there, or after nothing does any more. Who can bind
//! port 0 and keep the socket does that instead.

#[cfg(test)]
mod tests;

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Where ports for tests begin.
const LOWEST: u16 = 22_000;
/// How many a block has, its lock included.
const SIZE: u16 = 50;
/// How many blocks there are.
const BLOCKS: u16 = 200;
/// Who does not even refuse a connection for so long is there.
const SILENCE: Duration = Duration::from_secs(1);

/// What this process has.
struct Held {
    /// What is left of the newest block.
    left: Range<u16>,
    locks: Vec<UdpSocket>,
}

/// An address of the loopback with a TCP and a UDP port that nobody has, over IPv6 neither, and that is nobody else's for as
/// long as this process lives: it is given once.
///
/// # Panics
/// When other processes have all ports.
pub fn free() -> SocketAddr {
    static HELD: Mutex<Held> = Mutex::new(Held { left: 0..0, locks: Vec::new() });
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        match held.left.next() {
            Some(port) if nobody_has(port) => return (Ipv4Addr::LOCALHOST, port).into(),
            // Whoever has it knows nothing of blocks.
            Some(_) => {}
            None => held.another_block(),
        }
    }
}

impl Held {
    fn another_block(&mut self) {
        // Processes begin apart, so that what one left behind has time to end before its ports come round again.
        let begin = std::process::id() % u32::from(BLOCKS);
        let blocks = (begin..u32::from(BLOCKS)).chain(0..begin);
        let lock = |block: u32| {
            let first = LOWEST + u16::try_from(block).ok()? * SIZE;
            Some((first, UdpSocket::bind((Ipv4Addr::LOCALHOST, first)).ok()?))
        };
        let found = blocks.into_iter().find_map(lock);
        let Some((first, lock)) = found else { panic!("other processes have all ports from {LOWEST}") };
        self.locks.push(lock);
        self.left = first + 1..first + SIZE;
    }
}

/// Knocks and looks into the system's tables rather than binding: a child that another thread forks just then would have the socket
/// until it becomes another program, and the port would be taken by nobody else but us.
fn nobody_has(port: u16) -> bool {
    let knock = |ip: IpAddr| TcpStream::connect_timeout(&SocketAddr::new(ip, port), SILENCE);
    // A machine without IPv6 has no port of it taken.
    let listens = |ip: IpAddr| knock(ip).map_or_else(|error| error.kind() == ErrorKind::TimedOut, |_| true);
    let bound = |table: &str| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        table.lines().any(|line| is_at(line, port))
    };
    !listens(Ipv4Addr::LOCALHOST.into()) && !listens(Ipv6Addr::LOCALHOST.into()) && !bound("udp") && !bound("udp6")
}

/// Whether the socket of a line of such a table is at this port.
fn is_at(line: &str, port: u16) -> bool {
    let local = line.split_whitespace().nth(1).and_then(|address| address.rsplit_once(':'));
    local.is_some_and(|(_, found)| u16::from_str_radix(found, 16) == Ok(port))
}
