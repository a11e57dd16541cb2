//! A request on its way: from proxy to proxy until somebody answers.
//!
//! Owns the address book (who listens where, seen from whom) and the order of the gateway's steps for one connection and one
//! request. Every decision is the gateway's: which chain, whether to admit, which route, which endpoint, whose certificate.

use crate::{
    mesh::{From, Mesh},
    tls::{self, Hello},
    trace::{End, Hop, Seen, Trace},
};
use http::{HeaderName, HeaderValue, Method, Uri};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tombolo_controlplane_core::Role;
use tombolo_gateway_core::{
    balance,
    chain::{self, Sniffed},
    config::{
        Address, Cluster, Config, Discovery, Endpoint, EndpointAddress, FilterChain, Hcm, Listener, ListenerFilter,
        NetworkFilter, TcpCluster, TcpProxy, Terminal, TransportSocket,
    },
    decide::{Moment, decide},
    decision::{Decision, Forward, Reply},
    failure::{Failure, Kind},
    format::Facts,
    forward,
    head::{ConnInfo, Head},
    request::{self, Node},
    time::{Millis, millis},
};

/// More proxies than this on one way are a loop.
const LONGEST: usize = 8;
/// Where clients outside of all sites stand.
const OUTSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), 40000);

/// A connection that is being made.
struct Conn {
    /// Who makes it.
    by: String,
    /// Its site; `None`: outside of all.
    site: Option<usize>,
    source: SocketAddr,
    to: SocketAddr,
    hello: Option<Hello>,
}

enum Next {
    Dial(Box<Conn>),
    End(End),
}

fn lost(at: &str, why: impl Into<String>) -> Next {
    Next::End(End::Lost { at: at.to_owned(), why: why.into() })
}

impl Mesh {
    /// Sends a request and follows it.
    ///
    /// # Panics
    /// When the request itself is not one, or begins at a place that is not there.
    pub fn request(&mut self, from: From<'_>, method: &str, url: &str, headers: &[(&str, &str)]) -> Trace {
        let uri: Uri = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        let mut head = Head {
            method: Method::from_bytes(method.as_bytes()).unwrap_or_else(|error| panic!("{method}: {error}")),
            authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
            path: uri.path_and_query().map(ToString::to_string).unwrap_or_else(|| "/".to_owned()),
            ..Head::default()
        };
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            head.headers.append(name, HeaderValue::from_str(value).unwrap_or_else(|error| panic!("{error}")));
        }
        let mut conn = self.first(from, &uri);
        let mut hops = Vec::new();
        let end = loop {
            if hops.len() >= LONGEST {
                break End::Lost { at: conn.by, why: "it goes round in circles".to_owned() };
            }
            match self.arrive(conn, &mut head, &mut hops) {
                Next::Dial(next) => conn = *next,
                Next::End(end) => break end,
            }
        };
        Trace { hops, end }
    }

    /// GET without headers.
    pub fn get(&mut self, from: From<'_>, url: &str) -> Trace {
        self.request(from, "GET", url, &[])
    }

    fn first(&self, from: From<'_>, uri: &Uri) -> Conn {
        match from {
            From::Pod(name) => {
                let (site, pod) = name.split_once('/').unwrap_or_else(|| panic!("{name} is not SITE/POD"));
                let pod = self.site(site).pod(pod);
                let source = (pod.app, 40000).into();
                Conn { by: name.to_owned(), site: Some(self.place(site)), source, to: pod.http_proxy(), hello: None }
            }
            From::Ingress(site) => {
                let secure = uri.scheme_str() == Some("https");
                let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
                let to = self.site(site).gateways()[0].address(port);
                let hello = secure.then(|| Hello::stranger(uri.host().unwrap_or_default(), &["h2", "http/1.1"]));
                Conn { by: "client".to_owned(), site: None, source: OUTSIDE, to, hello }
            }
            From::Address { site, to, hello } => {
                let place = (!site.is_empty()).then(|| self.place(site));
                let source = if place.is_some() { (Ipv4Addr::new(10, 3, 0, 1), 40000).into() } else { OUTSIDE };
                Conn { by: "client".to_owned(), site: place, source, to, hello }
            }
        }
    }

    /// The proxy that listens at an address, seen from a site: its own proxies first, then every site's gateways.
    fn listener(&self, site: Option<usize>, to: SocketAddr) -> Option<(String, Arc<Listener>)> {
        let here = |listener: &&Arc<Listener>| listener.addresses.contains(&Address::Socket(to));
        let own = self.proxies.values().filter(|proxy| Some(proxy.site()) == site);
        let open = self.proxies.values().filter(|proxy| proxy.role() == Role::Router);
        let mut seen = own.chain(open).filter(|proxy| {
            let pod = proxy.name().split_once('/').map_or("", |(_, pod)| pod);
            proxy.role() == Role::Router || self.sites[proxy.site()].runs(pod)
        });
        seen.find_map(|proxy| {
            let found = proxy.config().listeners.iter().map(|(_, listener)| listener).find(here)?;
            Some((proxy.name().to_owned(), found.clone()))
        })
    }

    fn arrive(&mut self, conn: Conn, head: &mut Head, hops: &mut Vec<Hop>) -> Next {
        if let Some((name, listener)) = self.listener(conn.site, conn.to) {
            return self.enter(&name, &listener, conn, head, hops);
        }
        let home = conn.site.map(|place| &self.sites[place]);
        if let Some(site) = home {
            let running = site.pods().values().filter(|pod| site.runs(&pod.name));
            for (pod, (at, port)) in running.flat_map(|pod| pod.applications().map(move |at| (pod, at))) {
                if at != conn.to {
                    continue;
                }
                if pod.sidecar && conn.by != format!("{}/{}", site.name(), pod.name) {
                    return lost(&conn.by, "only its own sidecar reaches an application");
                }
                if conn.hello.is_some() {
                    return lost(&conn.by, "the application speaks no TLS");
                }
                let (site, pod) = (site.name().to_owned(), pod.name.clone());
                return Next::End(End::Workload { site, pod, port, seen: seen(head) });
            }
        }
        match conn.to.ip() {
            IpAddr::V4(ip) if ip.octets()[0] == 10 || ip.octets()[..3] == [192, 0, 2] => {
                lost(&conn.by, format!("nobody listens at {}", conn.to))
            }
            ip => Next::End(End::Outside { host: ip.to_string(), port: conn.to.port(), seen: seen(head) }),
        }
    }

    /// A connection at a listener: its chain, its TLS, and what ends the chain.
    fn enter(&mut self, name: &str, listener: &Listener, conn: Conn, head: &mut Head, hops: &mut Vec<Hop>) -> Next {
        let config = self.proxy(name).config().clone();
        let mut info = ConnInfo {
            remote: Some(conn.source),
            direct_remote: Some(conn.source),
            local: Some(conn.to),
            ..ConnInfo::default()
        };
        let mut hop = Hop { proxy: name.to_owned(), listener: listener.name.to_string(), ..Hop::default() };
        let Some(chain) = choose(listener, &conn, &mut info) else {
            hop.sni.clone_from(&info.sni);
            hops.push(hop);
            return lost(name, format!("no filter chain for server name {:?}", info.sni));
        };
        hop.chain = chain.name.to_string();
        hop.sni.clone_from(&info.sni);
        let mut passed_on = conn.hello.clone();
        if let Some(server) = &chain.tls {
            let Some(hello) = passed_on.take() else {
                hops.push(hop);
                return lost(name, "plaintext where TLS is expected");
            };
            match tls::handshake(&hello, server, &config) {
                Ok(agreed) => {
                    hop.peer = agreed.peer;
                    hop.alpn = Some(agreed.info.alpn.clone()).filter(|alpn| !alpn.is_empty());
                    info.tls = Some(Box::new(agreed.info));
                }
                Err(why) => {
                    hops.push(hop);
                    return lost(name, why);
                }
            }
        }
        hops.push(hop);
        let at = hops.len() - 1;
        match &chain.terminal {
            Terminal::Http(_) if passed_on.is_some() => lost(name, "TLS where requests are expected"),
            Terminal::Http(hcm) => self.serve(name, &config, hcm, &info, head, &mut hops[at]),
            Terminal::Tcp(proxy) => {
                self.forward_bytes(name, &config, &chain, proxy, (&info, passed_on), &mut hops[at], head)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of a walk, called once")]
    fn forward_bytes(
        &mut self,
        name: &str,
        config: &Config,
        chain: &FilterChain,
        proxy: &TcpProxy,
        (info, hello): (&ConnInfo, Option<Hello>),
        hop: &mut Hop,
        head: &Head,
    ) -> Next {
        let by_name = chain.filters.iter().any(|filter| matches!(filter, NetworkFilter::SniCluster));
        let cluster: Arc<str> = match &proxy.cluster {
            _ if by_name => info.sni.as_str().into(),
            TcpCluster::One(cluster) => cluster.clone(),
            TcpCluster::Weighted(all) => {
                let total: u64 = all.iter().map(|(_, weight, _)| u64::from(*weight)).sum();
                let mut left = self.random.below(total);
                let mut drawn = all.iter().skip_while(|(_, weight, _)| {
                    let over = left >= u64::from(*weight);
                    left = left.saturating_sub(u64::from(*weight));
                    over
                });
                drawn.next().map_or_else(|| "".into(), |(cluster, ..)| cluster.clone())
            }
        };
        hop.cluster = cluster.to_string();
        let Some(cluster) = config.clusters.get(&cluster) else { return lost(name, format!("no cluster {cluster}")) };
        let asked = balance::Request { subset: proxy.metadata_match.as_deref(), ..balance::Request::default() };
        let Some(endpoint) = self.pick(name, config, cluster, &asked) else { return lost(name, "no healthy upstream") };
        self.dial(name, config, cluster, &endpoint, hello, hop, head)
    }

    /// A request at a connection manager.
    fn serve(
        &mut self,
        name: &str,
        config: &Config,
        hcm: &Hcm,
        info: &ConnInfo,
        head: &mut Head,
        hop: &mut Hop,
    ) -> Next {
        let table = config.route_table(hcm);
        let node = Node {
            address: info.local.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |local| local.ip()),
            cluster: HeaderValue::from_static("mesh"),
            id: HeaderValue::from_static(""),
        };
        let mut random = self.random;
        let caller = match request::admit(hcm, &node, info, table.map(|t| &**t), head, &mut random) {
            Ok(caller) => caller,
            Err(reply) => return replied(name, &reply),
        };
        let moment = Moment { now: Millis(self.now), active_faults: 0 };
        let decision = decide(config, hcm, table, info, caller, head, moment, &mut random);
        self.random = random;
        self.random.draw();
        match decision {
            Decision::Reply(reply) => {
                note_route(hop, reply.matched.as_ref());
                replied(name, &reply)
            }
            Decision::Forward(mut forward) => {
                note_route(hop, Some(&forward.matched));
                forward::prepare(
                    &mut forward,
                    forward::Context { hcm, conn: info, caller, base: Facts::default() },
                    head,
                );
                self.forward_request(name, config, &forward, head, hop)
            }
        }
    }

    fn forward_request(
        &mut self,
        name: &str,
        config: &Config,
        forward: &Forward,
        head: &mut Head,
        hop: &mut Hop,
    ) -> Next {
        hop.cluster = forward.cluster.to_string();
        let Some(cluster) = config.clusters.get(&forward.cluster) else {
            return lost(name, format!("no cluster {}", forward.cluster));
        };
        if let Discovery::DynamicForwardProxy(_) = &cluster.discovery {
            let host = forward.forward_host.as_deref().unwrap_or(&head.authority);
            let (host, port) = host.rsplit_once(':').unwrap_or((host, "80"));
            let port = port.parse().unwrap_or_default();
            return Next::End(End::Outside { host: host.to_owned(), port, seen: seen(head) });
        }
        let asked = balance::Request {
            hash: forward.hash,
            subset: forward.metadata_match.as_deref(),
            ..balance::Request::default()
        };
        let Some(endpoint) = self.pick(name, config, cluster, &asked) else {
            return replied(name, &Reply::failure(Failure::new(Kind::NoHealthyUpstream)));
        };
        if forward.auto_host && !endpoint.hostname.is_empty() {
            endpoint.hostname.as_ref().clone_into(&mut head.authority);
        }
        self.dial(name, config, cluster, &endpoint, None, hop, head)
    }

    fn pick(
        &mut self,
        name: &str,
        config: &Config,
        cluster: &Arc<Cluster>,
        asked: &balance::Request<'_>,
    ) -> Option<Arc<Endpoint>> {
        let (random, now) = (self.random.draw(), Millis(self.now));
        self.proxy_mut(name).upstreams.pick(config, cluster, asked, random, now)
    }

    /// A connection to an endpoint; `inner` is a hello that is passed on unopened.
    #[expect(clippy::too_many_arguments, reason = "one step of a walk, called twice")]
    fn dial(
        &self,
        name: &str,
        config: &Config,
        cluster: &Cluster,
        endpoint: &Endpoint,
        inner: Option<Hello>,
        hop: &mut Hop,
        head: &Head,
    ) -> Next {
        hop.to = address(endpoint);
        let to = match &endpoint.address {
            EndpointAddress::Socket(to) => *to,
            EndpointAddress::Name(host, port) => {
                return Next::End(End::Outside { host: host.to_string(), port: *port, seen: seen(head) });
            }
            EndpointAddress::Pipe(_) | EndpointAddress::Internal(..) => return lost(name, "not simulated"),
        };
        let hello = match cluster.transport_for(&endpoint.metadata) {
            TransportSocket::Raw => inner,
            TransportSocket::Tls(_) if inner.is_some() => return lost(name, "TLS within TLS"),
            TransportSocket::Tls(context) => {
                let host = head.authority.rsplit_once(':').map_or(head.authority.as_str(), |(host, _)| host);
                let sni = if cluster.http.auto_sni { host } else { &context.sni };
                match Hello::of_upstream(context, sni, config) {
                    Ok(hello) => Some(hello),
                    Err(why) => return lost(name, why),
                }
            }
            TransportSocket::ProxyProtocol(..) | TransportSocket::Internal(_) | TransportSocket::Quic(_) => {
                return lost(name, "not simulated");
            }
        };
        let proxy = self.proxy(name);
        let site = &self.sites[proxy.site()];
        let pod = name.split_once('/').map_or("", |(_, pod)| pod);
        let ip = site.pods().get(pod).map_or(Ipv4Addr::new(192, 0, 2, 200), |pod| pod.ip);
        Next::Dial(Box::new(Conn {
            by: name.to_owned(),
            site: Some(proxy.site()),
            source: (ip, 40000).into(),
            to,
            hello,
        }))
    }
}

fn address(endpoint: &Endpoint) -> Option<SocketAddr> {
    match &endpoint.address {
        EndpointAddress::Socket(address) => Some(*address),
        EndpointAddress::Name(..) | EndpointAddress::Pipe(_) | EndpointAddress::Internal(..) => None,
    }
}

fn note_route(hop: &mut Hop, matched: Option<&tombolo_gateway_core::decision::Matched>) {
    let Some(matched) = matched else { return };
    hop.host = matched.host().name.to_string();
    hop.route = matched.route().map_or_else(String::new, |route| route.name.to_string());
}

/// The chain of a connection, by what the listener's own filters look at.
fn choose(listener: &Listener, conn: &Conn, info: &mut ConnInfo) -> Option<Arc<FilterChain>> {
    let looks = |wanted: &ListenerFilter| listener.filters.iter().any(|filter| filter == wanted);
    let mut transport = "";
    let mut protocols: Vec<&str> = Vec::new();
    if looks(&ListenerFilter::TlsInspector) {
        transport = "raw_buffer";
        if let Some(hello) = &conn.hello {
            transport = "tls";
            info.sni = hello.sni.to_ascii_lowercase();
            protocols = hello.alpn.iter().map(String::as_str).collect();
        }
    }
    if looks(&ListenerFilter::HttpInspector) && conn.hello.is_none() {
        protocols = vec!["http/1.1"];
    }
    let sniffed = Sniffed {
        destination: info.local,
        source: info.remote,
        direct_source: info.direct_remote,
        server_name: &info.sni,
        transport,
        application_protocols: &protocols,
    };
    chain::choose(listener, sniffed).cloned()
}

fn seen(head: &Head) -> Seen {
    let headers = head.headers.iter();
    Seen {
        method: head.method.to_string(),
        authority: head.authority.clone(),
        path: head.path.clone(),
        headers: headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect(),
    }
}

fn replied(by: &str, reply: &Reply) -> Next {
    let location =
        reply.headers.get(http::header::LOCATION).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
    Next::End(End::Reply {
        by: by.to_owned(),
        status: reply.status.as_u16(),
        location,
        body: String::from_utf8_lossy(&reply.body).into_owned(),
        details: reply.cause.details(),
        delay: reply.delay.map_or(0, millis),
    })
}
