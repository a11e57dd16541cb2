//! Asks name servers: by UDP, by TCP where the answer does not fit.
//!
//! Owns sockets for the time of a question only; each question has a random number and a port of its own. Remembers
//! nothing. The machine's own settings are read anew for each name, so that they may change.

use super::message::{self, Kind, Reply};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tombolo_gateway_core::config::DnsResolver;

/// What a name has of one kind, and for how long.
pub(super) type Found = (Vec<IpAddr>, Duration);

const TIMEOUT: Duration = Duration::from_secs(5);
const TRIES: u32 = 4;
/// Larger answers do not come by UDP.
const DATAGRAM: usize = 4096;

/// What the machine says about names.
#[derive(Debug, Default)]
pub(super) struct Machine {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    hosts: Vec<(IpAddr, String)>,
}

impl Machine {
    /// Reads the machine's files. What cannot be read says nothing.
    pub(super) async fn read() -> Self {
        let resolv = tokio::fs::read_to_string("/etc/resolv.conf").await.unwrap_or_default();
        let hosts = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
        Self::parse(&resolv, &hosts)
    }

    fn parse(resolv: &str, hosts: &str) -> Self {
        let mut machine = Self { dots: 1, ..Self::default() };
        for line in resolv.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|ip| ip.parse::<IpAddr>().ok());
                    machine.servers.extend(server.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => machine.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    machine.dots = dots.unwrap_or(machine.dots);
                }
                _ => {}
            }
        }
        for line in hosts.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(ip) = words.next().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
            machine.hosts.extend(words.map(|name| (ip, name.to_ascii_lowercase())));
        }
        machine
    }

    /// Addresses that need no question.
    pub(super) fn written(&self, name: &str) -> Vec<IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let found: Vec<IpAddr> = self.hosts.iter().filter(|(_, host)| *host == name).map(|(ip, _)| *ip).collect();
        if found.is_empty() && (name == "localhost" || name.ends_with(".localhost")) {
            return vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        }
        found
    }

    /// The names that a name may stand for, in the order in which they are asked for.
    fn candidates(&self, name: &str, settings: &DnsResolver) -> Vec<String> {
        if name.ends_with('.') || settings.no_search || self.search.is_empty() {
            return vec![name.to_owned()];
        }
        let mut all: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let enough = name.matches('.').count() >= self.dots;
        all.insert(if enough { 0 } else { all.len() }, name.to_owned());
        all
    }

    fn servers<'a>(&'a self, settings: &'a DnsResolver) -> &'a [SocketAddr] {
        let own = settings.servers.is_empty() || (settings.servers_as_fallback && !self.servers.is_empty());
        if own { &self.servers } else { &settings.servers }
    }
}

/// Asks for one kind of addresses of a name. No address: there is none.
///
/// # Errors
/// When no server gave an answer.
pub(super) async fn ask(name: &str, kind: Kind, settings: &DnsResolver, machine: &Machine) -> io::Result<Found> {
    let servers = machine.servers(settings);
    if servers.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "no name server is known"));
    }
    let mut none = None;
    for candidate in machine.candidates(name, settings) {
        let found = ask_all(&candidate, kind, settings, servers).await?;
        if !found.0.is_empty() {
            return Ok(found);
        }
        none = Some(found);
    }
    none.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a name"))
}

async fn ask_all(name: &str, kind: Kind, settings: &DnsResolver, servers: &[SocketAddr]) -> io::Result<Found> {
    let patience = if settings.timeout.is_zero() { TIMEOUT } else { settings.timeout };
    let tries = if settings.tries == 0 { TRIES } else { settings.tries };
    let mut last = io::Error::new(io::ErrorKind::TimedOut, "no name server answered");
    for _ in 0..tries {
        for server in servers {
            match timeout(patience, ask_one(name, kind, *server, settings.tcp)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        if last.kind() != io::ErrorKind::TimedOut {
            // A server that says no at once will not change its mind at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Err(last)
}

async fn ask_one(name: &str, kind: Kind, server: SocketAddr, tcp: bool) -> io::Result<Found> {
    let id: u16 = rand::random();
    let question =
        message::question(id, name, kind).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a name"))?;
    let reply = if tcp { None } else { by_udp(&question, id, name, kind, server).await? };
    let reply = match reply {
        Some(reply) if reply != Reply::Truncated => reply,
        _ => by_tcp(&question, id, name, kind, server).await?,
    };
    match reply {
        Reply::Found(addresses, ttl) => Ok((addresses, ttl)),
        Reply::Refused(code) => Err(io::Error::other(format!("the name server answered with code {code}"))),
        Reply::Truncated => Err(io::Error::other("the answer was cut")),
    }
}

async fn by_udp(question: &[u8], id: u16, name: &str, kind: Kind, server: SocketAddr) -> io::Result<Option<Reply>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    // Connected: datagrams of others do not arrive.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = message::reply(&buffer[..length], id, name, kind) {
            return Ok(Some(reply));
        }
    }
}

async fn by_tcp(question: &[u8], id: u16, name: &str, kind: Kind, server: SocketAddr) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(question);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    message::reply(&answer, id, name, kind).ok_or_else(|| io::Error::other("the answer is to another question"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_files() {
        let machine = Machine::parse(
            "# c\nnameserver 10.0.0.1\nnameserver ::1\nsearch a.test b.test\noptions edns0 ndots:2\n",
            "127.0.0.1 localhost\n10.1.1.1 Shop shop.test # comment\n",
        );
        assert_eq!(machine.servers, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(machine.written("SHOP.test."), ["10.1.1.1".parse::<IpAddr>().unwrap()]);
        let settings = DnsResolver::default();
        assert_eq!(machine.candidates("x.y", &settings), ["x.y.a.test", "x.y.b.test", "x.y"]);
        assert_eq!(machine.candidates("x.y.z", &settings)[0], "x.y.z");
        assert_eq!(machine.candidates("x.", &settings), ["x."]);
        let told = DnsResolver { servers: Box::new(["1.1.1.1:53".parse().unwrap()]), ..settings };
        assert_eq!(machine.servers(&told), &*told.servers);
        let fallback = DnsResolver { servers_as_fallback: true, ..told };
        assert_eq!(machine.servers(&fallback).len(), 2);
    }
}
