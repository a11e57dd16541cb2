//! Which endpoint a request goes to, whatever kind of cluster it was sent to.
//!
//! Owns the ways that are not the balancer's: members of aggregates, destinations of clients, names of requests. Opens no
//! connection.

use super::{
    cluster::{Cluster, Endpoint},
    connect::Peer,
    keeper::Upstream,
};
use crate::{clock, worker::Worker};
use http::HeaderMap;
use smallvec::SmallVec;
use std::{net::SocketAddr, rc::Rc};
use tombolo_gateway_core::{
    balance::Request,
    config::{Address, Discovery, ForwardNames, Listener, OriginalDst, TransportSocket},
    time::Millis,
};

/// What a choice depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Question<'a> {
    /// For the balancer.
    pub(crate) request: Request<'a>,
    /// Where the client was going before its connection was turned here.
    pub(crate) original: Option<SocketAddr>,
    /// Headers of the request, where there are any.
    pub(crate) headers: Option<&'a HeaderMap>,
    /// Host of the request, perhaps with a port, or the server name of the connection.
    pub(crate) host: &'a str,
    /// Tries made before.
    pub(crate) tried: u32,
}

/// An endpoint that was chosen.
pub(crate) struct Picked {
    /// Itself.
    pub(crate) endpoint: Rc<Endpoint>,
    /// Its priority; in an aggregate its place in the chain.
    pub(crate) priority: u32,
}

/// Chooses an endpoint; `None` when there is none for this question.
pub(crate) async fn choose(
    worker: &Worker,
    cluster: &Rc<Cluster>,
    upstream: &Upstream,
    question: &Question<'_>,
    now: Millis,
) -> Option<Picked> {
    match &upstream.cluster.discovery {
        // Boxed, being the only one that waits: a request is as large as the largest of what it may wait for.
        Discovery::DynamicForwardProxy(names) => Box::pin(named(worker, cluster, upstream, names, question)).await,
        Discovery::OriginalDst(settings) => {
            let address = destination(settings, question)?;
            Some(Picked { endpoint: cluster.destination(address, ""), priority: 0 })
        }
        Discovery::Aggregate(_) => member(worker, cluster, upstream, question, now),
        Discovery::Eds(_) | Discovery::Static(_) | Discovery::StrictDns(..) | Discovery::LogicalDns(..) => {
            balanced(worker, cluster, upstream, question, question.request, now)
        }
    }
}

fn balanced(
    worker: &Worker,
    cluster: &Rc<Cluster>,
    upstream: &Upstream,
    question: &Question<'_>,
    request: Request<'_>,
    now: Millis,
) -> Option<Picked> {
    let wanted = preferred(upstream, question);
    let preferred = if request.preferred.is_empty() { &wanted[..] } else { request.preferred };
    let endpoint = cluster.pick(&Request { preferred, ..request }, worker.draw(), now)?;
    let priority = endpoint.host.borrow().as_ref().map_or(0, |host| host.priority);
    Some(Picked { endpoint, priority })
}

/// Endpoints that a header names, those of earlier tries left out.
fn preferred(upstream: &Upstream, question: &Question<'_>) -> SmallVec<[SocketAddr; 2]> {
    let names = &upstream.cluster.lb.override_headers;
    let Some(headers) = question.headers.filter(|_| !names.is_empty()) else { return SmallVec::new() };
    let Some(told) = names.iter().find_map(|name| headers.get(name)?.to_str().ok()) else { return SmallVec::new() };
    told.split(',').filter_map(|one| one.trim().parse().ok()).skip(question.tried as usize).collect()
}

/// The endpoint of a member: the chain says which member and which of its priorities, the member's own policy the rest.
fn member(
    worker: &Worker,
    cluster: &Rc<Cluster>,
    upstream: &Upstream,
    question: &Question<'_>,
    now: Millis,
) -> Option<Picked> {
    let Discovery::Aggregate(members) = &upstream.cluster.discovery else { return None };
    cluster.upstream().touch();
    let mark = question.request.hash.unwrap_or_else(|| worker.draw());
    let chosen = upstream.chain.as_ref()?.choose(question.request.skip_priorities, mark)?;
    let member = worker.cluster(members.get(chosen.member as usize)?)?;
    let request = Request { aim: Some(chosen.aim), skip_priorities: 0, ..question.request };
    let picked = balanced(worker, &member, &member.upstream(), question, request, now)?;
    Some(Picked { priority: chosen.place, ..picked })
}

/// Where the client was going, or where a header says.
fn destination(settings: &OriginalDst, question: &Question<'_>) -> Option<SocketAddr> {
    let told = settings.header.as_ref().and_then(|name| question.headers?.get(name));
    let mut address = match told {
        // A header that says nothing sensible must not lead anywhere else.
        Some(value) => value.to_str().ok()?.parse().ok()?,
        None => question.original?,
    };
    if let Some(port) = settings.port_override {
        address.set_port(port);
    }
    Some(address)
}

async fn named(
    worker: &Worker,
    cluster: &Rc<Cluster>,
    upstream: &Upstream,
    names: &ForwardNames,
    question: &Question<'_>,
) -> Option<Picked> {
    let secure = matches!(upstream.cluster.transport, TransportSocket::Tls(_) | TransportSocket::Quic(_));
    let (name, port) = split_port(question.host, if secure { 443 } else { 80 });
    let found = worker.resolver.resolve(name, names).await;
    clock::read();
    let found = found?;
    let at = |ip: &std::net::IpAddr| SocketAddr::new(*ip, port);
    let peer = match &*found {
        [] => return None,
        [one] => Peer::Tcp(at(one)),
        several => Peer::Any(several.iter().map(at).collect()),
    };
    Some(Picked { endpoint: cluster.reach(peer, name), priority: 0 })
}

/// Where a client was going, if that is not to this listener itself: without a redirection there is no such place, and
/// connecting to it would lead here again.
pub(crate) fn original(listener: &Listener, local: Option<SocketAddr>) -> Option<SocketAddr> {
    let own = |address: &Address| match (address, local) {
        (Address::Socket(bound), Some(local)) => {
            bound.port() == local.port() && (bound.ip().is_unspecified() || bound.ip() == local.ip())
        }
        _ => false,
    };
    local.filter(|_| !listener.addresses.iter().any(own))
}

fn split_port(host: &str, default: u16) -> (&str, u16) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().unwrap_or(default)),
        _ => (host, default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let headers: HeaderMap = [("x-to".parse().unwrap(), "10.0.0.1:81".parse().unwrap())].into_iter().collect();
        let question =
            Question { original: Some("10.0.0.2:82".parse().unwrap()), headers: Some(&headers), ..Question::default() };
        let plain = OriginalDst::default();
        assert_eq!(destination(&plain, &question), question.original);
        let by_header = OriginalDst { header: Some("x-to".parse().unwrap()), ..OriginalDst::default() };
        assert_eq!(destination(&by_header, &question), "10.0.0.1:81".parse().ok());
        let moved = OriginalDst { port_override: Some(9), ..by_header.clone() };
        assert_eq!(destination(&moved, &question), "10.0.0.1:9".parse().ok());
        let bad: HeaderMap = [("x-to".parse().unwrap(), "nowhere".parse().unwrap())].into_iter().collect();
        assert_eq!(destination(&by_header, &Question { headers: Some(&bad), ..question }), None);
        assert_eq!(destination(&plain, &Question { original: None, ..question }), None);
    }

    #[test]
    fn hosts_with_and_without_ports() {
        assert_eq!(split_port("a:81", 80), ("a", 81));
        assert_eq!(split_port("a", 80), ("a", 80));
        assert_eq!(split_port("[::1]", 443), ("[::1]", 443));
    }
}
