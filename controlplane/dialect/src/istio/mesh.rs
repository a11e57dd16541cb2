//! Owns the settings of the whole mesh: YAML inside the ConfigMap `istio`.

use super::{destination_policy, http_policy, sidecar};
use crate::{
    code, common,
    fields::{At, Fields},
    format,
    object::Head,
    read::Yield,
    text::{self, Node},
};
use std::collections::BTreeSet;
use tombolo_controlplane_core::intent::{Intent, LocalityPolicy, MeshSettings, OutboundPolicy};
use tombolo_federation_model::{Host, TrustDomain, Visibility};

/// Settings of things that this mesh does not have or sets elsewhere.
const OTHERS: [&str; 31] = [
    "accessLogServiceAddress",
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "defaultProviders",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "dnsRefreshRate",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "meshMTLS",
    "pathNormalization",
    "protocolDetectionTimeout",
    "proxyHttpPort",
    "proxyListenPort",
    "proxyInboundListenPort",
    "serviceScopeConfigs",
    "tcpKeepalive",
    "tlsDefaults",
    "trustDomainAliases",
    "verifyCertificateAtClient",
];

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    object.skip(&["binaryData", "immutable"]);
    let Some(data) = object.at("data").map(|at| at.fields()) else { return Yield::default() };
    data.skip_rest();
    data.not_in_force(&["meshNetworks"]);
    let Some(at) = data.at("mesh") else { return Yield::default() };
    let Some(text) = at.str() else { return Yield::default() };
    // The text of a block begins on the line after its key's.
    match text::parse(text, at.node.line) {
        Err(fault) => {
            at.sink.report(tombolo_federation_model::Severity::Error, code::YAML, &at.path, fault.line, fault.reason);
            Yield::default()
        }
        Ok(parsed) => {
            for key in &parsed.duplicates {
                at.error(
                    code::DUPLICATE_KEY,
                    format!("the key {:?} stands twice in one map; remove one of the two", key.name),
                );
            }
            settings(head, object, &parsed.root, &at).into()
        }
    }
}

fn settings(head: &Head, object: &Fields<'_>, root: &Node, at: &At<'_>) -> Intent {
    // The tree lives as long as this function, the sink longer: the cursor is made anew for it.
    let fields = At::new(root, &at.path, object.at.sink).fields();
    fields.skip(&OTHERS);
    let default_root = object.at.sink.ctx.root_namespace.clone();
    let export = |name| exports(&fields, name);
    let json = fields.at("accessLogEncoding").and_then(|at| at.choose(&[("TEXT", false), ("JSON", true)]));
    let settings = MeshSettings {
        meta: head.meta(),
        root_namespace: fields.namespace("rootNamespace").unwrap_or(default_root),
        trust_domain: fields.at("trustDomain").and_then(|at| at.parse(TrustDomain::parse)),
        // Unlike a sidecar's, the mesh's absent mode means that everything goes.
        outbound: fields
            .at("outboundTrafficPolicy")
            .filter(|at| at.node.get("mode").is_some())
            .and_then(|at| sidecar::outbound(&at))
            .unwrap_or(OutboundPolicy::AllowAny),
        auto_mtls: fields.bool("enableAutoMtls").unwrap_or(true),
        locality: fields
            .at("localityLbSetting")
            .map_or_else(LocalityPolicy::default, |at| destination_policy::locality(&at)),
        default_retry: fields.at("defaultHttpRetryPolicy").and_then(|at| http_policy::retries(&at)),
        default_service_visibility: export("defaultServiceExportTo"),
        default_routes_visibility: export("defaultVirtualServiceExportTo"),
        default_destination_visibility: export("defaultDestinationRuleExportTo"),
        connect_timeout: fields.at("connectTimeout").and_then(|at| at.positive_duration()),
        access_log_file: fields.string("accessLogFile").unwrap_or_default(),
        access_log_json: json.unwrap_or(false),
        access_log_format: log_format(&fields, json.unwrap_or(false)),
        trusted_proxies: trusted_proxies(&fields),
        cluster_local: cluster_local(&fields),
    };
    Intent::Mesh(Box::new(settings))
}

/// A line that proxies would refuse is left out rather than the settings refused: all the others matter more than it.
fn log_format(fields: &Fields<'_>, json: bool) -> String {
    let Some(at) = fields.at("accessLogFormat") else { return String::new() };
    let text = at.string().unwrap_or_default();
    match format::log_line(&text) {
        Err(reason) if !json => {
            at.warn(code::BAD_VALUE, format!("{reason}; until then the usual format is used"));
            String::new()
        }
        _ => text,
    }
}

/// `.` would be another namespace for each object, so a list of names has no single meaning but for `*` and `~`.
fn exports(fields: &Fields<'_>, name: &'static str) -> Visibility {
    let Some(at) = fields.at(name) else { return Visibility::All };
    let own = at.sink.ctx.root_namespace.clone();
    if at.list().iter().any(|word| word.node.text() == Some(".")) {
        at.warn(
            code::NOT_IN_FORCE,
            "\".\" as a default of the mesh is not in force yet; write exportTo in the objects",
        );
        return Visibility::All;
    }
    common::export_to(Some(at), &own)
}

fn trusted_proxies(fields: &Fields<'_>) -> u32 {
    let Some(defaults) = fields.fields("defaultConfig") else { return 0 };
    defaults.skip_rest();
    let Some(topology) = defaults.fields("gatewayTopology") else { return 0 };
    topology.not_in_force(&["forwardClientCertDetails", "proxyProtocol"]);
    topology.u32("numTrustedProxies").unwrap_or(0)
}

/// Services of the system are reached in their own cluster, unless a setting says otherwise.
fn cluster_local(fields: &Fields<'_>) -> Vec<Host> {
    let suffix = &fields.at.sink.ctx.domain_suffix;
    let defaults = [format!("*.kube-system.svc.{suffix}"), format!("kubernetes.default.svc.{suffix}")];
    let mut hosts: BTreeSet<Host> = defaults.iter().filter_map(|text| Host::parse(text).ok()).collect();
    for at in fields.list("serviceSettings") {
        let entry = at.fields();
        let local = entry.fields("settings").and_then(|s| s.bool("clusterLocal")).unwrap_or(false);
        for host in entry.list("hosts").iter().filter_map(At::host) {
            if local {
                hosts.insert(host);
            } else {
                hosts.retain(|known| !host.covers(known));
            }
        }
    }
    hosts.into_iter().collect()
}
