//! What this site shows, as a snapshot of resources. Unchanged resources stay the same allocation from one snapshot to the
//! next, so that publishing again costs nothing. Used by the server whenever exports change.

use crate::{
    convert::{exported_services, gateway_to_wire, subsets_to_wire},
    settings::types,
};
use prost::Message;
use std::sync::Arc;
use tombolo_controlplane_api::peer as wire;
use tombolo_federation_model::{NetworkGateway, SiteName, Subsets, TrustDomain};
use tombolo_federation_registry::MergedService;
use tombolo_federation_sync::{Resource, ResourceSet, Snapshot, resource_set};

/// The roots of a trust domain that this site speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Whose roots.
    pub trust_domain: TrustDomain,
    /// DER certificates.
    pub roots: Vec<Vec<u8>>,
    /// Grows with every change, also over restarts.
    pub sequence: u64,
}

/// Everything that this site shows.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    /// `Registry::exported()`.
    pub services: Vec<Arc<MergedService>>,
    /// `Registry::own_gateways()`.
    pub gateways: Vec<NetworkGateway>,
    /// Own trust domains.
    pub bundles: Vec<Bundle>,
    /// Subsets by which this site asks for services that have endpoints elsewhere.
    pub subsets: Subsets,
    /// The site's own status as JSON.
    pub status: Option<(SiteName, Vec<u8>)>,
}

/// The snapshot that follows `previous`.
#[must_use]
pub fn export_snapshot(previous: &Snapshot, exports: &Exports) -> Snapshot {
    let service = |(name, message): (String, wire::ExportedService)| (name, message.encode_to_vec());
    let services = exports.services.iter().flat_map(|merged| exported_services(merged)).map(service);
    let gateways = exports.gateways.iter().map(gateway_to_wire).map(|(name, message)| (name, message.encode_to_vec()));
    let subsets = subsets_to_wire(&exports.subsets).map(|(name, message)| (name, message.encode_to_vec()));
    let bundles = exports.bundles.iter().map(|bundle| {
        let message = wire::TrustBundle {
            trust_domain: bundle.trust_domain.to_string(),
            roots: bundle.roots.iter().map(|root| root.clone().into()).collect(),
            sequence: bundle.sequence,
        };
        (bundle.trust_domain.to_string(), message.encode_to_vec())
    });
    let status = exports.status.iter().map(|(site, json)| {
        let message = wire::SiteStatus { site: site.to_string(), json: json.clone().into() };
        (site.to_string(), message.encode_to_vec())
    });
    let set = |type_url, named: &mut dyn Iterator<Item = (String, Vec<u8>)>| shared(previous, type_url, named);
    let next = Snapshot { revision: previous.revision + 1, types: previous.types.clone() };
    next.with(types::SERVICE, set(types::SERVICE, &mut services.into_iter()))
        .with(types::GATEWAY, set(types::GATEWAY, &mut gateways.into_iter()))
        .with(types::BUNDLE, set(types::BUNDLE, &mut bundles.into_iter()))
        .with(types::SUBSET, set(types::SUBSET, &mut subsets.into_iter()))
        .with(types::STATUS, set(types::STATUS, &mut status.into_iter()))
}

fn shared(previous: &Snapshot, type_url: &str, named: &mut dyn Iterator<Item = (String, Vec<u8>)>) -> ResourceSet {
    let resource = |(name, body): (String, Vec<u8>)| match previous.resource(type_url, &name) {
        Some(old) if old.body == body => old.clone(),
        _ => Arc::new(Resource::new(name, body)),
    };
    resource_set(named.map(resource))
}
