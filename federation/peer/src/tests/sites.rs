//! A whole site for tests: a registry of its own, exports, certificates, and the exchange with its peers.

use super::certificates::Authority;
use crate::{
    Bundle, Credentials, Exports, LocalSite, PeerEvent, PeerState, Peers, Remit, Settings, Trust, TrustMap,
    export_snapshot, start,
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tombolo_federation_model::{
    ClusterId, Health, Host, Identity, Labels, Locality, Namespace, NetworkGateway, NetworkId, ObjectRef, Protocol,
    Resolution, Scope, Service, ServiceKey, ServicePort, SiteName, Subsets, TargetPort, TlsMode, TrustDomain,
    Visibility, Workload, WorkloadAddress,
};
use tombolo_federation_registry::{
    Event, ExportPolicy, Item, Lease, MergedService, Millis, Registry, RegistrySettings, ShardId, ShardSettings,
};
use tombolo_federation_sync::Snapshot;

pub(crate) const LEASE: Lease = Lease { stale_after: 15_000, expire_after: 600_000 };

pub(crate) fn identity(site: &str) -> Identity {
    Identity::parse(&format!("spiffe://{site}.local/ns/tombolo/sa/controlplane")).unwrap()
}

pub(crate) fn domain(site: &str) -> TrustDomain {
    TrustDomain::parse(&format!("{site}.local")).unwrap()
}

pub(crate) fn network(site: &str) -> NetworkId {
    NetworkId::parse(&format!("net-{site}")).unwrap()
}

pub(crate) fn cluster(site: &str) -> ClusterId {
    ClusterId::parse(site).unwrap()
}

pub(crate) fn name(site: &str) -> SiteName {
    SiteName::parse(site).unwrap()
}

/// Settings for a peer whose cluster, network and trust domain are named after it.
pub(crate) fn peer(site: &str, dial: Option<SocketAddr>) -> Settings {
    let remit = Remit {
        clusters: [cluster(site)].into(),
        networks: [network(site)].into(),
        trust_domains: [domain(site)].into(),
    };
    let dial = dial.map(|address| address.to_string());
    Settings { name: name(site), dial, identity: identity(site), remit, lease: LEASE }
}

/// The services of a cluster, each with one workload, as its own registry exports them.
pub(crate) fn services(site: &str, names: &[&str]) -> Vec<Arc<MergedService>> {
    let mut registry = Registry::new(RegistrySettings { export: ExportPolicy::All, cluster_local: Vec::new() });
    let shard = ShardId::own(cluster(site), "k8s");
    let settings = ShardSettings {
        network: network(site),
        locality: Locality::parse("eu/eu-1/rack"),
        trust_domain: domain(site),
        lease: None,
        own: true,
    };
    registry.declare(shard.clone(), settings, Millis(0));
    registry.apply(Event::Begin { shard: shard.clone(), epoch: 1 }, Millis(0));
    for item in names.iter().flat_map(|name| [Item::Service(service(site, name)), Item::Workload(workload(site, name))])
    {
        registry.apply(Event::Put { shard: shard.clone(), epoch: 1, item }, Millis(0));
    }
    registry.apply(Event::Complete { shard, epoch: 1 }, Millis(0));
    registry.take_changes();
    registry.exported().cloned().collect()
}

fn service(site: &str, name: &str) -> Service {
    Service {
        host: host(name),
        namespace: Namespace::parse("default").unwrap(),
        name: name.to_owned(),
        ports: vec![ServicePort {
            number: 80,
            name: "http".to_owned(),
            protocol: Protocol::Http,
            target: TargetPort::Number(8080),
        }],
        labels: Labels::new(),
        addresses: vec!["10.96.0.1".parse().unwrap()],
        selector: Some(Labels::from([("app".to_owned(), name.to_owned())])),
        resolution: Resolution::Registry,
        scope: Scope::Mesh,
        headless: false,
        visibility: Visibility::All,
        subject_alt_names: Vec::new(),
        created: 100,
        origin: ObjectRef::new("Service", "default", name, site),
        alias_of: None,
        crossing: false,
    }
}

fn workload(site: &str, name: &str) -> Workload {
    let labels = [("app", name), ("version", "v1"), ("site", site)];
    Workload {
        name: format!("{name}-1"),
        namespace: Namespace::parse("default").unwrap(),
        addresses: vec![WorkloadAddress::Ip([10, 0, 0, 1].into())],
        ports: BTreeMap::new(),
        served_ports: BTreeMap::from([(8080, 18_080)]),
        labels: Arc::new(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        service_account: name.to_owned(),
        network: None,
        locality: None,
        health: Health::Unhealthy,
        tls: TlsMode::Mutual,
        weight: 7,
        origin: ObjectRef::new("Pod", "default", name, site),
    }
}

fn host(name: &str) -> Host {
    Host::parse(&format!("{name}.default.svc.cluster.local")).unwrap()
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: Namespace::parse("default").unwrap(), host: host(name) }
}

/// Roots of the named sites.
pub(crate) fn trust(entries: &[(&str, &Authority)]) -> Arc<TrustMap> {
    Arc::new(entries.iter().map(|(site, authority)| (domain(site), authority.roots())).collect())
}

pub(crate) struct Site {
    pub(crate) peers: Option<Peers>,
    pub(crate) registry: Registry,
    pub(crate) bundles: Vec<(TrustDomain, u64)>,
    pub(crate) statuses: Vec<String>,
    /// Every set of subsets that was told, in order.
    pub(crate) subsets: Vec<Subsets>,
    pub(crate) exports: watch::Sender<Arc<Snapshot>>,
    pub(crate) trust: watch::Sender<Arc<TrustMap>>,
    pub(crate) address: SocketAddr,
    events: mpsc::Receiver<PeerEvent>,
    _credentials: watch::Sender<Arc<Credentials>>,
}

/// What a site is started with.
pub(crate) struct Start<'a> {
    pub(crate) site: &'a str,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) peers: Vec<Settings>,
    pub(crate) credentials: Credentials,
    pub(crate) trust: Arc<TrustMap>,
    pub(crate) services: Vec<Arc<MergedService>>,
    pub(crate) lease_ms: u32,
}

impl Site {
    pub(crate) async fn start(with: Start<'_>) -> Self {
        let (exports, shown) = watch::channel(Arc::new(Snapshot::default()));
        let (credentials, own) = watch::channel(Arc::new(with.credentials));
        let (trust, trusted) = watch::channel(with.trust);
        // Room for what the site that a test does not look at hears meanwhile: one that is full reads no answers either.
        let (out, events) = mpsc::channel(64);
        let local = LocalSite {
            site: name(with.site),
            trust_domain: domain(with.site),
            clusters: [cluster(with.site)].into(),
            networks: [network(with.site)].into(),
            epoch: 1,
            lease_ms: with.lease_ms,
            exports: shown,
            credentials: own,
            trust: Trust::new(trusted),
        };
        // A site that ends and comes back must find its place as it left it.
        let listener = TcpListener::bind(with.listen.unwrap_or_else(tombolo_tests_kit::free)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let peers = Some(start(local, with.peers, Some(listener), out));
        let site = Self {
            peers,
            registry: Registry::new(RegistrySettings::default()),
            bundles: Vec::new(),
            statuses: Vec::new(),
            subsets: Vec::new(),
            exports,
            trust,
            address,
            events,
            _credentials: credentials,
        };
        site.publish(with.site, with.services);
        site
    }

    pub(crate) fn publish(&self, site: &str, services: Vec<Arc<MergedService>>) {
        self.publish_all(site, services, Subsets::new());
    }

    pub(crate) fn publish_all(&self, site: &str, services: Vec<Arc<MergedService>>, subsets: Subsets) {
        let gateway = NetworkGateway {
            network: network(site),
            cluster: cluster(site),
            address: "127.9.0.3".to_owned(),
            port: 15443,
        };
        let bundle = Bundle { trust_domain: domain(site), roots: vec![vec![1, 2, 3]], sequence: 4 };
        let exports = Exports {
            services,
            gateways: vec![gateway],
            bundles: vec![bundle],
            subsets,
            status: Some((name(site), b"{}".to_vec())),
        };
        self.exports.send_modify(|snapshot| *snapshot = Arc::new(export_snapshot(snapshot, &exports)));
    }

    fn take(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Declare { shard, settings } => self.registry.declare(shard, settings, Millis(0)),
            PeerEvent::Registry(event) => self.registry.apply(event, Millis(0)),
            PeerEvent::Bundle { trust_domain, sequence, .. } => self.bundles.push((trust_domain, sequence)),
            PeerEvent::Subsets { subsets, .. } => self.subsets.push(subsets),
            PeerEvent::Status { site, .. } => self.statuses.push(site.to_string()),
        }
        self.registry.take_changes();
    }

    pub(crate) fn state(&self, peer: &str) -> PeerState {
        let states = self.peers.as_ref().unwrap().states();
        states.into_iter().find(|state| state.name == peer).unwrap()
    }

    /// Takes in events until the condition holds.
    pub(crate) async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !holds(self) {
            // States have no event of their own: they are looked at every now and then.
            let event = tokio::time::timeout(Duration::from_millis(20), self.events.recv()).await;
            if let Ok(Some(event)) = event {
                self.take(event);
            }
            let states = self.peers.as_ref().map(Peers::states);
            assert!(tokio::time::Instant::now() < deadline, "never: {what}; {states:?}");
        }
    }

    pub(crate) fn endpoints(&self, name: &str) -> usize {
        self.registry.service(&key(name)).map_or(0, |service| service.endpoints.len())
    }

    pub(crate) async fn shutdown(&mut self) {
        if let Some(peers) = self.peers.take() {
            peers.shutdown().await;
        }
    }
}
