//! What runs and how it does, as JSON in words of our own (`/inventory`): for `tombolo proxy-config` and for people.
//!
//! Never contains a key: only facts of certificates are read.

use super::Admin;
use crate::{tls::context, upstream::keeper};
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    sync::{Arc, PoisonError},
    time::SystemTime,
};
use tombolo_controlplane_api::json::Node;
use tombolo_gateway_core::{
    balance::{Health, Host},
    breaker::Resource,
    config::{
        Address, ClusterChoice, Config, Discovery, EndpointAddress, FilterChain, LbPolicy, Listener, PathMatch, Route,
        RoutePriority, RouteSource, RouteTable, RouteTarget, SanMatcher, TcpCluster, Terminal, TransportSocket,
        UpstreamTls, ValidationSource,
    },
};

/// Everything.
pub(super) fn config(admin: &Admin) -> Node {
    let live = admin.live.borrow().clone();
    object([
        ("node", json!(admin.node).into()),
        ("generation", json!(live.config.generation).into()),
        ("listeners", listeners(&live.config)),
        ("routes", Node::list(sorted(&live.config.routes).into_iter().map(|(_, table)| route_table(table)))),
        ("clusters", clusters(&live)),
        ("certificates", certificates_value(admin).into()),
        ("xds", xds_value(admin).into()),
    ])
}

fn object(members: impl IntoIterator<Item = (&'static str, Node), IntoIter: Send + 'static>) -> Node {
    Node::object(members.into_iter().map(|(name, member)| (Cow::Borrowed(name), member)))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

pub(super) fn xds_value(admin: &Admin) -> Value {
    let status = admin.status.lock().unwrap_or_else(PoisonError::into_inner);
    let kinds: Map<String, Value> = status
        .kinds
        .iter()
        .map(|(kind, k)| {
            (
                format!("{kind:?}"),
                json!({"held": k.held, "accepted": k.accepted, "refused": k.refused, "refusals": k.reasons}),
            )
        })
        .collect();
    json!({
        "connected": status.connected,
        "since": status.since.map(seconds),
        "trouble": status.trouble,
        "from_disk": status.from_disk,
        "kinds": kinds,
        "waiting": status.waiting.iter().map(|w| format!("{:?} {:?} waits for {}", w.kind, w.name, w.missing)).collect::<Vec<_>>(),
    })
}

fn sorted<V>(map: &tombolo_gateway_core::config::Map<V>) -> Vec<(Arc<str>, Arc<V>)> {
    let mut all: Vec<_> = map.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn listeners(config: &Config) -> Node {
    let config = config.clone();
    Node::list(sorted(&config.listeners).into_iter().map(move |(_, one)| listener(&config, &one)))
}

/// An address as `/listeners` shows it.
pub(super) fn listener_address(address: &Address) -> String {
    match address {
        Address::Socket(address) => address.to_string(),
        Address::Pipe(path, _) => path.to_string(),
        Address::Internal => "internal".to_owned(),
    }
}

fn listener(config: &Config, listener: &Listener) -> Node {
    let chains = listener.chains.iter().map(|c| (c, false)).chain(listener.default_chain.iter().map(|c| (c, true)));
    let chains: Vec<Node> = chains.map(|(one, default)| chain(config, one, default)).collect();
    object([
        ("name", json!(listener.name).into()),
        ("addresses", json!(listener.addresses.iter().map(listener_address).collect::<Vec<_>>()).into()),
        ("direction", json!(format!("{:?}", listener.direction)).into()),
        ("bind", json!(listener.bind_to_port).into()),
        ("filters", json!(listener.filters.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>()).into()),
        ("chains", Node::list(chains.into_iter())),
    ])
}

fn terminal(config: &Config, chain: &FilterChain) -> Node {
    let hcm = match &chain.terminal {
        Terminal::Http(hcm) => hcm,
        Terminal::Tcp(proxy) => {
            let clusters = match &proxy.cluster {
                TcpCluster::One(name) => vec![json!({"name": name, "weight": 100})],
                TcpCluster::Weighted(all) => {
                    all.iter().map(|(name, weight, _)| json!({"name": name, "weight": weight})).collect()
                }
            };
            return json!({"tcp": {"stat_prefix": proxy.stat_prefix, "clusters": clusters}}).into();
        }
    };
    let (routes, inline) = match &hcm.routes {
        RouteSource::Inline(table) => (table.name.clone(), true),
        RouteSource::Named(name) => (name.clone(), false),
        RouteSource::Scoped(scoped) => (scoped.name.clone(), false),
    };
    let table = config.route_table(hcm).filter(|_| inline).cloned();
    let http = object([
        ("stat_prefix", json!(hcm.stat_prefix).into()),
        ("routes", json!(routes).into()),
        ("inline", json!(inline).into()),
        ("loaded", json!(config.route_table(hcm).is_some()).into()),
        ("filters", json!(hcm.filters.iter().map(|f| f.name.to_string()).collect::<Vec<_>>()).into()),
        ("table", table.map_or(Node::Leaf(Value::Null), route_table)),
    ]);
    object([("http", http)])
}

fn chain(config: &Config, chain: &FilterChain, default: bool) -> Node {
    let m = &chain.matches;
    let matches = json!({
        "port": m.destination_port,
        "destinations": m.destinations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "server_names": m.server_names,
        "transport": m.transport_protocol,
        "alpn": m.application_protocols,
    });
    let tls = chain.tls.as_ref().map(|tls| {
        json!({
            "certificates": tls.common.certificates.iter().map(|c| format!("{c:?}")).filter(|c| !c.contains("Inline")).collect::<Vec<_>>(),
            "client_certificate": tls.require_client_certificate,
            "trust": tls.common.validation.as_ref().map(trust),
            "alpn": tls.common.alpn,
        })
    });
    object([
        ("name", json!(chain.name).into()),
        ("default", json!(default).into()),
        ("match", matches.into()),
        ("tls", json!(tls).into()),
        ("terminal", terminal(config, chain)),
    ])
}

fn trust(source: &ValidationSource) -> Value {
    match source {
        ValidationSource::Inline(v) => json!({"names": v.san_matchers.iter().map(san).collect::<Vec<_>>()}),
        ValidationSource::Named(_, name) => json!({"secret": name}),
        ValidationSource::Combined(v, _, name) => {
            json!({"secret": name, "names": v.san_matchers.iter().map(san).collect::<Vec<_>>()})
        }
    }
}

fn san(matcher: &SanMatcher) -> String {
    format!("{:?} {:?}", matcher.kind, matcher.matcher.kind)
}

fn route_table(table: Arc<RouteTable>) -> Node {
    let name = json!(table.name).into();
    let hosts = (0..table.hosts.len()).map(move |at| {
        let host = &table.hosts[at];
        json!({"name": host.name, "routes": host.routes.iter().map(|r| route(r)).collect::<Vec<_>>()}).into()
    });
    object([("name", name), ("virtual_hosts", Node::list(hosts))])
}

fn route(route: &Route) -> Value {
    let path = match &route.matches.path {
        PathMatch::Prefix(text) => json!({"prefix": text}),
        PathMatch::Exact(text) => json!({"path": text}),
        PathMatch::Separated(text) => json!({"path_separated_prefix": text}),
        PathMatch::Regex(regex) => json!({"regex": &*regex.pattern}),
        PathMatch::Connect => json!({"connect": true}),
        PathMatch::Template(template) => json!({"template": template.text}),
    };
    let target = match &route.target {
        RouteTarget::Forward(action) => json!({
            "clusters": match &action.cluster {
                ClusterChoice::One(name) => vec![json!({"name": name, "weight": 100})],
                ClusterChoice::Header(name) => vec![json!({"header": name.as_str()})],
                ClusterChoice::Weighted { clusters, .. } => clusters.iter().map(|c| json!({"name": c.name, "weight": c.weight})).collect(),
            },
            "timeout_ms": action.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
            "retries": action.retry.as_ref().map(|r| r.retries),
            "mirrors": action.mirrors.iter().map(|m| m.cluster.to_string()).collect::<Vec<_>>(),
        }),
        RouteTarget::Redirect(redirect) => json!({"redirect": redirect.status.as_u16()}),
        RouteTarget::Respond(response) => json!({"respond": response.status.as_u16()}),
        RouteTarget::NonForwarding => json!({"non_forwarding": true}),
    };
    json!({
        "name": route.name,
        "match": path,
        "headers": route.matches.headers.iter().map(|h| format!("{:?} {:?}", h.name, h.kind)).collect::<Vec<_>>(),
        "target": target,
    })
}

fn clusters(live: &Arc<keeper::Live>) -> Node {
    let all = keeper::sorted(live).into_iter();
    let live = live.clone();
    Node::list(all.map(move |(name, upstream)| cluster(&live, &name, &upstream).into()))
}

fn cluster(live: &keeper::Live, name: &str, upstream: &keeper::Upstream) -> Value {
    let c = &upstream.cluster;
    let discovery = match &c.discovery {
        Discovery::Eds(_) => "EDS",
        Discovery::Static(_) => "STATIC",
        Discovery::StrictDns(..) => "STRICT_DNS",
        Discovery::LogicalDns(..) => "LOGICAL_DNS",
        Discovery::OriginalDst(_) => "ORIGINAL_DST",
        Discovery::DynamicForwardProxy(_) => "DYNAMIC_FORWARD_PROXY",
        Discovery::Aggregate(_) => "AGGREGATE",
    };
    let policy = match &c.lb.policy {
        LbPolicy::RoundRobin => "ROUND_ROBIN",
        LbPolicy::LeastRequest(_) => "LEAST_REQUEST",
        LbPolicy::Random => "RANDOM",
        LbPolicy::RingHash(_) => "RING_HASH",
        LbPolicy::Maglev(_) => "MAGLEV",
        LbPolicy::PickFirst => "PICK_FIRST",
        LbPolicy::PeakEwma(_) => "PEAK_EWMA",
        LbPolicy::ByDiscovery => "CLUSTER_PROVIDED",
    };
    let breakers = upstream.glance_at_breakers(RoutePriority::Default);
    let plan = upstream.glance();
    let set = plan.set();
    json!({
        "name": name,
        "type": discovery,
        "lb_policy": policy,
        "transport": transport(&c.transport),
        "transport_matches": c.transport_matches.iter().map(|m| json!({"name": m.name, "transport": transport(&m.transport)})).collect::<Vec<_>>(),
        "breakers": {
            "requests": {"limit": breakers.limit(Resource::Requests), "used": breakers.used(Resource::Requests)},
            "connections": {"limit": breakers.limit(Resource::Connections), "used": breakers.used(Resource::Connections)},
            "pending": {"limit": breakers.limit(Resource::Pending), "used": breakers.used(Resource::Pending)},
            "retries": {"limit": breakers.limit(Resource::Retries), "used": breakers.used(Resource::Retries)},
        },
        "outlier": c.outlier.is_some(),
        "known": live.config.clusters.contains(name),
        "in_panic": plan.in_panic(),
        "endpoints": set.hosts().iter().map(|h| endpoint(set.load(), h)).collect::<Vec<_>>(),
    })
}

fn transport(socket: &TransportSocket) -> Value {
    let tls = |t: &UpstreamTls| json!({"tls": {"sni": t.sni, "mutual": !t.common.certificates.is_empty(), "trust": t.common.validation.as_ref().map(trust), "alpn": t.common.alpn}});
    match socket {
        TransportSocket::Raw => json!("raw"),
        TransportSocket::Tls(t) => tls(t),
        TransportSocket::Quic(t) => json!({"quic": tls(t)}),
        TransportSocket::ProxyProtocol(version, inner) => {
            json!({"proxy_protocol": format!("{version:?}"), "inner": transport(inner)})
        }
        TransportSocket::Internal(_) => json!("internal"),
    }
}

/// An endpoint's address.
pub(super) fn address(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Socket(address) => address.to_string(),
        EndpointAddress::Name(name, port) => format!("{name}:{port}"),
        EndpointAddress::Pipe(path) => path.to_string(),
        EndpointAddress::Internal(listener, id) => format!("internal:{listener}/{id}"),
    }
}

fn endpoint(load: &tombolo_gateway_core::config::ClusterLoad, host: &Host) -> Value {
    let locality = load
        .priorities
        .get(host.priority as usize)
        .and_then(|p| p.localities.get(host.locality as usize))
        .map(|l| l.locality.to_string());
    let health = match host.health() {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Unhealthy => "unhealthy",
    };
    json!({
        "address": address(&host.endpoint.address),
        "hostname": host.endpoint.hostname,
        "health": health,
        "ejected": host.state.is_ejected(),
        "told": format!("{:?}", host.endpoint.health),
        "priority": host.priority,
        "locality": locality,
        "weight": host.endpoint.weight,
        "active_requests": host.state.active(),
        "workload": host.endpoint.metadata.get("istio", "workload").and_then(|v| v.as_str()),
        "tls_mode": host.endpoint.metadata.get("envoy.transport_socket_match", "tlsMode").and_then(|v| v.as_str()),
    })
}

fn certificates_value(admin: &Admin) -> Value {
    let live = admin.live.borrow().clone();
    let own = admin.certificate.borrow();
    let list: Vec<Value> = context::inventory(&live.config)
        .into_iter()
        .map(|(secret, facts)| {
            json!({
                "secret": secret,
                "name": facts.name,
                "serial": facts.serial,
                "not_before": seconds(facts.not_before),
                "not_after": seconds(facts.not_after),
                "seconds_left": facts.not_after.duration_since(SystemTime::now()).map_or(0, |d| d.as_secs()),
            })
        })
        .collect();
    json!({"certificates": list, "trouble": own.trouble})
}
