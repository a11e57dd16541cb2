//! Owns the Gateway API's Gateway: listeners, of which none stays when two cannot stand beside each other.

use crate::{
    code, common,
    fields::{At, Fields},
    object::Head,
    read::Yield,
};
use std::collections::BTreeSet;
use tombolo_controlplane_core::intent::{
    ConflictRule, Credential, Gateway, Intent, Meta, RouteNamespaces, Selector, Server, ServerHost, ServerTls,
    ServerTlsMode,
};
use tombolo_federation_model::{Host, Protocol};

const NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    spec.skip(&["infrastructure"]);
    spec.not_in_force(&["addresses", "allowedListeners", "defaultScope"]);
    spec.not_enforced(&["tls"]);
    let Some(selector) = selector(&spec, head) else { return Yield::default() };
    let mut names = BTreeSet::new();
    let mut servers = Vec::new();
    for at in spec.need("listeners").iter().flat_map(At::list) {
        let Some(server) = listener(&at, head) else { continue };
        if !names.insert(server.name.clone()) {
            at.error(code::BAD_VALUE, format!("two listeners are named {:?}; names must be unique", server.name));
        }
        servers.push(server);
    }
    let meta = Meta { name: super::gateway_name(&head.name), ..head.meta() };
    Intent::Gateway(Gateway { meta, selector, servers, conflict: ConflictRule::AllLose }).into()
}

/// The workloads of a class. Workloads are not deployed for each gateway, so the usual ones of the class serve it.
fn selector(spec: &Fields<'_>, head: &Head) -> Option<Selector> {
    let class = spec.need("gatewayClassName")?;
    let istio = |value: &str| Selector::from([("istio".to_owned(), value.to_owned())]);
    Some(match class.str()? {
        "istio" | "tombolo" => istio("ingressgateway"),
        "istio-east-west" => istio("eastwestgateway"),
        other => {
            let message = format!(
                "the class {other:?} is not ours; this gateway is served by workloads with the label {NAME_LABEL}={}",
                head.name
            );
            class.warn(code::SUSPICIOUS, message);
            Selector::from([(NAME_LABEL.to_owned(), head.name.clone())])
        }
    })
}

fn listener(at: &At<'_>, head: &Head) -> Option<Server> {
    let fields = at.fields();
    let host = match fields.at("hostname").filter(|at| at.node.text() != Some("")) {
        Some(at) => at.host(),
        None => Host::parse("*").ok(),
    };
    let tls = fields.at("tls");
    let allowed_routes = allowed_routes(&fields);
    let spoken = [
        ("HTTP", Protocol::Http),
        ("HTTPS", Protocol::Https),
        ("TLS", Protocol::Tls),
        ("TCP", Protocol::Tcp),
        ("UDP", Protocol::Udp),
    ];
    let protocol = fields.need("protocol").and_then(|at| at.choose(&spoken));
    let port = fields.need("port").and_then(|at| at.port());
    let name = fields.need("name")?.string()?;
    let (protocol, port) = (protocol?, port?);
    if protocol == Protocol::Udp {
        at.warn(code::NOT_IN_FORCE, "datagrams are not forwarded yet; this listener is left out");
        return None;
    }
    if protocol.is_tls() && tls.is_none() {
        at.error(
            code::REQUIRED,
            format!("{protocol} needs tls; write for example tls: {{certificateRefs: [{{name: NAME}}]}}"),
        );
    }
    Some(Server {
        field: at.path.clone(),
        port,
        port_name: name.clone(),
        protocol,
        hosts: vec![ServerHost { namespace: None, host: host? }],
        tls: tls.filter(|_| protocol.is_tls()).and_then(|at| listener_tls(&at, head)),
        bind: None,
        allowed_routes,
        name,
    })
}

fn allowed_routes(listener: &Fields<'_>) -> RouteNamespaces {
    let Some(allowed) = listener.fields("allowedRoutes") else { return RouteNamespaces::Same };
    // Which kinds fit follows from the protocol.
    allowed.skip(&["kinds"]);
    let Some(namespaces) = allowed.fields("namespaces") else { return RouteNamespaces::Same };
    let selector = common::match_labels(namespaces.fields("selector"));
    let words = [("All", 0), ("Same", 1), ("Selector", 2)];
    match namespaces.at("from").and_then(|at| at.choose(&words)) {
        Some(0) => RouteNamespaces::All,
        Some(2) => RouteNamespaces::Selector(selector.unwrap_or_default()),
        _ => RouteNamespaces::Same,
    }
}

fn listener_tls(at: &At<'_>, head: &Head) -> Option<ServerTls> {
    let fields = at.fields();
    fields.not_in_force(&["options"]);
    fields.not_enforced(&["frontendValidation"]);
    let modes = [("Terminate", ServerTlsMode::Simple), ("Passthrough", ServerTlsMode::Passthrough)];
    let mode = fields.at("mode").map_or(Some(ServerTlsMode::Simple), |at| at.choose(&modes))?;
    let credentials: Vec<_> = fields.list("certificateRefs").iter().filter_map(|at| certificate(at, head)).collect();
    if mode == ServerTlsMode::Simple && credentials.is_empty() {
        at.error(
            code::REQUIRED,
            "to terminate TLS a certificate is needed; write certificateRefs: [{name: NAME}] of a Secret",
        );
    }
    Some(ServerTls {
        mode,
        https_redirect: false,
        credentials,
        files: None,
        client_roots_file: None,
        subject_alt_names: Vec::new(),
        min_version: None,
        max_version: None,
        cipher_suites: Vec::new(),
    })
}

fn certificate(at: &At<'_>, head: &Head) -> Option<Credential> {
    let fields = at.fields();
    fields.skip(&["group"]);
    fields.at("kind").and_then(|at| at.choose(&[("Secret", ())]));
    let namespace = fields.namespace("namespace").unwrap_or_else(|| head.namespace.clone());
    Some(Credential { namespace: Some(namespace), name: fields.need("name")?.string()? })
}
