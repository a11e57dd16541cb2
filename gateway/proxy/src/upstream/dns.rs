//! Names of endpoints, resolved.
//!
//! Owns the rules: which addresses of an answer count, and what an endpoint with a name becomes. Asks the system's
//! resolver. Never forgets a good answer because a later question failed.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tombolo_gateway_core::config::{ClusterLoad, DnsFamily, Endpoint, EndpointAddress, LocalityEndpoints, Priority};

/// Answers by name.
pub(crate) type Answers = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// Asks for one name.
pub(crate) async fn resolve(name: &str, family: DnsFamily) -> io::Result<Vec<IpAddr>> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(vec![ip]);
    }
    let found = tokio::net::lookup_host((name, 0)).await?;
    let addresses = choose(found.map(|a| a.ip()).collect(), family);
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no usable address"));
    }
    Ok(addresses)
}

fn choose(mut found: Vec<IpAddr>, family: DnsFamily) -> Vec<IpAddr> {
    found.dedup();
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = found.iter().copied().partition(IpAddr::is_ipv4);
    let first = |a: Vec<IpAddr>, b: Vec<IpAddr>| if a.is_empty() { b } else { a };
    match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred => first(v4, v6),
        DnsFamily::Auto => first(v6, v4),
        DnsFamily::All => found,
    }
}

/// The names that a load asks for.
pub(crate) fn names(load: &ClusterLoad) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = endpoints(load)
        .filter_map(|e| match &e.address {
            EndpointAddress::Name(name, _) => Some(name.clone()),
            EndpointAddress::Socket(_) | EndpointAddress::Pipe(_) | EndpointAddress::Internal(..) => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn endpoints(load: &ClusterLoad) -> impl Iterator<Item = &Arc<Endpoint>> {
    load.priorities.iter().flat_map(|p| p.localities.iter()).flat_map(|l| l.endpoints.iter())
}

/// A load with names replaced by their addresses: all of them, or (`logical`) the first only.
pub(crate) fn apply(load: &ClusterLoad, answers: &Answers, logical: bool) -> ClusterLoad {
    let expand = |endpoint: &Arc<Endpoint>| -> Vec<Arc<Endpoint>> {
        let EndpointAddress::Name(name, port) = &endpoint.address else { return vec![endpoint.clone()] };
        let known = answers.get(name).map_or(&[][..], Vec::as_slice);
        let most = if logical { 1 } else { known.len() };
        known.iter().take(most).map(|ip| Arc::new(located(endpoint, name, SocketAddr::new(*ip, *port)))).collect()
    };
    let locality = |l: &LocalityEndpoints| LocalityEndpoints {
        locality: l.locality.clone(),
        weight: l.weight,
        endpoints: l.endpoints.iter().flat_map(&expand).collect(),
    };
    let priority = |p: &Priority| Priority { localities: p.localities.iter().map(locality).collect() };
    ClusterLoad { priorities: load.priorities.iter().map(priority).collect(), ..load.clone() }
}

fn located(endpoint: &Endpoint, name: &Arc<str>, address: SocketAddr) -> Endpoint {
    let hostname = if endpoint.hostname.is_empty() { name.clone() } else { endpoint.hostname.clone() };
    Endpoint { address: EndpointAddress::Socket(address), hostname, ..endpoint.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn families() {
        let both = ips(&["1.1.1.1", "::1", "2.2.2.2"]);
        assert_eq!(choose(both.clone(), DnsFamily::Auto), ips(&["::1"]));
        assert_eq!(choose(both.clone(), DnsFamily::V4Preferred), ips(&["1.1.1.1", "2.2.2.2"]));
        assert_eq!(choose(both.clone(), DnsFamily::All), both);
        assert_eq!(choose(ips(&["1.1.1.1"]), DnsFamily::Auto), ips(&["1.1.1.1"]));
        assert!(choose(ips(&["1.1.1.1"]), DnsFamily::V6Only).is_empty());
    }

    #[tokio::test]
    async fn literals_need_no_question() {
        assert_eq!(resolve("127.0.0.9", DnsFamily::V6Only).await.unwrap(), ips(&["127.0.0.9"]));
    }
}
