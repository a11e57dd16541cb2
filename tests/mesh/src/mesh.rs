//! Several sites that tell each other what they export, with a proxy beside every pod.
//!
//! Owns the clock, the seed, and the order in which everything moves. Never decides what anybody is told.

use crate::{
    exchange::Exchange,
    link::Weather,
    proxy::{Birth, SimProxy, Speaks},
    site::{Site, SiteSpec},
    tls::{self, Hello},
};
use std::{collections::BTreeMap, net::SocketAddr};
use tombolo_controlplane_core::{Input, Proxy, Role};
use tombolo_federation_model::Identity;
use tombolo_federation_registry::Millis;
use tombolo_gateway_core::time::Random;

/// The clock at start: not zero, so that "never" and "now" differ.
const BEGINNING: u64 = 1_000_000;
/// More rounds than this mean that something talks for ever.
const ROUNDS: u32 = 200_000;

/// Where a request begins.
#[derive(Debug, Clone)]
pub enum From<'a> {
    /// The application of `SITE/POD`, through its sidecar.
    Pod(&'a str),
    /// A client of a site's ingress gateway; the port is that of the URL.
    Ingress(&'a str),
    /// A client in a site (or outside of all, when empty) that dials an address itself, in TLS or not.
    Address {
        /// The site.
        site: &'a str,
        /// Where to.
        to: SocketAddr,
        /// `None`: plaintext.
        hello: Option<Hello>,
    },
}

/// How a mesh is made.
#[derive(Debug, Clone)]
pub struct MeshBuilder {
    sites: Vec<SiteSpec>,
    seed: u64,
    speaks: Speaks,
    weather: Weather,
    peer_weather: Weather,
}

impl MeshBuilder {
    /// Everything random grows from this.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What proxies speak.
    #[must_use]
    pub fn speaks(mut self, speaks: Speaks) -> Self {
        self.speaks = speaks;
        self
    }

    /// How the links of proxies and of peers behave.
    #[must_use]
    pub fn weather(mut self, proxies: Weather, peers: Weather) -> Self {
        (self.weather, self.peer_weather) = (proxies, peers);
        self
    }

    /// The mesh, at rest.
    #[must_use]
    pub fn build(self) -> Mesh {
        let now = Millis(BEGINNING);
        let sites: Vec<Site> = (0..).zip(&self.sites).map(|(number, spec)| Site::new(spec, number, now)).collect();
        let mut exchanges = Vec::new();
        for (listener, hearing) in sites.iter().enumerate() {
            for (speaker, speaking) in sites.iter().enumerate().filter(|(speaker, _)| *speaker != listener) {
                let seed = self.seed ^ hash(&format!("{} hears {}", hearing.name(), speaking.name()));
                let domain = speaking.trust_domain();
                let exchange = Exchange::new(speaking.name(), domain, tls::root(domain), self.peer_weather, seed);
                exchanges.push(Pair { speaker, listener, exchange });
            }
        }
        let mut mesh = Mesh {
            random: Random::new(self.seed),
            settings: self,
            sites,
            proxies: BTreeMap::new(),
            exchanges,
            now: BEGINNING,
        };
        mesh.settle();
        mesh
    }
}

#[derive(Debug)]
struct Pair {
    speaker: usize,
    listener: usize,
    exchange: Exchange,
}

/// A mesh.
#[derive(Debug)]
pub struct Mesh {
    pub(crate) random: Random,
    settings: MeshBuilder,
    pub(crate) sites: Vec<Site>,
    /// By name.
    pub(crate) proxies: BTreeMap<String, SimProxy>,
    exchanges: Vec<Pair>,
    pub(crate) now: u64,
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Mesh {
    /// A mesh of these sites, on links that neither delay nor break.
    #[must_use]
    pub fn of(sites: impl IntoIterator<Item = SiteSpec>) -> MeshBuilder {
        MeshBuilder {
            sites: sites.into_iter().collect(),
            seed: 1,
            speaks: Speaks::Delta,
            weather: Weather::default(),
            peer_weather: Weather::default(),
        }
    }

    pub(crate) fn place(&self, site: &str) -> usize {
        self.sites.iter().position(|s| s.name() == site).unwrap_or_else(|| panic!("no site {site}"))
    }

    /// A site by name.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn site(&self, name: &str) -> &Site {
        &self.sites[self.place(name)]
    }

    /// A site by name, to change something; call [`settle`](Self::settle) afterwards.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn site_mut(&mut self, name: &str) -> &mut Site {
        let place = self.place(name);
        &mut self.sites[place]
    }

    /// All sites.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// A proxy: `SITE/POD`, `SITE/ingress` or `SITE/east-west`.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn proxy(&self, name: &str) -> &SimProxy {
        self.proxies.get(name).unwrap_or_else(|| panic!("no proxy {name}: {:?}", self.proxies.keys()))
    }

    /// A proxy, to ask what it received.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn proxy_mut(&mut self, name: &str) -> &mut SimProxy {
        self.proxies.get_mut(name).unwrap_or_else(|| panic!("no proxy {name}"))
    }

    /// All proxies, by name.
    pub fn proxies(&self) -> impl Iterator<Item = &SimProxy> {
        self.proxies.values()
    }

    /// All proxies, by name.
    pub fn proxies_mut(&mut self) -> impl Iterator<Item = &mut SimProxy> {
        self.proxies.values_mut()
    }

    /// Milliseconds of the mesh's clock.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets everything happen that happens by itself, until nothing is under way.
    ///
    /// # Panics
    /// When it never comes to rest.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS {
            if !self.step() {
                return;
            }
        }
        panic!("the mesh does not come to rest");
    }

    /// Lets happen what happens now, and moves the clock to what happens next; false when nothing is under way.
    pub fn step(&mut self) -> bool {
        if self.round() {
            return true;
        }
        let links = self.proxies.values().map(SimProxy::next);
        let next = links.chain(self.exchanges.iter().map(|pair| pair.exchange.next())).flatten().min();
        if let Some(at) = next {
            self.now = self.now.max(at);
        }
        next.is_some()
    }

    /// Moves everything that can move now; true when an engine was told something.
    fn round(&mut self) -> bool {
        let now = Millis(self.now);
        let mut told = false;
        for (place, site) in self.sites.iter_mut().enumerate() {
            site.refresh(now);
            if site.engine_mut().step(now).exports_changed {
                let exports = site.exports();
                let heard_by = self.exchanges.iter_mut().filter(|pair| pair.speaker == place);
                heard_by.for_each(|pair| pair.exchange.show(&exports));
            }
        }
        told |= self.seat();
        for pair in &mut self.exchanges {
            let heard = pair.exchange.pump(self.now);
            let site = &mut self.sites[pair.listener];
            told |= !heard.inputs.is_empty() || !heard.bundles.is_empty();
            heard.inputs.into_iter().for_each(|input| site.engine_mut().apply(input, now));
            heard.bundles.into_iter().for_each(|(domain, roots)| site.believe(domain, roots));
        }
        if told {
            return true;
        }
        for proxy in self.proxies.values_mut() {
            if let Some(snapshot) = self.sites[proxy.site()].engine().snapshot(proxy.seat()) {
                proxy.pump(self.now, &snapshot);
            }
        }
        false
    }

    /// A seat for each proxy of a pod or a gateway, and none for those that are gone; true when any came or went.
    fn seat(&mut self) -> bool {
        let mut wanted: BTreeMap<String, (usize, Proxy)> = BTreeMap::new();
        for (place, site) in self.sites.iter().enumerate() {
            let name = site.name();
            for gateway in site.gateways() {
                wanted.insert(format!("{name}/{}", gateway.role), (place, gateway.proxy(name)));
            }
            for pod in site.pods().values().filter(|pod| pod.sidecar) {
                wanted.insert(format!("{name}/{}", pod.name), (place, pod.proxy(name)));
            }
        }
        // A pod whose labels or account are others than before is another pod of the same name.
        let stays = |known: &SimProxy| wanted.get(known.name()).is_some_and(|(_, proxy)| proxy == known.introduction());
        let gone: Vec<String> =
            self.proxies.values().filter(|proxy| !stays(proxy)).map(|proxy| proxy.name().to_owned()).collect();
        for name in &gone {
            if let Some(proxy) = self.proxies.remove(name) {
                self.sites[proxy.site()].engine_mut().detach(proxy.seat());
            }
        }
        wanted.retain(|name, _| !self.proxies.contains_key(name));
        let any = !gone.is_empty() || !wanted.is_empty();
        for (name, (place, proxy)) in wanted {
            let born = self.birth(&name, place, &proxy);
            self.proxies.insert(name, born);
        }
        any
    }

    fn birth(&mut self, name: &str, place: usize, proxy: &Proxy) -> SimProxy {
        let site = &mut self.sites[place];
        let identity = Identity::workload(site.trust_domain(), proxy.namespace.as_str(), &proxy.service_account);
        SimProxy::new(Birth {
            name: name.to_owned(),
            site: place,
            seat: site.engine_mut().attach(proxy.clone()),
            proxy,
            identity: identity.unwrap_or_else(|error| panic!("{error}")),
            speaks: self.settings.speaks,
            weather: self.settings.weather,
            seed: self.settings.seed ^ hash(name),
        })
    }

    /// Lets time pass; peers whose stream is open are heard meanwhile.
    pub fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.now = (self.now + 1000).min(end);
            for pair in &mut self.exchanges {
                if let Some(alive) = pair.exchange.alive() {
                    self.sites[pair.listener].engine_mut().apply(alive, Millis(self.now));
                }
            }
            self.settle();
        }
    }

    /// Cuts what a site hears from another, until [`heal`](Self::heal).
    pub fn cut(&mut self, listener: &str, speaker: &str) {
        let now = self.now;
        self.pair(listener, speaker).cut(now);
    }

    /// Ends a [`cut`](Self::cut).
    pub fn heal(&mut self, listener: &str, speaker: &str) {
        self.pair(listener, speaker).heal();
    }

    fn pair(&mut self, listener: &str, speaker: &str) -> &mut Exchange {
        let (listener, speaker) = (self.place(listener), self.place(speaker));
        let found = self.exchanges.iter_mut().find(|pair| (pair.listener, pair.speaker) == (listener, speaker));
        found.map(|pair| &mut pair.exchange).unwrap_or_else(|| panic!("a site does not hear itself"))
    }

    /// Changes how all links behave from now on.
    pub fn set_weather(&mut self, proxies: Weather, peers: Weather) {
        (self.settings.weather, self.settings.peer_weather) = (proxies, peers);
        self.proxies.values_mut().for_each(|proxy| proxy.set_weather(proxies));
        self.exchanges.iter_mut().for_each(|pair| pair.exchange.set_weather(peers));
    }

    /// Breaks every proxy's stream once.
    pub fn reconnect_proxies(&mut self) {
        let now = self.now;
        self.proxies.values_mut().for_each(|proxy| proxy.disconnect(now));
    }

    /// Tells a site's engine something that no source of these tests says.
    pub fn tell(&mut self, site: &str, input: Input) {
        let now = Millis(self.now);
        self.site_mut(site).engine_mut().apply(input, now);
    }

    /// Everything that must never be, at rest: refused resources, things that wait, streams that are not in step, manifests of
    /// the machinery that were not understood.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for proxy in self.proxies.values() {
            let name = proxy.name();
            faults.extend(proxy.refused().iter().map(|((kind, _), why)| format!("{name} refuses {kind:?} {why}")));
            let waiting = proxy.waiting();
            faults.extend(waiting.iter().map(|w| format!("{name}: {:?} {} waits for {}", w.kind, w.name, w.missing)));
            if !proxy.synced() {
                faults.push(format!("{name} is not in step"));
            }
        }
        for site in &self.sites {
            faults.extend(site.runtime_diagnostics().iter().map(|d| format!("{}: {d}", site.name())));
        }
        faults
    }

    /// Names of gateways and sidecars by role, to count them.
    #[must_use]
    pub fn count(&self, role: Role) -> usize {
        self.proxies.values().filter(|proxy| proxy.role() == role).count()
    }
}
