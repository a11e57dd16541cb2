//! A proxy: the gateway's subscription and configuration, fed by a publisher over a link.
//!
//! Owns the two halves of one stream and what the gateway keeps between streams. Takes responses in, assembles and adjusts
//! its subscription in the gateway's own order. Never routes: that is `walk`.

use crate::{
    link::{Link, Weather},
    tls,
    upstream::Upstreams,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_controlplane_api::node::SECRET_DEFAULT;
use tombolo_controlplane_core::{Proxy, ProxyId, Role};
use tombolo_federation_model::Identity;
use tombolo_federation_sync::{
    DeltaRequest, DeltaResponse, Plan, Publisher, Snapshot, SotwPublisher, SotwRequest, SotwResponse, SotwSubscriber,
    Subscriber, Update,
};
use tombolo_gateway_core::{
    assemble::{Assembly, INIT_TIMEOUT, Waiting},
    config::Config,
    time::Millis,
    wire::{self, Kind},
};

/// Which protocol a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

/// A resource that came over the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// It was removed.
    pub removed: bool,
}

#[derive(Debug)]
enum Frame {
    DeltaRequest(DeltaRequest),
    DeltaResponse(DeltaResponse),
    SotwRequest(SotwRequest),
    SotwResponse(SotwResponse),
}

#[derive(Debug)]
enum Reader {
    Delta(Subscriber),
    Sotw(SotwSubscriber),
}

#[derive(Debug)]
enum Writer {
    Delta(Publisher),
    Sotw(SotwPublisher),
}

/// A proxy.
#[derive(Debug)]
pub struct SimProxy {
    name: String,
    site: usize,
    seat: ProxyId,
    proxy: Proxy,
    speaks: Speaks,
    reader: Reader,
    writer: Writer,
    link: Link<Frame>,
    assembly: Assembly,
    config: Arc<Config>,
    refused: BTreeMap<(Kind, String), String>,
    received: Vec<Received>,
    pub(crate) upstreams: Upstreams,
}

impl Reader {
    fn new(speaks: Speaks) -> Self {
        match speaks {
            Speaks::Delta => Self::Delta(Subscriber::new(Plan::quiet())),
            Speaks::Sotw => Self::Sotw(SotwSubscriber::new(Plan::quiet())),
        }
    }

    fn subscribe_all(&mut self, type_url: &str) {
        match self {
            Self::Delta(reader) => reader.subscribe_all(type_url),
            Self::Sotw(reader) => reader.subscribe_all(type_url),
        }
    }

    fn subscribe_to(&mut self, type_url: &str, names: &BTreeSet<String>) {
        match self {
            Self::Delta(reader) => reader.subscribe_to(type_url, names),
            Self::Sotw(reader) => reader.subscribe_to(type_url, names),
        }
    }

    fn reconnected(&mut self) {
        match self {
            Self::Delta(reader) => {
                reader.disconnected();
                reader.connected();
            }
            Self::Sotw(reader) => {
                reader.disconnected();
                reader.connected();
            }
        }
    }

    fn next_request(&mut self) -> Option<Frame> {
        match self {
            Self::Delta(reader) => reader.next_request().map(Frame::DeltaRequest),
            Self::Sotw(reader) => reader.next_request().map(Frame::SotwRequest),
        }
    }

    fn on_response(&mut self, frame: Frame) -> Option<Update> {
        match (self, frame) {
            (Self::Delta(reader), Frame::DeltaResponse(response)) => Some(reader.on_response(response)),
            (Self::Sotw(reader), Frame::SotwResponse(response)) => Some(reader.on_response(response)),
            _ => None,
        }
    }

    fn answer(&mut self, update: &Update, refused: &BTreeMap<String, String>) {
        match self {
            Self::Delta(reader) => reader.answer(update, refused),
            Self::Sotw(reader) => reader.answer(update, refused),
        }
    }
}

impl Writer {
    fn new(speaks: Speaks) -> Self {
        match speaks {
            Speaks::Delta => Self::Delta(Publisher::new(Plan::quiet())),
            Speaks::Sotw => Self::Sotw(SotwPublisher::new(Plan::quiet())),
        }
    }

    fn on_request(&mut self, frame: &Frame) {
        match (self, frame) {
            (Self::Delta(writer), Frame::DeltaRequest(request)) => writer.on_request(request),
            (Self::Sotw(writer), Frame::SotwRequest(request)) => writer.on_request(request),
            _ => {}
        }
    }

    fn next(&mut self, snapshot: &Snapshot) -> Option<Frame> {
        match self {
            Self::Delta(writer) => writer.next(snapshot).map(Frame::DeltaResponse),
            Self::Sotw(writer) => writer.next(snapshot).map(Frame::SotwResponse),
        }
    }

    /// Everything that was asked for is there and acknowledged.
    fn synced(&self) -> bool {
        match self {
            Self::Delta(writer) => writer.states().all(|(_, state)| state.synced),
            Self::Sotw(writer) => writer.states().all(|(_, state)| state.synced),
        }
    }
}

/// What a proxy is made of.
pub(crate) struct Birth<'a> {
    pub(crate) name: String,
    pub(crate) site: usize,
    pub(crate) seat: ProxyId,
    pub(crate) proxy: &'a Proxy,
    pub(crate) identity: Identity,
    pub(crate) speaks: Speaks,
    pub(crate) weather: Weather,
    pub(crate) seed: u64,
}

impl SimProxy {
    pub(crate) fn new(birth: Birth<'_>) -> Self {
        let mut reader = Reader::new(birth.speaks);
        for kind in Kind::ALL.into_iter().filter(|kind| kind.wildcard()) {
            reader.subscribe_all(kind.type_url());
        }
        let mut assembly = Assembly::new(Some(INIT_TIMEOUT));
        assembly.put_own_secret(SECRET_DEFAULT.into(), Arc::new(tls::certificate(&birth.identity)));
        Self {
            name: birth.name,
            site: birth.site,
            seat: birth.seat,
            proxy: birth.proxy.clone(),
            speaks: birth.speaks,
            reader,
            writer: Writer::new(birth.speaks),
            link: Link::new(birth.weather, birth.seed),
            assembly,
            config: Arc::default(),
            refused: BTreeMap::new(),
            received: Vec::new(),
            upstreams: Upstreams::new(birth.seed),
        }
    }

    /// `SITE/POD`, `SITE/ingress` or `SITE/east-west`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its site's place in the mesh.
    #[must_use]
    pub fn site(&self) -> usize {
        self.site
    }

    /// Its seat at its site's engine.
    #[must_use]
    pub fn seat(&self) -> ProxyId {
        self.seat
    }

    /// Sidecar or gateway.
    #[must_use]
    pub fn role(&self) -> Role {
        self.proxy.role
    }

    /// How it introduced itself.
    #[must_use]
    pub fn introduction(&self) -> &Proxy {
        &self.proxy
    }

    /// What it works by.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// What it refused, with reasons: what was refused last of each resource.
    #[must_use]
    pub fn refused(&self) -> &BTreeMap<(Kind, String), String> {
        &self.refused
    }

    /// What waits, and for what.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        self.assembly.waiting()
    }

    /// Shows another certificate from now on; whose it is and who vouches for it is up to the test.
    pub fn present(&mut self, identity: &Identity) {
        self.assembly.put_own_secret(SECRET_DEFAULT.into(), Arc::new(tls::certificate(identity)));
    }

    /// How often its stream broke.
    #[must_use]
    pub fn breaks(&self) -> u64 {
        self.link.breaks()
    }

    /// What came over the wire since this was last asked.
    pub fn take_received(&mut self) -> Vec<Received> {
        std::mem::take(&mut self.received)
    }

    pub(crate) fn synced(&self) -> bool {
        self.link.is_open() && self.writer.synced()
    }

    pub(crate) fn set_weather(&mut self, weather: Weather) {
        self.link.set_weather(weather);
    }

    pub(crate) fn disconnect(&mut self, now: u64) {
        self.link.disconnect(now);
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.link.next()
    }

    /// Moves what can be moved now.
    pub(crate) fn pump(&mut self, now: u64, snapshot: &Snapshot) {
        if self.link.opens(now) {
            self.writer = Writer::new(self.speaks);
            self.reader.reconnected();
        }
        self.advance(now);
        while self.move_one(now, snapshot) {}
    }

    fn move_one(&mut self, now: u64, snapshot: &Snapshot) -> bool {
        if !self.link.is_open() {
            return false;
        }
        if let Some(request) = self.reader.next_request() {
            self.link.send_up(now, request);
            return true;
        }
        if let Some(request) = self.link.take_up(now) {
            self.writer.on_request(&request);
            return true;
        }
        if let Some(response) = self.writer.next(snapshot) {
            self.link.send_down(now, response);
            return true;
        }
        if let Some(response) = self.link.take_down(now) {
            self.take(response);
            self.advance(now);
            return true;
        }
        false
    }

    fn take(&mut self, response: Frame) {
        self.note(&response);
        let Some(update) = self.reader.on_response(response) else { return };
        let refused = self.apply(&update);
        self.reader.answer(&update, &refused);
    }

    fn note(&mut self, response: &Frame) {
        let (type_url, resources, removed) = match response {
            Frame::DeltaResponse(response) => (&response.type_url, &response.resources, &response.removed[..]),
            Frame::SotwResponse(response) => (&response.type_url, &response.resources, &[][..]),
            Frame::DeltaRequest(_) | Frame::SotwRequest(_) => return,
        };
        let Some(kind) = Kind::parse(type_url) else { panic!("nobody asked for {type_url}") };
        let sent = resources.iter().map(|r| (r.name.to_string(), false));
        let gone = removed.iter().map(|name| (name.to_string(), true));
        self.received.extend(sent.chain(gone).map(|(name, removed)| Received { kind, name, removed }));
    }

    /// Takes in what can be used; returns what cannot, with reasons.
    fn apply(&mut self, update: &Update) -> BTreeMap<String, String> {
        let mut refused = BTreeMap::new();
        let Some(kind) = Kind::parse(&update.type_url) else { return refused };
        for resource in &update.changed {
            let name = resource.name.to_string();
            match wire::decode(kind, &resource.name, &resource.body) {
                Ok(decoded) => {
                    self.refused.remove(&(kind, name));
                    self.assembly.put(decoded);
                }
                Err(refusal) => {
                    self.refused.insert((kind, name.clone()), refusal.to_string());
                    refused.insert(name, refusal.to_string());
                }
            }
        }
        for name in &update.removed {
            self.assembly.remove(kind, name);
        }
        self.assembly.complete(kind);
        refused
    }

    /// Moves what is ready into use and adjusts the subscription.
    fn advance(&mut self, now: u64) {
        if let Some(config) = self.assembly.step(Millis(now)) {
            self.config = config;
        }
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.wildcard()) {
            if self.assembly.take_wanted(kind).is_some() {
                self.reader.subscribe_to(kind.type_url(), &self.assembly.wanted(kind));
            }
        }
    }
}
