//! What control planes and users send: xDS resources and manifests.

use crate::Target;
use prost::Message as _;
use tombolo_controlplane_api::xds::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener, route::v3::RouteConfiguration,
};
use tombolo_controlplane_dialect::{Context, Document, read};
use tombolo_federation_model::{ClusterId, TrustDomain};
use tombolo_gateway_core::wire::{self, Kind};

/// Targets of this module.
pub const TARGETS: &[Target] = &[
    Target { name: "xds_resource", feed: xds_resource, seeds: resources },
    Target { name: "manifest", feed: manifest, seeds: manifests },
];

/// The first byte says which type; a refusal says which field or what is wrong.
fn xds_resource(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    if let Err(refusal) = wire::decode(kind, "", body) {
        assert!(!refusal.to_string().is_empty(), "refused without a word");
    }
}

fn resources() -> Vec<Vec<u8>> {
    let tagged = |kind: Kind, body: Vec<u8>| {
        let at = Kind::ALL.iter().position(|k| *k == kind).and_then(|at| u8::try_from(at).ok()).unwrap_or_default();
        [vec![at], body].concat()
    };
    let named = |name: &str| name.to_owned();
    let mut routes = RouteConfiguration { name: named("routes"), ..RouteConfiguration::default() };
    routes.virtual_hosts.push(Default::default());
    vec![
        tagged(Kind::Cluster, Cluster { name: named("c"), ..Cluster::default() }.encode_to_vec()),
        tagged(Kind::Load, ClusterLoadAssignment { cluster_name: named("c"), ..Default::default() }.encode_to_vec()),
        tagged(Kind::Listener, Listener { name: named("l"), ..Listener::default() }.encode_to_vec()),
        tagged(Kind::Routes, routes.encode_to_vec()),
    ]
}

/// Any text is read; what cannot be used is told.
fn manifest(input: &[u8]) {
    let (Ok(cluster), Ok(domain)) = (ClusterId::parse("east"), TrustDomain::parse("east.local")) else { return };
    let _ = read(&[Document::new("fuzz.yaml", input)], &Context::new(cluster, domain));
}

fn manifests() -> Vec<Vec<u8>> {
    [
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [b]\n  http:\n  - match: [{uri: {prefix: /x}, headers: {k: {regex: 'v.*'}}}]\n    route: [{destination: {host: b, subset: v1}, weight: 80}]\n    timeout: 0.5s\n    fault: {delay: {fixedDelay: 10s, percentage: {value: 100}}}\n",
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g}\nspec:\n  selector: {istio: ingressgateway}\n  servers:\n  - port: {number: 443, name: https, protocol: HTTPS}\n    tls: {mode: SIMPLE, credentialName: c}\n    hosts: ['*.example']\n",
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec:\n  host: b\n  trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: u, ttl: 0s}}}, outlierDetection: {interval: 1s}}\n  subsets: [{name: v1, labels: {version: v1}}]\n",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s}\nspec:\n  hosts: [x.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  endpoints: [{address: 10.0.0.1}]\n",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: s, labels: &l {a: b}}, spec: {selector: *l, ports: [{port: 80, targetPort: http}]}}\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 2, template: {spec: {containers: [{ports: [{containerPort: 80}]}]}}}}\n---\nnull\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{name: g}]\n  rules:\n  - matches: [{path: {type: PathPrefix, value: /}}]\n    filters: [{type: RequestRedirect, requestRedirect: {scheme: https}}]\n    backendRefs: [{name: s, port: 80, weight: 1}]\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
