//! Which class each proxy belongs to. Owns the numbers of classes; they reach no output.

use crate::{
    bind::Audience,
    stage::{AudienceId, ProxyId, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The classes in use.
#[derive(Debug, Default)]
pub(super) struct Classes {
    ids: BTreeMap<Arc<Audience>, AudienceId>,
    next: u32,
}

/// Classes that came and went.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    pub(super) came: Vec<AudienceId>,
    pub(super) went: Vec<AudienceId>,
}

impl Classes {
    /// Takes over where proxies belong now.
    pub(super) fn assign(&mut self, world: &mut World, results: Vec<(ProxyId, Option<Option<Audience>>)>) -> Turnover {
        let mut turnover = Turnover::default();
        if results.is_empty() {
            return turnover;
        }
        for (proxy, audience) in results {
            let id = audience.flatten().map(|audience| self.id(world, audience, &mut turnover));
            world.audience_of.set(proxy, id);
        }
        let used: BTreeSet<AudienceId> = world.audience_of.rows().values().copied().collect();
        let unused: Vec<AudienceId> = self.ids.values().filter(|id| !used.contains(id)).copied().collect();
        self.ids.retain(|_, id| used.contains(id));
        for id in &unused {
            world.audiences.set(*id, None);
        }
        turnover.went = unused;
        turnover
    }

    fn id(&mut self, world: &mut World, audience: Audience, turnover: &mut Turnover) -> AudienceId {
        if let Some(id) = self.ids.get(&audience) {
            return *id;
        }
        let id = AudienceId(self.next);
        self.next += 1;
        let audience = Arc::new(audience);
        self.ids.insert(audience.clone(), id);
        world.audiences.set(id, Some(audience));
        turnover.came.push(id);
        id
    }
}
