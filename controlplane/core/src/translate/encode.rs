//! Encoding that depends on nothing but the content.
//!
//! The message types hold maps as hash maps, whose order differs from one instance to the next, so equal content would
//! get different versions. Maps with several entries are therefore written here, sorted, and appended to the rest of
//! their message: fields may come in any order on the wire.

use super::wire::{cluster, core, endpoint, protobuf, route};
use bytes::Bytes;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_sync::Resource;

/// Appends a field that holds bytes, text or a message.
pub(super) fn put(out: &mut Vec<u8>, tag: u32, body: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(body.len() as u64, out);
    out.extend_from_slice(body);
}

/// A resource of an encoded message.
pub(super) fn resource(name: &str, body: impl Into<Bytes>) -> Arc<Resource> {
    Arc::new(Resource::new(name, body))
}

/// Structured data with a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    Text(String),
    List(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    pub(super) fn text(value: impl Into<String>) -> Self {
        Self::Text(value.into())
    }

    pub(super) fn map<const N: usize>(entries: [(&str, Tree); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    }

    /// As `google.protobuf.Value`.
    fn value(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Text(text) => put(&mut out, 3, text.as_bytes()),
            Self::Map(entries) => put(&mut out, 5, &structure(entries)),
            Self::List(items) => {
                let mut list = Vec::new();
                items.iter().for_each(|item| put(&mut list, 1, &item.value()));
                put(&mut out, 6, &list);
            }
        }
        out
    }
}

/// As `google.protobuf.Struct`.
pub(super) fn structure(entries: &BTreeMap<String, Tree>) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|(key, value)| put_entry(&mut out, 1, key, &value.value()));
    out
}

/// Appends one entry of a map from text to messages.
fn put_entry(out: &mut Vec<u8>, tag: u32, key: &str, value: &[u8]) {
    let mut entry = Vec::new();
    put(&mut entry, 1, key.as_bytes());
    put(&mut entry, 2, value);
    put(out, tag, &entry);
}

/// As `envoy.config.core.v3.Metadata`, by filter.
pub(super) fn metadata(filters: &BTreeMap<String, BTreeMap<String, Tree>>) -> Vec<u8> {
    let mut out = Vec::new();
    filters.iter().for_each(|(filter, entries)| put_entry(&mut out, 1, filter, &structure(entries)));
    out
}

/// An upstream with its metadata.
pub(super) fn cluster(cluster: &cluster::Cluster, metadata: &[u8]) -> Arc<Resource> {
    debug_assert!(cluster.typed_extension_protocol_options.len() < 2, "a map with one entry has one order");
    let mut out = cluster.encode_to_vec();
    if !metadata.is_empty() {
        put(&mut out, 25, metadata);
    }
    resource(&cluster.name, out)
}

/// One endpoint with its metadata.
pub(super) fn lb_endpoint(endpoint: &endpoint::LbEndpoint, metadata: &[u8]) -> Vec<u8> {
    let mut out = endpoint.encode_to_vec();
    if !metadata.is_empty() {
        put(&mut out, 3, metadata);
    }
    out
}

/// One place with its encoded endpoints.
pub(super) fn locality_endpoints(place: &endpoint::LocalityLbEndpoints, endpoints: &[Vec<u8>]) -> Vec<u8> {
    let mut out = place.encode_to_vec();
    endpoints.iter().for_each(|endpoint| put(&mut out, 2, endpoint));
    out
}

/// An assignment with its encoded places.
pub(super) fn load_assignment(name: &str, places: &[Vec<u8>]) -> Vec<u8> {
    let base = endpoint::ClusterLoadAssignment { cluster_name: name.to_owned(), ..Default::default() };
    let mut out = base.encode_to_vec();
    places.iter().for_each(|place| put(&mut out, 2, place));
    out
}

/// One route, with the settings that it gives to filters.
pub(super) fn route(route: &route::Route, filters: &BTreeMap<String, protobuf::Any>) -> Vec<u8> {
    let mut out = route.encode_to_vec();
    filters.iter().for_each(|(filter, settings)| put_entry(&mut out, 13, filter, &settings.encode_to_vec()));
    out
}

/// A virtual host without its domains, with its encoded routes.
pub(super) fn virtual_host(host: &route::VirtualHost, routes: &[Vec<u8>]) -> Bytes {
    let mut out = host.encode_to_vec();
    routes.iter().for_each(|route| put(&mut out, 3, route));
    out.into()
}

/// Routes with their encoded virtual hosts and the domains of each.
pub(super) fn route_configuration<'a>(
    base: &route::RouteConfiguration,
    hosts: impl IntoIterator<Item = (&'a Bytes, Vec<String>)>,
) -> Arc<Resource> {
    let mut out = base.encode_to_vec();
    for (body, domains) in hosts {
        let mut host = body.to_vec();
        domains.iter().for_each(|domain| put(&mut host, 2, domain.as_bytes()));
        put(&mut out, 2, &host);
    }
    resource(&base.name, out)
}

/// `SubstitutionFormatString` with fields as JSON.
pub(super) fn json_format(fields: &BTreeMap<String, Tree>) -> Vec<u8> {
    let mut out = core::SubstitutionFormatString::default().encode_to_vec();
    put(&mut out, 2, &structure(fields));
    out
}
