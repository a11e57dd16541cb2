//! The control plane of one side: what a scenario puts into it, and what was said about a scenario.

use crate::resource::Encoded;
use std::{net::SocketAddr, sync::Arc};
use tombolo_federation_sync::{Plan, Resource, ResourceSet, Snapshot, resource_set};
use tombolo_tests_kit::ads::Settings;
pub use tombolo_tests_kit::ads::{Ads, Probe};

/// A control plane that speaks as Envoy wants it, at an address of the side.
pub async fn start(side: SocketAddr) -> Ads {
    Ads::start_at(side, Settings { plan: Plan::envoy(), ..Settings::default() }).await
}

fn set_of(resources: Vec<(String, Vec<u8>)>) -> ResourceSet {
    resource_set(resources.into_iter().map(|(name, body)| Arc::new(Resource::new(name, body))))
}

/// Shows these resources, and no others of their types.
pub fn show(ads: &Ads, types: Encoded) {
    let with = |snapshot: Snapshot, (kind, resources): (String, _)| snapshot.with(kind, set_of(resources));
    ads.change(|snapshot| types.into_iter().fold(snapshot, with));
}

/// Shows these resources beside those that are there.
pub fn put(ads: &Ads, types: Encoded) {
    let beside = |snapshot: Snapshot, (kind, resources): (String, _)| {
        let mut set = snapshot.set(&kind).map(|set| (**set).clone()).unwrap_or_default();
        set.extend(set_of(resources));
        snapshot.with(kind, set)
    };
    ads.change(|snapshot| types.into_iter().fold(snapshot, beside));
}

/// What was heard since about resources of a scenario: what was asked for and answered, in order, and what was left.
#[must_use]
pub fn heard(ads: &Ads, since: usize, scenario: &str) -> (Vec<String>, Vec<String>) {
    let of = |name: &str| {
        let name = name.trim_start_matches('-');
        name == scenario || name.strip_prefix(scenario).is_some_and(|rest| rest.starts_with('-'))
    };
    let mine = ads.heard(since).into_iter().filter(|(_, name)| of(name));
    mine.map(|(what, name)| format!("{what} {name}")).partition(|line| !line.contains(" leave "))
}
