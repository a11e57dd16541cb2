//! The engine: takes inputs, recomputes what they touch, and holds the newest snapshot of every proxy.
//!
//! One writer; synchronous; knows no clock. Used by the server's world thread and by offline tools.

mod intents;

use crate::{input::Input, proxy::Proxy, settings::SiteSettings, stage::ProxyId};
use intents::Intents;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_federation_model::{Diagnostic, NetworkGateway};
use tombolo_federation_registry::{Event, MergedService, Millis, Registry, RegistrySettings};
use tombolo_federation_sync::Snapshot;

/// What one step changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Proxies whose snapshot is another one now.
    pub changed: BTreeSet<ProxyId>,
    /// What peers may see changed.
    pub exports_changed: bool,
    /// The list of complaints changed.
    pub diagnostics_changed: bool,
}

/// What peers may see: this site's share of exported services, and the ways into its networks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exports {
    /// Exported services; only endpoints of this site's clusters are this site's to show.
    pub services: Vec<Arc<MergedService>>,
    /// East-west gateways of this site.
    pub gateways: Vec<NetworkGateway>,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    site: SiteSettings,
    registry: Registry,
    intents: Intents,
    proxies: BTreeMap<ProxyId, Proxy>,
    next_proxy: u64,
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(site: SiteSettings) -> Self {
        let registry = Registry::new(RegistrySettings { export: site.export, cluster_local: site.cluster_local.clone() });
        Self { site, registry, intents: Intents::default(), proxies: BTreeMap::new(), next_proxy: 0 }
    }

    /// Takes an input. Nothing is recomputed until [`Engine::step`].
    pub fn apply(&mut self, input: Input, now: Millis) {
        match input {
            Input::Declare(shard, settings) => self.registry.declare(shard, settings, now),
            Input::Registry(event) => {
                if let Event::Withdraw { shard } = &event {
                    self.intents.withdraw(shard);
                }
                self.registry.apply(event, now);
            }
            Input::Intent(event) => drop(self.intents.apply(event)),
            Input::Bundles(_) => {}
        }
    }

    /// Adds a proxy. Every stream attaches its own.
    pub fn attach(&mut self, proxy: Proxy) -> ProxyId {
        let id = ProxyId(self.next_proxy);
        self.next_proxy += 1;
        self.proxies.insert(id, proxy);
        id
    }

    /// Forgets a proxy.
    pub fn detach(&mut self, id: ProxyId) {
        self.proxies.remove(&id);
    }

    /// Recomputes what the inputs since the last step touch.
    pub fn step(&mut self, now: Millis) -> Step {
        self.registry.tick(now);
        let changes = self.registry.take_changes();
        Step { exports_changed: !changes.is_empty(), ..Step::default() }
    }

    /// The newest snapshot of a proxy.
    #[must_use]
    pub fn snapshot(&self, _id: ProxyId) -> Option<Arc<Snapshot>> {
        None
    }

    /// What peers may see.
    #[must_use]
    pub fn exports(&self) -> Exports {
        Exports { services: self.registry.exported().cloned().collect(), gateways: self.registry.own_gateways() }
    }

    /// Every complaint, in order.
    #[must_use]
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.registry.diagnostics().cloned().collect()
    }

    /// The registry, for status.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The site's settings.
    #[must_use]
    pub fn site(&self) -> &SiteSettings {
        &self.site
    }
}
