//! Opening sockets: listeners that every worker shares by `SO_REUSEPORT`, and outgoing connections.
//!
//! Never blocks; owns no task.

use super::bound::Options;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsFd,
    sync::OnceLock,
    time::Duration,
};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that may wait to be accepted, unless configured.
const BACKLOG: u32 = 4096;

/// A listening socket that other workers of this process may bind too.
pub(crate) fn listen(address: SocketAddr, options: Options) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    if options.transparent && address.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    }
    if options.freebind && address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    }
    if address.ip().is_loopback() {
        unpaced(&socket); // what is accepted inherits it
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog.unwrap_or(BACKLOG)).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Whether the address is free: `SO_REUSEPORT` alone would let two gateways of one user share it silently, so it is asked
/// for once without.
pub(crate) fn probe(address: SocketAddr, options: Options) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// Takes in whoever already waits in the queue and so was promised a connection. The system is asked itself: the runtime
/// hears of new connections later.
pub(crate) fn rest(mut accept: impl FnMut() -> io::Result<()>) {
    loop {
        match accept() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => return,
        }
    }
}

/// Opens a connection, optionally from a given local address.
pub(crate) async fn connect(
    to: SocketAddr,
    from: Option<IpAddr>,
    keepalive: Option<Keepalive>,
) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(ip) = from.filter(|ip| ip.is_ipv4() == to.is_ipv4()) {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    socket.set_nodelay(true)?;
    if to.ip().is_loopback() || from.is_some_and(|ip| ip == to.ip() || ip.is_loopback()) {
        unpaced(&socket); // before the connection is there: pacing that began does not end
    }
    let stream = socket.connect(to).await?;
    if let Some(settings) = keepalive {
        settings.apply(&stream)?;
    }
    Ok(stream)
}

/// Prepares an accepted connection: small answers leave at once, and nothing paces those that do not leave this host.
pub(crate) fn settle(stream: &TcpStream, peer: SocketAddr, local: Option<SocketAddr>) {
    let _ = stream.set_nodelay(true);
    let local = local.map(|address| address.ip().to_canonical());
    let peer = peer.ip().to_canonical();
    if peer.is_loopback() || local == Some(peer) {
        unpaced(stream);
    }
}

/// Takes a connection within this host out of a congestion control that paces. Between a sidecar and its application there is no
/// network to be careful with, but pacing (BBR) sets timers, which cost a bulk transfer a third of its processor time.
/// Nothing changes where the system's own choice does not pace, and a refusal changes nothing, either.
fn unpaced(socket: &impl AsFd) {
    static PACED: OnceLock<bool> = OnceLock::new();
    let socket = SockRef::from(socket);
    if *PACED.get_or_init(|| socket.tcp_congestion().is_ok_and(|name| name.starts_with(b"bbr"))) {
        let _ = socket.set_tcp_congestion(b"reno"); // every kernel has it, and every user may choose it
    }
}

/// TCP keep-alive of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// Silence before the first probe.
    pub(crate) time: Option<Duration>,
    /// Pause between probes.
    pub(crate) interval: Option<Duration>,
    /// Unanswered probes that end the connection.
    pub(crate) probes: Option<u32>,
}

impl Keepalive {
    fn apply(self, stream: &TcpStream) -> io::Result<()> {
        let mut settings = TcpKeepalive::new();
        if let Some(time) = self.time {
            settings = settings.with_time(time);
        }
        if let Some(interval) = self.interval {
            settings = settings.with_interval(interval);
        }
        if let Some(probes) = self.probes {
            settings = settings.with_retries(probes);
        }
        SockRef::from(stream).set_tcp_keepalive(&settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn workers_share_a_port_and_strangers_are_noticed() {
        let first = listen("127.0.0.1:0".parse().unwrap(), Options::default()).unwrap();
        let address = first.local_addr().unwrap();
        let _second = listen(address, Options::default()).unwrap();
        assert_eq!(probe(address, Options::default()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    /// The runtime had no turn since the clients connected, so it knows nothing of them.
    #[tokio::test]
    async fn whoever_waits_in_the_queue_is_taken_in() {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let _clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
        let (socket, mut taken) = (socket.into_std().unwrap(), 0);
        rest(|| socket.accept().map(|_| taken += 1));
        assert_eq!(taken, 3);
    }

    /// Whatever the system's choice is: nothing that stays on this host is paced.
    #[tokio::test]
    async fn nothing_within_a_host_is_paced() {
        let paced = |stream: &TcpStream| SockRef::from(stream).tcp_congestion().unwrap().starts_with(b"bbr");
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = listen(address.parse().unwrap(), Options::default()).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let port = listener.local_addr().unwrap().port();
            let to = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
            let (near, far) = tokio::join!(connect(to, None, None), listener.accept());
            let ((far, peer), near) = (far.unwrap(), near.unwrap());
            settle(&far, peer, far.local_addr().ok());
            assert!(!paced(&near) && !paced(&far), "{address}");
            assert!(far.nodelay().unwrap());
        }
    }
}
