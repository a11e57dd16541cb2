//! Small worlds for the tests of this crate.

use crate::{Event, Item, Lease, MergedService, Millis, Registry, ShardId, ShardSettings};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{
    ClusterId, EndpointSlice, Export, Health, Host, Identity, Labels, Locality, Namespace, NetworkGateway, NetworkId,
    ObjectRef, Protocol, Resolution, Scope, Service, ServiceKey, ServicePort, SiteName, SliceEndpoint, TargetPort,
    TlsMode, TrustDomain, Visibility, Workload, WorkloadAddress,
};

pub(crate) const LEASE: Lease = Lease { stale_after: 15_000, expire_after: 600_000 };

pub(crate) fn cluster(name: &str) -> ClusterId {
    ClusterId::parse(name).unwrap()
}

pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

pub(crate) fn labels(text: &str) -> Labels {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

pub(crate) fn own(name: &str, source: &str) -> ShardId {
    ShardId::own(cluster(name), source)
}

pub(crate) fn peer(name: &str) -> ShardId {
    ShardId { cluster: cluster(name), source: "peer".into(), via: vec![SiteName::parse(name).unwrap()] }
}

pub(crate) fn settings(name: &str, own: bool) -> ShardSettings {
    ShardSettings {
        network: NetworkId::parse(&format!("net-{name}")).unwrap(),
        locality: Locality::parse(name),
        trust_domain: TrustDomain::parse(&format!("{name}.local")).unwrap(),
        lease: (!own).then_some(LEASE),
        own,
    }
}

pub(crate) fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: namespace("default"), host: host(name) }
}

pub(crate) fn host(name: &str) -> Host {
    Host::parse(&format!("{name}.default.svc.cluster.local")).unwrap()
}

/// A registered service whose port 80 is the workload's 8080, picked by `app=NAME`.
pub(crate) fn service(of: &str, name: &str) -> Service {
    Service {
        host: host(name),
        namespace: namespace("default"),
        name: name.to_owned(),
        ports: vec![port(80, "http", TargetPort::Number(8080))],
        labels: Labels::new(),
        addresses: Vec::new(),
        selector: Some(labels(&format!("app={name}"))),
        resolution: Resolution::Registry,
        scope: Scope::Mesh,
        headless: false,
        visibility: Visibility::All,
        subject_alt_names: Vec::new(),
        created: 100,
        origin: ObjectRef::new("Service", "default", name, of),
        alias_of: None,
        crossing: false,
    }
}

pub(crate) fn port(number: u16, name: &str, target: TargetPort) -> ServicePort {
    ServicePort { number, name: name.to_owned(), protocol: Protocol::Http, target }
}

pub(crate) fn workload(of: &str, name: &str, with: &str) -> Workload {
    let last = name.bytes().last().unwrap_or(1);
    Workload {
        name: name.to_owned(),
        namespace: namespace("default"),
        addresses: vec![WorkloadAddress::Ip([10, 0, 0, last].into())],
        ports: BTreeMap::new(),
        served_ports: BTreeMap::new(),
        labels: Arc::new(labels(with)),
        service_account: String::new(),
        network: None,
        locality: None,
        health: Health::Healthy,
        tls: TlsMode::Mutual,
        weight: 1,
        origin: ObjectRef::new("Pod", "default", name, of),
    }
}

pub(crate) fn written(name: &str, address: [u8; 4], port: u16) -> SliceEndpoint {
    SliceEndpoint {
        workload: Some(name.to_owned()).filter(|name| !name.is_empty()),
        address: WorkloadAddress::Ip(address.into()),
        ports: BTreeMap::from([("http".to_owned(), port)]),
        health: Health::Healthy,
        labels: Arc::default(),
        network: None,
        cluster: None,
        locality: None,
        identity: Some(Identity::parse("spiffe://west.local/ns/default/sa/a").unwrap()),
        weight: 1,
    }
}

pub(crate) fn slice(of: &str, endpoints: Vec<SliceEndpoint>) -> Item {
    Item::Slice(EndpointSlice { host: host(of), namespace: namespace("default"), name: of.to_owned(), endpoints })
}

pub(crate) fn export(of: &str, name: &str) -> Item {
    let origin = ObjectRef::new("ServiceExport", "default", name, of);
    Item::Export(Export { namespace: namespace("default"), name: name.to_owned(), created: 1, origin })
}

pub(crate) fn gateway(of: &str, address: &str) -> Item {
    let network = NetworkId::parse(&format!("net-{of}")).unwrap();
    Item::Gateway(NetworkGateway { network, cluster: cluster(of), address: address.to_owned(), port: 15443 })
}

/// Lists a shard whole.
pub(crate) fn list(registry: &mut Registry, shard: &ShardId, epoch: u64, items: Vec<Item>, now: u64) {
    let now = Millis(now);
    registry.apply(Event::Begin { shard: shard.clone(), epoch }, now);
    for item in items {
        registry.apply(Event::Put { shard: shard.clone(), epoch, item }, now);
    }
    registry.apply(Event::Complete { shard: shard.clone(), epoch }, now);
}

/// Endpoints as text: `cluster/workload:port`, with `~` when stale and `!` when unhealthy.
pub(crate) fn endpoints(service: &MergedService) -> String {
    let text = |endpoint: &Arc<tombolo_federation_model::Endpoint>| {
        let ports: Vec<_> = endpoint.ports.values().map(ToString::to_string).collect();
        let stale = if endpoint.stale { "~" } else { "" };
        let health = if endpoint.health == Health::Healthy { "" } else { "!" };
        format!("{}/{}:{}{stale}{health}", endpoint.cluster, endpoint.workload, ports.join("+"))
    };
    service.endpoints.iter().map(text).collect::<Vec<_>>().join(" ")
}

pub(crate) fn seen(registry: &mut Registry, name: &str) -> String {
    registry.take_changes();
    registry.service(&key(name)).map_or_else(|| "nothing".to_owned(), |service| endpoints(service))
}
