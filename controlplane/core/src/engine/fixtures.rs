//! A small federation for tests: site east with its own services, west as a peer.

use super::Engine;
use crate::{
    input::{Input, IntentEvent},
    intent::*,
    proxy::{Proxy, Role},
    settings::SiteSettings,
    stage::ProxyId,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tombolo_federation_model::*;
use tombolo_federation_registry::{Event, Item, ItemKey, Lease, Millis, ShardId, ShardSettings};
use tombolo_federation_sync::Snapshot;

pub(super) fn host(name: &str) -> Host {
    let full =
        if name.contains('.') || name == "*" { name.to_owned() } else { format!("{name}.default.svc.cluster.local") };
    Host::parse(&full).unwrap()
}

pub(super) fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

pub(super) fn labels(text: &str) -> Labels {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

pub(super) fn named(namespace_name: &str, name: &str) -> NamedRef {
    NamedRef { namespace: namespace(namespace_name), name: name.to_owned() }
}

pub(super) fn credential(namespace_name: Option<&str>, name: &str) -> Credential {
    Credential { namespace: namespace_name.map(namespace), name: name.to_owned() }
}

/// A mesh under test: an engine of site east that is told things by cluster name.
#[derive(Debug)]
pub(super) struct Mesh {
    pub(super) engine: Engine,
    pub(super) now: Millis,
}

pub(super) fn site() -> SiteSettings {
    let mut site = SiteSettings::new(
        SiteName::parse("east").unwrap(),
        ClusterId::parse("east").unwrap(),
        NetworkId::parse("east").unwrap(),
        TrustDomain::parse("east.local").unwrap(),
    );
    site.locality = Locality::parse("east/z1");
    site
}

pub(super) fn shard(cluster: &str) -> ShardId {
    let id = ClusterId::parse(cluster).unwrap();
    let via = if cluster == "east" { Vec::new() } else { vec![SiteName::parse(cluster).unwrap()] };
    ShardId { cluster: id, source: "test".into(), via }
}

fn settings(cluster: &str) -> ShardSettings {
    ShardSettings {
        network: NetworkId::parse(cluster).unwrap(),
        locality: Locality::parse(&format!("{cluster}/z1")),
        trust_domain: TrustDomain::parse(&format!("{cluster}.local")).unwrap(),
        lease: (cluster != "east").then(Lease::default),
        own: cluster == "east",
    }
}

impl Mesh {
    pub(super) fn new() -> Self {
        Self::of(site())
    }

    pub(super) fn of(site: SiteSettings) -> Self {
        let mut mesh = Self { engine: Engine::new(site), now: Millis(1) };
        for cluster in ["east", "west"] {
            mesh.tell(Input::Declare(shard(cluster), settings(cluster)));
            mesh.tell(Input::Registry(Event::Begin { shard: shard(cluster), epoch: 1 }));
            mesh.tell(Input::Registry(Event::Complete { shard: shard(cluster), epoch: 1 }));
        }
        mesh
    }

    pub(super) fn tell(&mut self, input: Input) {
        self.engine.apply(input, self.now);
    }

    pub(super) fn put(&mut self, cluster: &str, item: Item) {
        self.tell(Input::Registry(Event::Put { shard: shard(cluster), epoch: 1, item }));
    }

    pub(super) fn remove(&mut self, cluster: &str, key: ItemKey) {
        self.tell(Input::Registry(Event::Remove { shard: shard(cluster), epoch: 1, key }));
    }

    pub(super) fn intent(&mut self, intent: Intent) {
        self.tell(Input::Intent(IntentEvent::Put { shard: shard("east"), epoch: 1, intent: Arc::new(intent) }));
    }

    pub(super) fn forget(&mut self, object: ObjectRef) {
        self.tell(Input::Intent(IntentEvent::Remove { shard: shard("east"), epoch: 1, object }));
    }

    pub(super) fn service(&mut self, cluster: &str, name: &str, ports: &[(u16, Protocol)]) {
        self.put(cluster, Item::Service(service(cluster, name, ports)));
    }

    /// A workload `NAME` of account `NAME` at an address, ready for mutual TLS.
    pub(super) fn workload(&mut self, cluster: &str, name: &str, ip: &str, with: &str) {
        self.put(cluster, Item::Workload(workload(cluster, name, ip, with)));
    }

    pub(super) fn attach(&mut self, proxy: Proxy) -> ProxyId {
        self.engine.attach(proxy)
    }

    pub(super) fn snapshot(&mut self, id: ProxyId) -> Arc<Snapshot> {
        self.engine.step(self.now);
        self.engine.snapshot(id).expect("an attached proxy has a snapshot")
    }

    pub(super) fn codes(&mut self) -> Vec<String> {
        self.engine.step(self.now);
        self.engine.diagnostics().iter().map(|d| format!("{} {} {}", d.code, d.object.name, d.field)).collect()
    }
}

pub(super) fn service(cluster: &str, name: &str, ports: &[(u16, Protocol)]) -> Service {
    let port = |(number, protocol): &(u16, Protocol)| ServicePort {
        number: *number,
        name: format!("p{number}"),
        protocol: *protocol,
        target: TargetPort::Number(*number),
    };
    Service {
        host: host(name),
        namespace: namespace("default"),
        name: name.to_owned(),
        ports: ports.iter().map(port).collect(),
        labels: Labels::new(),
        addresses: Vec::new(),
        selector: Some(labels(&format!("app={name}"))),
        resolution: Resolution::Registry,
        scope: Scope::Mesh,
        headless: false,
        visibility: Visibility::All,
        subject_alt_names: Vec::new(),
        created: 100,
        origin: ObjectRef::new("Service", "default", name, cluster),
        alias_of: None,
        crossing: false,
    }
}

pub(super) fn workload(_cluster: &str, name: &str, ip: &str, with: &str) -> Workload {
    let app = name.split('-').next().unwrap_or(name);
    let mut all = labels(&format!("app={app}"));
    all.extend(labels(with));
    Workload {
        name: name.to_owned(),
        namespace: namespace("default"),
        addresses: vec![WorkloadAddress::Ip(ip.parse().unwrap())],
        ports: BTreeMap::new(),
        served_ports: BTreeMap::new(),
        labels: Arc::new(all),
        service_account: app.to_owned(),
        network: None,
        locality: None,
        health: Health::Healthy,
        tls: TlsMode::Mutual,
        weight: 1,
        origin: ObjectRef::new("Pod", "default", name, "east"),
    }
}

pub(super) fn meta(kind: &str, ns: &str, name: &str, created: i64) -> Meta {
    Meta {
        object: ObjectRef::new(kind, ns, name, "east"),
        namespace: namespace(ns),
        name: name.to_owned(),
        created,
        generation: 1,
    }
}

pub(super) fn target(name: &str, subset: Option<&str>) -> Target {
    Target { host: host(name), subset: subset.map(str::to_owned), port: None }
}

pub(super) fn to(name: &str, subset: Option<&str>, weight: u32) -> HttpBackend {
    HttpBackend { destination: target(name, subset), weight, headers: HeaderChanges::default() }
}

pub(super) fn rule(matches: Vec<HttpMatch>, backends: Vec<HttpBackend>) -> HttpRule {
    HttpRule {
        name: String::new(),
        field: "spec.http[0]".to_owned(),
        matches,
        action: HttpAction::Forward { backends, rewrite: Rewrite::default() },
        timeout: None,
        retry: None,
        fault: None,
        mirrors: Vec::new(),
        cors: None,
        headers: HeaderChanges::default(),
        delegate: None,
    }
}

pub(super) fn prefix(path: &str) -> HttpMatch {
    HttpMatch { path: Some(TextMatch::Prefix(path.to_owned())), ..HttpMatch::default() }
}

pub(super) fn routes(name: &str, created: i64, hosts: &[&str], http: Vec<HttpRule>) -> Routes {
    Routes {
        meta: meta("VirtualService", "default", name, created),
        hosts: hosts.iter().map(|h| host(h)).collect(),
        attachments: vec![Attachment::Mesh],
        export_to: Visibility::All,
        precedence: Precedence::ObjectOrder,
        http,
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

pub(super) fn at_gateway(mut routes: Routes, gateway: &str) -> Routes {
    routes.attachments = vec![Attachment::Gateway { gateway: named("default", gateway), section: None, port: None }];
    routes
}

pub(super) fn destination(name: &str, of: &str, subsets: &[(&str, &str)]) -> Destination {
    let subset = |(name, with): &(&str, &str)| Subset {
        name: (*name).to_owned(),
        labels: labels(with),
        policy: TrafficPolicy::default(),
    };
    Destination {
        meta: meta("DestinationRule", "default", name, 100),
        host: host(of),
        export_to: Visibility::All,
        workload_selector: None,
        policy: TrafficPolicy::default(),
        subsets: subsets.iter().map(subset).collect(),
    }
}

pub(super) fn server(port: u16, protocol: Protocol, hosts: &[&str], mode: Option<ServerTlsMode>) -> Server {
    let host = |h: &&str| ServerHost { namespace: None, host: host(h) };
    let tls = mode.map(|mode| ServerTls {
        mode,
        https_redirect: false,
        credentials: Vec::new(),
        files: None,
        client_roots_file: None,
        subject_alt_names: Vec::new(),
        min_version: None,
        max_version: None,
        cipher_suites: Vec::new(),
    });
    Server {
        name: format!("s{port}"),
        field: "spec.servers[0]".to_owned(),
        port,
        port_name: format!("p{port}"),
        protocol,
        hosts: hosts.iter().map(host).collect(),
        tls,
        bind: None,
        allowed_routes: RouteNamespaces::All,
    }
}

pub(super) fn gateway(name: &str, created: i64, servers: Vec<Server>) -> Gateway {
    let meta = meta("Gateway", "default", name, created);
    Gateway { meta, selector: labels("istio=ingress"), servers, conflict: ConflictRule::OldestWins }
}

pub(super) fn sidecar(name: &str, ip: &str) -> Proxy {
    let ip: IpAddr = ip.parse().unwrap();
    let app = name.split('-').next().unwrap_or(name);
    Proxy {
        id: format!("sidecar~{ip}~{name}.default~default.svc.cluster.local"),
        role: Role::Sidecar,
        address: ip,
        namespace: namespace("default"),
        name: name.to_owned(),
        labels: labels(&format!("app={app},pod-template-hash={name}")),
        cluster: None,
        network: None,
        locality: None,
        service_account: app.to_owned(),
        http_proxy: Some((ip, 15080).into()),
        inbound: BTreeMap::from([(9080, ((ip, 9080).into(), (IpAddr::from([127, 1, 129, 1]), 9080).into()))]),
        bind: IpAddr::from([0, 0, 0, 0]),
        low_port_offset: 0,
        port_map: BTreeMap::new(),
        version: String::new(),
    }
}

pub(super) fn router(name: &str, with: &str) -> Proxy {
    let ip = IpAddr::from([127, 1, 0, 2]);
    Proxy {
        role: Role::Router,
        labels: labels(with),
        http_proxy: None,
        inbound: BTreeMap::new(),
        bind: ip,
        low_port_offset: 10000,
        ..sidecar(name, "127.1.0.2")
    }
}

/// The west site's east-west gateway.
pub(super) fn crossing(network: &str, address: &str) -> Item {
    Item::Gateway(NetworkGateway {
        network: NetworkId::parse(network).unwrap(),
        cluster: ClusterId::parse(network).unwrap(),
        address: address.to_owned(),
        port: 15443,
    })
}

/// Reviews v1 in east and v2 in west, split 80 to 20; ratings in both.
pub(super) fn shop() -> Mesh {
    let mut mesh = Mesh::new();
    fill_shop(&mut mesh);
    mesh
}

/// Fills a mesh with the shop.
pub(super) fn fill_shop(mesh: &mut Mesh) {
    for cluster in ["east", "west"] {
        mesh.service(cluster, "reviews", &[(9080, Protocol::Http)]);
        mesh.service(cluster, "ratings", &[(9080, Protocol::Http)]);
    }
    mesh.workload("east", "reviews-v1-0", "127.1.1.1", "version=v1");
    mesh.workload("west", "reviews-v2-0", "127.2.1.1", "version=v2");
    mesh.workload("east", "ratings-0", "127.1.1.2", "");
    mesh.workload("west", "ratings-0", "127.2.1.2", "");
    mesh.workload("west", "ratings-1", "127.2.1.3", "");
    mesh.put("west", crossing("west", "127.2.0.3"));
    mesh.intent(Intent::Destination(destination("reviews", "reviews", &[("v1", "version=v1"), ("v2", "version=v2")])));
    let split = rule(Vec::new(), vec![to("reviews", Some("v1"), 80), to("reviews", Some("v2"), 20)]);
    mesh.intent(Intent::Routes(routes("reviews", 100, &["reviews"], vec![split])));
    mesh.tell(Input::Bundles(BTreeMap::from([
        (TrustDomain::parse("east.local").unwrap(), vec![vec![1, 2, 3]]),
        (TrustDomain::parse("west.local").unwrap(), vec![vec![4, 5, 6]]),
    ])));
}
