//! Names of endpoints, resolved.
//!
//! Owns the rules: which addresses of an answer count, when to ask again, and what an endpoint with a name becomes. Never
//! forgets a good answer because a later question failed.

mod message;
mod stub;

use message::Kind;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use stub::Machine;
use tombolo_gateway_core::{
    config::{ClusterLoad, DnsFamily, DnsSettings, Endpoint, EndpointAddress, LocalityEndpoints, Priority},
    time::{Random, millis},
};

/// Answers by name.
pub(crate) type Answers = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// An answer: no address means that the name has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// In the order in which they are to be used.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long they count, if anybody said.
    pub(crate) ttl: Option<Duration>,
}

/// Asks for one name.
///
/// # Errors
/// When nobody gave an answer.
pub(crate) async fn resolve(name: &str, settings: &DnsSettings) -> io::Result<Found> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(Found { addresses: vec![ip], ttl: None });
    }
    if settings.resolver.library {
        let found = tokio::net::lookup_host((name, 0)).await?;
        return Ok(Found { addresses: choose(found.map(|a| a.ip()).collect(), settings.family), ttl: None });
    }
    let machine = Machine::read().await;
    let written = machine.written(name);
    if !written.is_empty() {
        return Ok(Found { addresses: choose(written, settings.family), ttl: None });
    }
    let ask = |kind| stub::ask(name, kind, &settings.resolver, &machine);
    match settings.family {
        DnsFamily::V4Only => ask(Kind::A).await.map(found),
        DnsFamily::V6Only => ask(Kind::Aaaa).await.map(found),
        DnsFamily::Auto | DnsFamily::V4Preferred | DnsFamily::All => {
            let (four, six) = tokio::join!(ask(Kind::A), ask(Kind::Aaaa));
            both(four, six, settings.family)
        }
    }
}

fn found((addresses, ttl): stub::Found) -> Found {
    Found { ttl: (!addresses.is_empty()).then_some(ttl), addresses }
}

/// The addresses that one answer gives to one question; for whoever feeds parsers with anything.
pub(crate) fn addresses(bytes: &[u8], id: u16, name: &str, version6: bool) -> Option<Vec<std::net::IpAddr>> {
    match message::reply(bytes, id, name, if version6 { Kind::Aaaa } else { Kind::A })? {
        message::Reply::Found(addresses, _) => Some(addresses),
        message::Reply::Truncated | message::Reply::Refused(_) => None,
    }
}

/// One kind may fail as long as the other has something.
fn both(four: io::Result<stub::Found>, six: io::Result<stub::Found>, family: DnsFamily) -> io::Result<Found> {
    let (four, six) = match (four, six) {
        (Ok(four), Ok(six)) => (four, six),
        (Ok(one), Err(error)) | (Err(error), Ok(one)) if one.0.is_empty() => return Err(error),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => return Ok(found(one)),
        (Err(error), Err(_)) => return Err(error),
    };
    let (first, second) = if family == DnsFamily::V4Preferred { (four, six) } else { (six, four) };
    if family != DnsFamily::All {
        return Ok(found(if first.0.is_empty() { second } else { first }));
    }
    // A kind without addresses says nothing about time.
    let ttl = [&first, &second].into_iter().filter(|f| !f.0.is_empty()).map(|f| f.1).min();
    Ok(Found { addresses: first.0.into_iter().chain(second.0).collect(), ttl })
}

/// When to ask again after an answer. `failures`: how many questions in a row brought none.
pub(crate) fn pause(settings: &DnsSettings, ttl: Option<Duration>, failures: u32, random: u64) -> Duration {
    let mut random = Random::new(random);
    if failures > 0
        && let Some((base, most)) = settings.failure
    {
        // Anywhere up to a bound that doubles, so that a fleet does not come back at one time.
        let bound = base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
        return Duration::from_millis(random.below(millis(bound)).max(1));
    }
    let told = ttl.filter(|ttl| settings.respect_ttl && failures == 0 && !ttl.is_zero());
    let pause = told.unwrap_or(settings.refresh).max(settings.min_refresh).max(LEAST);
    pause + Duration::from_millis(random.below(millis(settings.jitter)))
}

/// No name is asked for more often.
const LEAST: Duration = Duration::from_millis(10);

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

/// A load with names replaced by their addresses: each an endpoint, or (`logical`) all of them one endpoint of which the
/// first is used and the others take its place when it does not answer.
pub(crate) fn apply(load: &ClusterLoad, answers: &Answers, logical: bool) -> ClusterLoad {
    let expand = |endpoint: &Arc<Endpoint>| -> Vec<Arc<Endpoint>> {
        let EndpointAddress::Name(name, port) = &endpoint.address else { return vec![endpoint.clone()] };
        let known = answers.get(name).map_or(&[][..], Vec::as_slice);
        let at = |ip: &IpAddr| SocketAddr::new(*ip, *port);
        if let (true, Some((first, rest))) = (logical, known.split_first()) {
            let one = located(endpoint, name, at(first));
            return vec![Arc::new(Endpoint { more_addresses: rest.iter().map(at).collect(), ..one })];
        }
        known.iter().map(|ip| Arc::new(located(endpoint, name, at(ip)))).collect()
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

    fn settings() -> DnsSettings {
        DnsSettings {
            refresh: Duration::from_secs(5),
            failure: None,
            jitter: Duration::ZERO,
            min_refresh: Duration::ZERO,
            respect_ttl: true,
            family: DnsFamily::V6Only,
            resolver: tombolo_gateway_core::config::DnsResolver::default(),
        }
    }

    #[tokio::test]
    async fn literals_need_no_question() {
        assert_eq!(resolve("127.0.0.9", &settings()).await.unwrap().addresses, ips(&["127.0.0.9"]));
    }

    #[test]
    fn times_to_ask_again() {
        let told = settings();
        assert_eq!(pause(&told, Some(Duration::from_secs(30)), 0, 1), Duration::from_secs(30));
        assert_eq!(pause(&told, Some(Duration::ZERO), 0, 1), Duration::from_secs(5));
        assert_eq!(pause(&told, Some(Duration::from_secs(30)), 1, 1), Duration::from_secs(5));
        let plain = DnsSettings { respect_ttl: false, ..settings() };
        assert_eq!(pause(&plain, Some(Duration::from_secs(30)), 0, 1), Duration::from_secs(5));
        let failing = DnsSettings { failure: Some((Duration::from_secs(1), Duration::from_secs(8))), ..settings() };
        let longest = |failures| (0..300).map(|n| pause(&failing, None, failures, n)).max().unwrap().as_secs_f64();
        assert!((0.9..1.0).contains(&longest(1)) && (3.7..4.0).contains(&longest(3)));
        assert!((7.5..8.0).contains(&longest(9)));
        let careful = DnsSettings { min_refresh: Duration::from_secs(60), ..settings() };
        assert_eq!(pause(&careful, Some(Duration::from_secs(30)), 0, 1), Duration::from_secs(60));
    }

    #[test]
    fn all_addresses_of_a_logical_endpoint_are_one() {
        let endpoint = Endpoint {
            address: EndpointAddress::Name("n".into(), 80),
            more_addresses: Box::default(),
            hostname: "".into(),
            health: Default::default(),
            weight: 1,
            metadata: Default::default(),
            locality_metadata: Default::default(),
            health_check_port: None,
            health_check_address: None,
            health_check_hostname: "".into(),
            skip_health_check: false,
        };
        let locality =
            LocalityEndpoints { locality: Default::default(), weight: None, endpoints: Box::new([Arc::new(endpoint)]) };
        let load = ClusterLoad {
            name: "c".into(),
            priorities: Box::new([Priority { localities: Box::new([locality]) }]),
            overprovisioning: 140,
            weighted_localities: false,
            drops: Box::default(),
        };
        let answers = Answers::from([("n".into(), ips(&["::1", "1.1.1.1"]))]);
        let strict = apply(&load, &answers, false);
        assert_eq!(strict.priorities[0].localities[0].endpoints.len(), 2);
        let logical = apply(&load, &answers, true);
        let one = &logical.priorities[0].localities[0].endpoints;
        assert_eq!((one.len(), &*one[0].more_addresses), (1, &["1.1.1.1:80".parse().unwrap()][..]));
    }
}
