//! Which filter chain takes a connection.
//!
//! Owns Envoy's choice: criterion by criterion the most specific chains are kept (destination port, destination address, server
//! name, transport protocol, application protocol, direct source, kind of source, source address, source port), and there is no
//! way back: when what is left does not match a later criterion, the default chain is taken. Server names are found by hashing,
//! because a gateway between networks has a chain for each service.

#[cfg(test)]
mod tests;

use crate::config::{Cidr, FilterChain, FilterChainMatch, Listener, SourceType};
use ahash::AHashMap;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Finds chains quickly.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChainIndex {
    /// `None`: chains that take any port.
    ports: AHashMap<Option<u16>, Node>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Node {
    all: Vec<u32>,
    by_destination: bool,
    named: AHashMap<Arc<str>, Vec<u32>>,
    nameless: Vec<u32>,
}

/// What is known of a connection when a chain is chosen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sniffed<'a> {
    /// Where it was going.
    pub destination: Option<SocketAddr>,
    /// The client, after PROXY protocol.
    pub source: Option<SocketAddr>,
    /// The peer of the socket.
    pub direct_source: Option<SocketAddr>,
    /// SNI in lower case; empty: none.
    pub server_name: &'a str,
    /// `tls`, `raw_buffer`, `quic`; empty when nobody looked.
    pub transport: &'a str,
    /// ALPN of the hello, or what the HTTP inspector saw, in the client's order.
    pub application_protocols: &'a [&'a str],
}

impl ChainIndex {
    /// Indexes chains.
    ///
    /// # Errors
    /// The places of two chains that match the same connections.
    pub fn new(chains: &[Arc<FilterChain>]) -> Result<Self, (usize, usize)> {
        let mut seen: AHashMap<&FilterChainMatch, usize> = AHashMap::default();
        let mut index = Self::default();
        for (at, chain) in chains.iter().enumerate() {
            if let Some(before) = seen.insert(&chain.matches, at) {
                return Err((before, at));
            }
            let node = index.ports.entry(chain.matches.destination_port).or_default();
            let at = u32::try_from(at).unwrap_or(u32::MAX);
            node.all.push(at);
            node.by_destination |= !chain.matches.destinations.is_empty();
            for name in &chain.matches.server_names {
                // `*.suffix` is kept with its dot and without its star.
                let key = name.strip_prefix('*').map_or_else(|| Arc::clone(name), Arc::from);
                node.named.entry(key).or_default().push(at);
            }
            if chain.matches.server_names.is_empty() {
                node.nameless.push(at);
            }
        }
        Ok(index)
    }
}

/// The chain of a connection, or the default chain, or `None`: the connection is to be closed.
#[must_use]
pub fn choose<'l>(listener: &'l Listener, sniffed: Sniffed<'_>) -> Option<&'l Arc<FilterChain>> {
    matching(listener, sniffed).or(listener.default_chain.as_ref())
}

fn matching<'l>(listener: &'l Listener, sniffed: Sniffed<'_>) -> Option<&'l Arc<FilterChain>> {
    let ports = &listener.index.ports;
    let port = sniffed.destination.map(|destination| destination.port());
    let node = port.and_then(|port| ports.get(&Some(port))).or_else(|| ports.get(&None))?;
    let of = |at: &u32| listener.chains.get(*at as usize);
    let mut left: Vec<&Arc<FilterChain>> = if node.by_destination {
        let all = node.all.iter().filter_map(of).collect();
        let kept = narrow(all, |m| prefix(&m.destinations, sniffed.destination.map(|d| d.ip())));
        narrow(kept, |m| name(&m.server_names, sniffed.server_name))
    } else {
        by_name(node, sniffed.server_name).iter().filter_map(of).collect()
    };
    if left.len() != 1 || !left.first()?.matches.only_by_name() {
        left = narrow(left, |m| text(&m.transport_protocol, sniffed.transport));
        left = narrow(left, |m| protocol(&m.application_protocols, sniffed.application_protocols));
        left = narrow(left, |m| prefix(&m.direct_sources, sniffed.direct_source.map(|s| s.ip())));
        left = narrow(left, |m| kind(m.source_type, &sniffed));
        left = narrow(left, |m| prefix(&m.sources, sniffed.source.map(|s| s.ip())));
        left = narrow(left, |m| source_port(&m.source_ports, sniffed.source));
    }
    left.first().copied()
}

fn by_name<'n>(node: &'n Node, name: &str) -> &'n [u32] {
    if !name.is_empty() {
        let suffixes = name.match_indices('.').filter(|(at, _)| *at > 0).filter_map(|(at, _)| name.get(at..));
        let found = std::iter::once(name).chain(suffixes).find_map(|key| node.named.get(key));
        if let Some(found) = found {
            return found;
        }
    }
    &node.nameless
}

/// Keeps the chains that fit best; `None` does not fit.
fn narrow(chains: Vec<&Arc<FilterChain>>, fits: impl Fn(&FilterChainMatch) -> Option<usize>) -> Vec<&Arc<FilterChain>> {
    let rated: Vec<_> = chains.into_iter().filter_map(|chain| Some((fits(&chain.matches)?, chain))).collect();
    let best = rated.iter().map(|(rate, _)| *rate).max();
    rated.into_iter().filter(|(rate, _)| Some(*rate) == best).map(|(_, chain)| chain).collect()
}

fn prefix(ranges: &[Cidr], address: Option<IpAddr>) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    let address = address?;
    ranges.iter().filter(|range| range.contains(&address)).map(|range| usize::from(range.prefix_len()) + 1).max()
}

fn name(names: &[Arc<str>], server_name: &str) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    let rate = |name: &Arc<str>| match name.strip_prefix('*') {
        Some(suffix) => (server_name.len() > suffix.len() && server_name.ends_with(suffix)).then_some(suffix.len()),
        None => (**name == *server_name).then_some(usize::MAX),
    };
    names.iter().filter_map(rate).max()
}

fn text(wanted: &str, seen: &str) -> Option<usize> {
    if wanted.is_empty() { Some(0) } else { (wanted == seen).then_some(1) }
}

/// The client's first protocol that any chain names wins.
fn protocol(wanted: &[Arc<str>], seen: &[&str]) -> Option<usize> {
    if wanted.is_empty() {
        return Some(0);
    }
    let first = seen.iter().position(|protocol| wanted.iter().any(|w| **w == **protocol))?;
    Some(usize::MAX - first)
}

fn kind(wanted: SourceType, sniffed: &Sniffed<'_>) -> Option<usize> {
    let local = match (sniffed.source, sniffed.destination) {
        (Some(source), Some(destination)) => source.ip() == destination.ip() || source.ip().is_loopback(),
        // A Unix socket is on the same host.
        _ => true,
    };
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    }
}

fn source_port(ports: &[u16], source: Option<SocketAddr>) -> Option<usize> {
    if ports.is_empty() {
        return Some(0);
    }
    source.is_some_and(|source| ports.contains(&source.port())).then_some(1)
}

impl FilterChainMatch {
    /// True when nothing is asked but destination port and server name.
    fn only_by_name(&self) -> bool {
        self.destinations.is_empty()
            && self.transport_protocol.is_empty()
            && self.application_protocols.is_empty()
            && self.direct_sources.is_empty()
            && self.source_type == SourceType::Any
            && self.sources.is_empty()
            && self.source_ports.is_empty()
    }
}
