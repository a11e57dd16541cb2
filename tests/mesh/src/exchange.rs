//! What one site hears from another: the delta protocol over a link, and what of it reaches the listener's registry.
//!
//! Owns the order of a peer session (listing, then differences, never forgetting on a lost stream) in the form that the peer
//! crate gives it around its sockets; conversion and remit are that crate's own. Never merges anything.

use crate::link::{Link, Weather};
use prost::Message;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_controlplane_api::peer as wire;
use tombolo_controlplane_core::{Exports, Input};
use tombolo_federation_model::{ClusterId, Host, Labels, Locality, NetworkId, SiteName, Subsets, TrustDomain};
use tombolo_federation_peer::{
    Bundle, Exports as Shown, Holding, Remit, export_snapshot, gateway_from_wire, service_items, subset_from_wire,
    types,
};
use tombolo_federation_registry::{Event, Item, ItemKey, Lease, ShardId, ShardSettings};
use tombolo_federation_sync::{DeltaRequest, DeltaResponse, Plan, Publisher, Resource, Snapshot, Subscriber};

const EPOCH: u64 = 1;
/// About how many bytes one response holds: small, so that listings take several.
const BATCH_BYTES: usize = 2048;

/// What is on the link.
#[derive(Debug, Clone)]
enum Frame {
    Request(DeltaRequest),
    Response(DeltaResponse),
}

/// What is heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) inputs: Vec<Input>,
    pub(crate) bundles: Vec<(TrustDomain, Vec<Vec<u8>>)>,
}

/// One direction between two sites.
#[derive(Debug)]
pub(crate) struct Exchange {
    shown: Snapshot,
    bundle: Bundle,
    publisher: Publisher,
    subscriber: Subscriber,
    link: Link<Frame>,
    peer: SiteName,
    shard: ShardId,
    settings: ShardSettings,
    remit: Remit,
    holding: Holding<ItemKey, ()>,
    subsets: BTreeMap<Arc<str>, (Host, String, Labels)>,
    subsets_due: bool,
    caught_up: BTreeSet<Arc<str>>,
    listed: bool,
    begun: bool,
}

fn plan() -> Plan {
    Plan::independent(&types::ALL, BATCH_BYTES)
}

impl Exchange {
    /// What somebody hears from the site `name`.
    pub(crate) fn new(name: &str, trust_domain: &TrustDomain, root: Vec<u8>, weather: Weather, seed: u64) -> Self {
        let cluster = ClusterId::parse(name).unwrap_or_else(|e| panic!("{e}"));
        let network = NetworkId::parse(name).unwrap_or_else(|e| panic!("{e}"));
        let site = SiteName::parse(name).unwrap_or_else(|e| panic!("{e}"));
        let mut subscriber = Subscriber::new(plan());
        types::ALL.iter().for_each(|url| subscriber.subscribe_all(url));
        Self {
            shown: Snapshot::default(),
            bundle: Bundle { trust_domain: trust_domain.clone(), roots: vec![root], sequence: 1 },
            publisher: Publisher::new(plan()),
            subscriber,
            link: Link::new(weather, seed),
            peer: site.clone(),
            shard: ShardId { cluster: cluster.clone(), source: format!("peer:{name}").into(), via: vec![site] },
            settings: ShardSettings {
                network: network.clone(),
                locality: Locality::default(),
                trust_domain: trust_domain.clone(),
                lease: Some(Lease::default()),
                own: false,
            },
            remit: Remit {
                clusters: [cluster].into(),
                networks: [network].into(),
                trust_domains: [trust_domain.clone()].into(),
            },
            holding: Holding::default(),
            subsets: BTreeMap::new(),
            subsets_due: true,
            caught_up: BTreeSet::new(),
            listed: false,
            begun: false,
        }
    }

    /// The speaker's exports are these now.
    pub(crate) fn show(&mut self, exports: &Exports) {
        let all = Shown {
            services: exports.services.clone(),
            gateways: exports.gateways.clone(),
            bundles: vec![self.bundle.clone()],
            subsets: exports.subsets.clone(),
            status: None,
        };
        self.shown = export_snapshot(&self.shown, &all);
    }

    pub(crate) fn cut(&mut self, now: u64) {
        self.link.cut(now);
    }

    pub(crate) fn heal(&mut self) {
        self.link.heal();
    }

    pub(crate) fn set_weather(&mut self, weather: Weather) {
        self.link.set_weather(weather);
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.link.next()
    }

    /// What the listener is told when the speaker is heard and has nothing new.
    pub(crate) fn alive(&self) -> Option<Input> {
        let current = self.link.is_open() && self.listed && self.caught_up.len() == types::ALL.len();
        current.then(|| Input::Registry(Event::Alive { shard: self.shard.clone() }))
    }

    /// Moves what can be moved now.
    pub(crate) fn pump(&mut self, now: u64) -> Heard {
        let mut heard = Heard::default();
        if !std::mem::replace(&mut self.begun, true) {
            let shard = self.shard.clone();
            heard.inputs.push(Input::Declare(shard.clone(), self.settings.clone()));
            heard.inputs.push(Input::Registry(Event::Begin { shard, epoch: EPOCH }));
        }
        if self.link.opens(now) {
            self.publisher = Publisher::new(plan());
            self.caught_up.clear();
            self.subscriber.disconnected();
            self.subscriber.connected();
        }
        while self.move_one(now, &mut heard) {}
        heard
    }

    fn move_one(&mut self, now: u64, heard: &mut Heard) -> bool {
        if !self.link.is_open() {
            return false;
        }
        if let Some(request) = self.subscriber.next_request() {
            self.link.send_up(now, Frame::Request(request));
            return true;
        }
        if let Some(Frame::Request(request)) = self.link.take_up(now) {
            self.publisher.on_request(&request);
            return true;
        }
        if let Some(response) = self.publisher.next(&self.shown) {
            self.link.send_down(now, Frame::Response(response));
            return true;
        }
        if let Some(Frame::Response(response)) = self.link.take_down(now) {
            self.take(response, heard);
            return true;
        }
        false
    }

    fn take(&mut self, response: DeltaResponse, heard: &mut Heard) {
        let update = self.subscriber.on_response(response);
        let mut refused = BTreeMap::new();
        for resource in &update.changed {
            if let Err(reason) = self.put(&update.type_url, resource, heard) {
                refused.insert(resource.name.to_string(), reason);
            }
        }
        for name in &update.removed {
            let gone = self.holding.remove(&update.type_url, name);
            self.forget(gone, heard);
            if *update.type_url == *types::SUBSET {
                self.subsets_due |= self.subsets.remove(name).is_some();
            }
        }
        assert!(refused.is_empty(), "a peer's resource is refused: {refused:?}");
        self.subscriber.answer(&update, &refused);
        if update.complete {
            self.caught_up.insert(update.type_url.clone());
            if *update.type_url == *types::SUBSET && std::mem::take(&mut self.subsets_due) {
                heard.inputs.push(self.tell_subsets());
            }
        }
        let all = [types::SERVICE, types::GATEWAY].iter().all(|url| self.caught_up.contains(*url));
        if all && !std::mem::replace(&mut self.listed, all) {
            heard.inputs.push(Input::Registry(Event::Complete { shard: self.shard.clone(), epoch: EPOCH }));
        }
    }

    fn tell_subsets(&self) -> Input {
        let mut subsets = Subsets::new();
        for (host, name, labels) in self.subsets.values() {
            subsets.entry(host.clone()).or_default().insert(name.clone(), labels.clone());
        }
        Input::RemoteSubsets { peer: self.peer.clone(), subsets }
    }

    fn put(&mut self, type_url: &Arc<str>, resource: &Resource, heard: &mut Heard) -> Result<(), String> {
        let body = resource.body.clone();
        let unreadable = |error: prost::DecodeError| error.to_string();
        let items = match &**type_url {
            types::SERVICE => {
                let share = wire::ExportedService::decode(body).map_err(unreadable)?;
                self.remit.admits_service(&share)?;
                service_items(&share)?
            }
            types::GATEWAY => {
                let message = wire::NetworkGateway::decode(body).map_err(unreadable)?;
                self.remit.admits_gateway(&message)?;
                vec![Item::Gateway(gateway_from_wire(&message)?)]
            }
            types::BUNDLE => {
                let message = wire::TrustBundle::decode(body).map_err(unreadable)?;
                self.remit.admits_bundle(&message)?;
                let domain = TrustDomain::parse(&message.trust_domain).map_err(|error| error.to_string())?;
                heard.bundles.push((domain, message.roots.iter().map(|root| root.to_vec()).collect()));
                return Ok(());
            }
            types::SUBSET => {
                let message = wire::Subset::decode(body).map_err(unreadable)?;
                self.subsets.insert(resource.name.clone(), subset_from_wire(&message)?);
                self.subsets_due = true;
                return Ok(());
            }
            other => return Err(format!("type {other} was not asked for")),
        };
        let keys: Vec<ItemKey> = items.iter().map(Item::key).collect();
        let put = |item| Input::Registry(Event::Put { shard: self.shard.clone(), epoch: EPOCH, item });
        heard.inputs.extend(items.into_iter().map(put));
        let gone = self.holding.put(type_url, &resource.name, keys, ());
        self.forget(gone, heard);
        Ok(())
    }

    fn forget(&self, gone: Vec<ItemKey>, heard: &mut Heard) {
        let remove = |key| Input::Registry(Event::Remove { shard: self.shard.clone(), epoch: EPOCH, key });
        heard.inputs.extend(gone.into_iter().map(remove));
    }
}
