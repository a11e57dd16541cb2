//! What is read from one peer, over all its streams: from resources to events. Owns the subscription, so that a new stream
//! brings only differences, and the remit check. Never forgets on a lost connection.

use crate::{
    PeerEvent, PeerState, Settings,
    convert::{gateway_from_wire, service_items, subset_from_wire},
    holding::Holding,
    settings::types,
};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};
use tombolo_controlplane_api::peer as wire;
use tombolo_federation_model::{ClusterId, Host, Labels, NetworkId, SiteName, Subsets, TrustDomain};
use tombolo_federation_registry::{Event, Item, ItemKey, Lease, ShardId, ShardSettings};
use tombolo_federation_sync::{DeltaRequest, DeltaResponse, Plan, Resource, Subscriber, Update};

/// About how many bytes one response holds.
pub(crate) const BATCH_BYTES: usize = 1 << 20;
/// How many dropped messages are remembered by name.
const REMEMBERED: usize = 16;
/// How many subsets a peer may use. Each costs the gateways that serve it a chain and an upstream for every port.
const MOST_SUBSETS: usize = 10_000;
/// How long the message of a subset may be.
const LONGEST_SUBSET: usize = 4096;

#[derive(Debug)]
pub(crate) struct Intake {
    settings: Settings,
    /// Of the one listing that later streams only amend.
    epoch: u64,
    lease: Lease,
    subscriber: Subscriber,
    shards: BTreeMap<ClusterId, ShardId>,
    /// What resources put into the registry, with the number of their endpoints.
    holding: Holding<(ShardId, ItemKey), u64>,
    sequences: BTreeMap<TrustDomain, u64>,
    subsets: BTreeMap<Arc<str>, (Host, String, Labels)>,
    /// The subsets are not those that were told last. At first they are not: what an earlier process heard may be in use.
    subsets_due: bool,
    /// The first listing is complete.
    listed: bool,
    /// Types of which this stream has brought everything.
    caught_up: BTreeSet<Arc<str>>,
    told_alive: Option<Instant>,
    /// What the registry has not taken yet. Nothing more is read from the peer while something waits.
    pub(crate) events: VecDeque<PeerEvent>,
    pub(crate) state: PeerState,
}

impl Intake {
    /// Declares a shard for every cluster in the remit.
    pub(crate) fn new(settings: Settings, epoch: u64) -> Self {
        let mut subscriber = Subscriber::new(Plan::independent(&types::ALL, BATCH_BYTES));
        for type_url in types::ALL {
            subscriber.subscribe_all(type_url);
        }
        let source: Arc<str> = format!("peer:{}", settings.name).into();
        let shard = |cluster: &ClusterId| ShardId {
            cluster: cluster.clone(),
            source: source.clone(),
            via: vec![settings.name.clone()],
        };
        let shards: BTreeMap<_, _> =
            settings.remit.clusters.iter().map(|cluster| (cluster.clone(), shard(cluster))).collect();
        let state = PeerState::of(&settings);
        let mut intake = Self {
            epoch,
            lease: settings.lease,
            settings,
            subscriber,
            shards,
            holding: Holding::default(),
            sequences: BTreeMap::new(),
            subsets: BTreeMap::new(),
            subsets_due: true,
            listed: false,
            caught_up: BTreeSet::new(),
            told_alive: None,
            events: VecDeque::new(),
            state,
        };
        intake.declare();
        intake.for_each_shard(|shard| Event::Begin { shard, epoch });
        intake
    }

    fn for_each_shard(&mut self, event: impl Fn(ShardId) -> Event) {
        self.events.extend(self.shards.values().cloned().map(event).map(PeerEvent::Registry));
    }

    fn declare(&mut self) {
        // What an item does not say is that of the first network and of the peer's own trust domain.
        let unknown = NetworkId::parse(self.settings.name.as_str());
        let Some(network) = self.settings.remit.networks.first().cloned().or(unknown.ok()) else { return };
        for shard in self.shards.values() {
            let settings = ShardSettings {
                network: network.clone(),
                locality: tombolo_federation_model::Locality::default(),
                trust_domain: self.settings.identity.trust_domain().clone(),
                lease: Some(self.lease),
                own: false,
            };
            self.events.push_back(PeerEvent::Declare { shard: shard.clone(), settings });
        }
    }

    /// A new stream begins.
    pub(crate) fn connected(&mut self) {
        self.caught_up.clear();
        self.subscriber.connected();
        self.state.streams += 1;
    }

    /// The stream is gone. Nothing that was read is taken back.
    pub(crate) fn disconnected(&mut self) {
        self.caught_up.clear();
        self.subscriber.disconnected();
    }

    pub(crate) fn next_request(&mut self) -> Option<DeltaRequest> {
        self.subscriber.next_request()
    }

    /// The peer says who it is and how long its silence may be trusted.
    ///
    /// # Errors
    /// When it is not the one that it should be.
    pub(crate) fn on_hello(&mut self, hello: &wire::Hello) -> Result<(), String> {
        if hello.site != self.settings.name.as_str() {
            return Err(format!("the peer says that it is site {:?}, not {:?}", hello.site, self.settings.name));
        }
        if hello.trust_domain != self.settings.identity.trust_domain().as_str() {
            return Err(format!("the peer says that its trust domain is {:?}", hello.trust_domain));
        }
        let remit = &self.settings.remit;
        let clusters = hello.clusters.iter().filter(|name| !remit.clusters.contains(name.as_str()));
        let networks = hello.networks.iter().filter(|name| !remit.networks.contains(name.as_str()));
        let outside = clusters.map(|name| ("cluster", name)).chain(networks.map(|name| ("network", name)));
        let outside: Vec<_> =
            outside.map(|(what, name)| format!("hello: {what} {name:?} is outside the remit")).collect();
        for text in outside {
            self.note_dropped(text);
        }
        let lease = Lease { stale_after: lease_of(hello), ..self.settings.lease };
        if lease != self.lease {
            self.lease = lease;
            self.state.lease = lease;
            self.declare();
        }
        Ok(())
    }

    fn note_dropped(&mut self, what: String) {
        tracing::warn!(peer = %self.settings.name, "dropped: {what}");
        self.state.out_of_remit += 1;
        self.state.dropped.push(what);
        let excess = self.state.dropped.len().saturating_sub(REMEMBERED);
        self.state.dropped.drain(..excess);
    }

    /// The peer was heard. Its shards are up to date only when this stream has brought everything.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.state.heard = Some(now);
        let current = self.listed && self.caught_up.contains(types::SERVICE) && self.caught_up.contains(types::GATEWAY);
        let soon = self.told_alive.is_some_and(|told| now.duration_since(told).as_millis() < 200);
        if current && !soon {
            self.told_alive = Some(now);
            self.for_each_shard(|shard| Event::Alive { shard });
        }
    }

    /// Takes in a response and answers it.
    pub(crate) fn on_response(&mut self, response: DeltaResponse) {
        let update = self.subscriber.on_response(response);
        let mut refused = BTreeMap::new();
        self.state.received += update.changed.len() as u64;
        for resource in &update.changed {
            if let Err(reason) = self.take(&update.type_url, resource) {
                refused.insert(resource.name.to_string(), reason);
            }
        }
        for name in &update.removed {
            self.drop_entry(&update.type_url, name);
        }
        self.subscriber.answer(&update, &refused);
        self.note_complete(&update);
        self.count();
    }

    fn note_complete(&mut self, update: &Update) {
        if !update.complete {
            return;
        }
        self.caught_up.insert(update.type_url.clone());
        if &*update.type_url == types::SUBSET && std::mem::take(&mut self.subsets_due) {
            self.tell_subsets();
        }
        let all = [types::SERVICE, types::GATEWAY].iter().all(|url| self.caught_up.contains(*url));
        if all && !self.listed {
            self.listed = true;
            let epoch = self.epoch;
            self.for_each_shard(|shard| Event::Complete { shard, epoch });
        }
    }

    fn take(&mut self, type_url: &str, resource: &Resource) -> Result<(), String> {
        match type_url {
            types::SERVICE => self.take_service(resource),
            types::GATEWAY => self.take_gateway(resource),
            types::BUNDLE => self.take_bundle(resource),
            types::SUBSET => self.take_subset(resource),
            types::STATUS => self.take_status(resource),
            other => Err(format!("type {other:?} was not asked for")),
        }
    }

    /// Counts and names what the remit does not admit.
    fn admit(&mut self, name: &str, verdict: Result<(), String>) -> Result<(), String> {
        verdict.inspect_err(|reason| self.note_dropped(format!("{name}: {reason}")))
    }

    fn take_service(&mut self, resource: &Resource) -> Result<(), String> {
        let share = wire::ExportedService::decode(resource.body.clone()).map_err(|error| error.to_string())?;
        let verdict = self.settings.remit.admits_service(&share);
        self.admit(&resource.name, verdict)?;
        let items = service_items(&share)?;
        let cluster = ClusterId::parse(&share.cluster).map_err(|error| error.to_string())?;
        self.put(types::SERVICE, &resource.name, &cluster, items, share.endpoints.len() as u64)
    }

    fn take_gateway(&mut self, resource: &Resource) -> Result<(), String> {
        let message = wire::NetworkGateway::decode(resource.body.clone()).map_err(|error| error.to_string())?;
        let verdict = self.settings.remit.admits_gateway(&message);
        self.admit(&resource.name, verdict)?;
        let gateway = gateway_from_wire(&message)?;
        let cluster = gateway.cluster.clone();
        self.put(types::GATEWAY, &resource.name, &cluster, vec![Item::Gateway(gateway)], 0)
    }

    fn take_bundle(&mut self, resource: &Resource) -> Result<(), String> {
        let message = wire::TrustBundle::decode(resource.body.clone()).map_err(|error| error.to_string())?;
        let verdict = self.settings.remit.admits_bundle(&message);
        self.admit(&resource.name, verdict)?;
        let trust_domain = TrustDomain::parse(&message.trust_domain).map_err(|error| error.to_string())?;
        let newest = self.sequences.entry(trust_domain.clone()).or_insert(0);
        if message.sequence < *newest {
            return Err(format!("bundle {} is older than bundle {newest}, which is in use", message.sequence));
        }
        *newest = message.sequence;
        let roots = message.roots.iter().map(|root| root.to_vec()).collect();
        let peer = self.settings.name.clone();
        self.events.push_back(PeerEvent::Bundle { peer, trust_domain, roots, sequence: message.sequence });
        Ok(())
    }

    fn take_subset(&mut self, resource: &Resource) -> Result<(), String> {
        let read = self.read_subset(resource);
        let subset = read.inspect_err(|reason| self.note_dropped(format!("subset {}: {reason}", resource.name)))?;
        self.subsets.insert(resource.name.clone(), subset);
        self.subsets_due = true;
        Ok(())
    }

    fn read_subset(&self, resource: &Resource) -> Result<(Host, String, Labels), String> {
        if resource.body.len() > LONGEST_SUBSET {
            return Err(format!("it is longer than {LONGEST_SUBSET} bytes"));
        }
        if self.subsets.len() >= MOST_SUBSETS && !self.subsets.contains_key(&resource.name) {
            return Err(format!("there are {MOST_SUBSETS} already"));
        }
        let message = wire::Subset::decode(resource.body.clone()).map_err(|error| error.to_string())?;
        let (host, name, labels) = subset_from_wire(&message)?;
        if *resource.name != *format!("{host}/{name}") {
            return Err(format!("it says that it is subset {name:?} of {host}"));
        }
        Ok((host, name, labels))
    }

    fn tell_subsets(&mut self) {
        let mut subsets = Subsets::new();
        for (host, name, labels) in self.subsets.values() {
            subsets.entry(host.clone()).or_default().insert(name.clone(), labels.clone());
        }
        self.events.push_back(PeerEvent::Subsets { peer: self.settings.name.clone(), subsets });
    }

    fn take_status(&mut self, resource: &Resource) -> Result<(), String> {
        let message = wire::SiteStatus::decode(resource.body.clone()).map_err(|error| error.to_string())?;
        let site = SiteName::parse(&message.site).map_err(|error| error.to_string())?;
        if site != self.settings.name {
            let verdict = Err(format!("the status of site {site} is outside the remit"));
            return self.admit(&resource.name, verdict);
        }
        self.events.push_back(PeerEvent::Status { peer: self.settings.name.clone(), site, json: message.json });
        Ok(())
    }

    /// Replaces what a resource put into the registry.
    fn put(
        &mut self,
        type_url: &str,
        name: &Arc<str>,
        cluster: &ClusterId,
        items: Vec<Item>,
        endpoints: u64,
    ) -> Result<(), String> {
        let shard = self.shards.get(cluster).ok_or_else(|| format!("cluster {cluster} is outside the remit"))?.clone();
        let keys: Vec<_> = items.iter().map(|item| (shard.clone(), item.key())).collect();
        let epoch = self.epoch;
        let puts = items.into_iter().map(|item| Event::Put { shard: shard.clone(), epoch, item });
        self.events.extend(puts.map(PeerEvent::Registry));
        let gone = self.holding.put(type_url, name, keys, endpoints);
        self.take_back(gone);
        Ok(())
    }

    fn drop_entry(&mut self, type_url: &Arc<str>, name: &Arc<str>) {
        if &**type_url == types::SUBSET {
            self.subsets_due |= self.subsets.remove(name).is_some();
        }
        let gone = self.holding.remove(type_url, name);
        self.take_back(gone);
    }

    fn take_back(&mut self, gone: Vec<(ShardId, ItemKey)>) {
        let epoch = self.epoch;
        let removes = gone.into_iter().map(|(shard, key)| Event::Remove { shard, epoch, key });
        self.events.extend(removes.map(PeerEvent::Registry));
    }

    fn count(&mut self) {
        let count = |url: &str| self.holding.notes(url).count() as u64;
        self.state.endpoints = self.holding.notes(types::SERVICE).sum();
        (self.state.services, self.state.gateways) = (count(types::SERVICE), count(types::GATEWAY));
        self.state.trust_domains = self.sequences.keys().map(ToString::to_string).collect();
    }

    /// The peer was removed by configuration.
    pub(crate) fn withdraw(&mut self) {
        self.for_each_shard(|shard| Event::Withdraw { shard });
        self.subsets.clear();
        self.tell_subsets();
    }
}

/// How long the peer's silence may be trusted: what it promises, but neither so short that a pause looks like death nor so
/// long that death looks like a pause.
pub(crate) fn lease_of(hello: &wire::Hello) -> u64 {
    u64::from(hello.lease_ms).clamp(300, 60_000)
}
