//! What a stream may see of its proxy's snapshot.
//!
//! Owns one rule: private keys go only to proxies that proved who they are. On the port without TLS nobody did, so the only
//! secret shown there is the trust bundles, which hold none. Used by every session.

use std::sync::Arc;
use tombolo_controlplane_api::node::SECRET_ROOTS;
use tombolo_federation_sync::{Snapshot, types};

/// See the module.
pub(super) enum Shown {
    /// To a proxy that showed a token: everything.
    Everything,
    /// To anybody: no keys. Remembers the last snapshot with what was made of it.
    WithoutKeys(Option<(Arc<Snapshot>, Arc<Snapshot>)>),
}

impl Shown {
    /// For a proxy that did, or did not, prove its identity.
    pub(super) fn to(proved: bool) -> Self {
        if proved { Self::Everything } else { Self::WithoutKeys(None) }
    }

    /// The part of the snapshot that may be seen.
    pub(super) fn of(&mut self, whole: Arc<Snapshot>) -> Arc<Snapshot> {
        let Self::WithoutKeys(last) = self else { return whole };
        if let Some((before, part)) = last
            && Arc::ptr_eq(before, &whole)
        {
            return part.clone();
        }
        let part = Arc::new(without_keys(&whole));
        *last = Some((whole, part.clone()));
        part
    }
}

fn without_keys(whole: &Snapshot) -> Snapshot {
    let mut part = whole.clone();
    if let Some(secrets) = part.types.get_mut(types::SECRET) {
        Arc::make_mut(secrets).retain(|name, _| **name == *SECRET_ROOTS);
    }
    part
}
