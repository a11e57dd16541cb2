//! The engine: takes inputs, recomputes what they touch, and holds the newest snapshot of every proxy.
//!
//! One writer; synchronous; knows no clock. Used by the server's world thread and by offline tools.

mod classes;
mod intents;
mod outputs;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod kitchen;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod show;
#[cfg(test)]
mod subsets;
#[cfg(test)]
mod tests;

use crate::{
    input::Input,
    proxy::Proxy,
    settings::SiteSettings,
    stage::{ProxyId, World},
};
use intents::Intents;
use outputs::Outputs;
use std::{collections::BTreeSet, sync::Arc};
use tombolo_federation_model::{Diagnostic, NetworkGateway, ObjectRef, Subsets};
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
    /// Outputs that were computed, for metrics.
    pub computed: usize,
}

/// What peers may see: this site's share of exported services, the ways into its networks, and what it asks them for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exports {
    /// Exported services, with the endpoints of this site's clusters.
    pub services: Vec<Arc<MergedService>>,
    /// East-west gateways of this site.
    pub gateways: Vec<NetworkGateway>,
    /// Subsets by which clients of this site ask for services that have endpoints elsewhere.
    pub subsets: Subsets,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    registry: Registry,
    intents: Intents,
    world: World,
    outputs: Outputs,
    diagnostics: Vec<Diagnostic>,
    next_proxy: u64,
}

impl Engine {
    /// An engine that knows nothing yet.
    #[must_use]
    pub fn new(site: SiteSettings) -> Self {
        let settings = RegistrySettings { export: site.export, cluster_local: site.cluster_local.clone() };
        Self {
            registry: Registry::new(settings),
            intents: Intents::default(),
            world: World::new(site),
            outputs: Outputs::default(),
            diagnostics: Vec::new(),
            next_proxy: 0,
        }
    }

    /// Takes an input. Nothing is recomputed until [`Engine::step`].
    pub fn apply(&mut self, input: Input, now: Millis) {
        match input {
            Input::Declare(shard, settings) => self.registry.declare(shard, settings, now),
            Input::Registry(event) => {
                if let Event::Withdraw { shard } = &event {
                    let touched = self.intents.withdraw(shard);
                    self.refresh(touched);
                }
                self.registry.apply(event, now);
            }
            Input::Intent(event) => {
                let touched = self.intents.apply(event);
                self.refresh(touched);
            }
            Input::Bundles(bundles) => self.world.set_bundles(bundles),
            Input::RemoteSubsets { peer, subsets } => self.world.set_remote_subsets(peer, subsets),
        }
    }

    fn refresh(&mut self, objects: BTreeSet<ObjectRef>) {
        for object in objects {
            self.world.set_intent(&object, self.intents.meaning(&object));
        }
    }

    /// Adds a proxy. Every stream attaches its own.
    pub fn attach(&mut self, proxy: Proxy) -> ProxyId {
        let id = ProxyId(self.next_proxy);
        self.next_proxy += 1;
        self.world.set_proxy(id, Some(proxy));
        id
    }

    /// Forgets a proxy.
    pub fn detach(&mut self, id: ProxyId) {
        self.world.set_proxy(id, None);
    }

    /// Recomputes what the inputs since the last step touch.
    pub fn step(&mut self, now: Millis) -> Step {
        self.registry.tick(now);
        let changes = self.registry.take_changes();
        for key in changes.services.iter().chain(&changes.exports) {
            self.world.set_service(key, self.registry.service(key).map(|service| &**service));
        }
        if changes.gateways {
            self.world.set_network_gateways(self.registry.gateways().clone());
        }
        let subsets_changed = self.world.take_used_subsets_changed();
        let (changed, computed) = self.outputs.update(&mut self.world);
        let mut step = Step {
            changed,
            exports_changed: !changes.exports.is_empty() || changes.gateways || subsets_changed,
            computed,
            ..Step::default()
        };
        // The registry's complaints may change while what it makes of the definitions does not.
        let diagnostics = self.collect_diagnostics();
        step.diagnostics_changed = diagnostics != self.diagnostics;
        self.diagnostics = diagnostics;
        step
    }

    fn collect_diagnostics(&self) -> Vec<Diagnostic> {
        let all: BTreeSet<&Diagnostic> = self.registry.diagnostics().chain(self.outputs.complaints()).collect();
        all.into_iter().cloned().collect()
    }

    /// The newest snapshot of a proxy, as of the last step.
    #[must_use]
    pub fn snapshot(&self, id: ProxyId) -> Option<Arc<Snapshot>> {
        self.outputs.snapshot(id)
    }

    /// What peers may see.
    #[must_use]
    pub fn exports(&self) -> Exports {
        Exports {
            services: self.registry.exported().cloned().collect(),
            gateways: self.registry.own_gateways(),
            subsets: self.world.used_subsets().clone(),
        }
    }

    /// Every complaint as of the last step, in order.
    #[must_use]
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.diagnostics.clone()
    }

    /// The registry, for status.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}
