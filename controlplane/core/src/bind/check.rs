//! What is wrong with one object, seen from the namespace it stands in.
//!
//! Complaints only; nothing here decides what is in force. Used by the engine for status and by `tombolo analyze`.

use super::{complain, covering, flatten, is_refused, permit_connections, selects};
use crate::{
    intent::{
        Attachment, Destination, Gateway, HttpAction, HttpRule, Intent, PeerAuthentication, Precedence, Routes,
        SidecarScope, Target, TcpBackend, TrafficPolicy,
    },
    proxy::Role,
    stage::{Reader, ServiceHead},
};
use std::{collections::BTreeSet, sync::Arc};
use tombolo_federation_model::{Diagnostic, Host, Namespace, ObjectRef, ServiceKey, Severity};

/// Complaints about one object.
pub type Checked = Vec<Diagnostic>;

/// Checks one object against everything else.
#[must_use]
pub fn check(reader: &Reader<'_>, object: &ObjectRef) -> Checked {
    let Some(intent) = reader.intent(object) else { return Vec::new() };
    let mut found = Vec::new();
    match &**intent {
        Intent::Routes(routes) => check_routes(reader, routes, &mut found),
        Intent::Destination(destination) => check_destination(reader, destination, &mut found),
        Intent::Gateway(gateway) => check_gateway(reader, gateway, &mut found),
        Intent::Sidecar(scope) => check_sidecar(reader, scope, &mut found),
        Intent::PeerAuthentication(policy) => check_peer(reader, policy, &mut found),
        Intent::Mesh(_) | Intent::Secret(_) | Intent::Grant(_) => {}
    }
    found.sort();
    found.dedup();
    found
}

fn check_routes(reader: &Reader<'_>, routes: &Routes, found: &mut Checked) {
    let object = &routes.meta.object;
    check_attachments(reader, routes, found);
    check_hosts(reader, routes, found);
    let rules = flatten(reader, routes, found);
    let namespace = &routes.meta.namespace;
    for rule in &rules {
        for (at, backend) in backends(rule).iter().enumerate() {
            check_target(reader, namespace, backend, object, &format!("{}.route[{at}].destination", rule.field), found);
        }
        for (at, mirror) in rule.mirrors.iter().enumerate() {
            check_target(
                reader,
                namespace,
                &mirror.destination,
                object,
                &format!("{}.mirrors[{at}]", rule.field),
                found,
            );
        }
    }
    let connections =
        routes.tls.iter().map(|r| (&r.field, &r.backends)).chain(routes.tcp.iter().map(|r| (&r.field, &r.backends)));
    for (field, list) in connections {
        let list = permit_connections(reader, routes, field, list, found);
        for (at, TcpBackend { destination, .. }) in list.iter().enumerate() {
            check_target(reader, namespace, destination, object, &format!("{field}.route[{at}].destination"), found);
        }
    }
    check_reach(routes, found);
}

fn backends(rule: &HttpRule) -> Vec<&Target> {
    match &rule.action {
        HttpAction::Forward { backends, .. } => backends.iter().map(|backend| &backend.destination).collect(),
        HttpAction::Redirect(_) | HttpAction::Respond { .. } => Vec::new(),
    }
}

fn check_attachments(reader: &Reader<'_>, routes: &Routes, found: &mut Checked) {
    for attachment in &routes.attachments {
        let Attachment::Gateway { gateway: name, .. } = attachment else { continue };
        let object = &routes.meta.object;
        match reader.gateway(name) {
            None => {
                let text =
                    format!("there is no Gateway {}/{}; the routes are not in force there", name.namespace, name.name);
                found.push(complain(Severity::Error, "UNKNOWN_GATEWAY", object, "spec.gateways", text));
            }
            Some(gateway) if !fits(gateway, routes) => {
                let text = format!(
                    "none of its hosts is one of Gateway {}/{} that this namespace may use",
                    name.namespace, name.name
                );
                found.push(complain(Severity::Warning, "NO_COMMON_HOST", object, "spec.hosts", text));
            }
            Some(_) => {}
        }
    }
}

fn fits(gateway: &Gateway, routes: &Routes) -> bool {
    let mut hosts = gateway.servers.iter().flat_map(|server| &server.hosts);
    hosts.any(|h| {
        h.namespace.as_ref().is_none_or(|ns| *ns == routes.meta.namespace)
            && routes.hosts.iter().any(|host| host.overlaps(&h.host))
    })
}

fn check_hosts(reader: &Reader<'_>, routes: &Routes, found: &mut Checked) {
    if !routes.attachments.contains(&Attachment::Mesh) {
        return;
    }
    for host in &routes.hosts {
        let mut others = reader.mesh_routes(host).take_while(|other| other.meta.object != routes.meta.object);
        let older = others.find(|other| other.precedence == Precedence::ObjectOrder);
        if let Some(older) = older {
            let text = format!(
                "{} is older and already routes {host} in the mesh; these routes are not in force for it",
                older.meta.object
            );
            found.push(complain(Severity::Error, "HOST_CONFLICT", &routes.meta.object, "spec.hosts", text));
        }
        if !host.is_wildcard() && service_at(reader, &routes.meta.namespace, host).is_none() {
            let text = format!("{host} is no service that is visible from namespace {}", routes.meta.namespace);
            found.push(complain(Severity::Info, "HOST_WITHOUT_SERVICE", &routes.meta.object, "spec.hosts", text));
        }
    }
}

/// Rules behind one that matches everything are never used.
fn check_reach(routes: &Routes, found: &mut Checked) {
    let catch_all = routes.http.iter().position(|rule| rule.matches.is_empty());
    for rule in catch_all.into_iter().flat_map(|at| &routes.http[at + 1..]) {
        let text = "a rule before it matches every request, so this one is never used";
        found.push(complain(Severity::Warning, "UNREACHABLE_RULE", &routes.meta.object, &rule.field, text));
    }
}

fn check_target(
    reader: &Reader<'_>,
    namespace: &Namespace,
    target: &Target,
    object: &ObjectRef,
    field: &str,
    found: &mut Checked,
) {
    if is_refused(target) {
        return;
    }
    let Some(service) = service_at(reader, namespace, &target.host) else {
        let text = format!(
            "there is no service {} that is visible from namespace {namespace}; its requests get 503",
            target.host
        );
        found.push(complain(Severity::Error, "UNKNOWN_HOST", object, format!("{field}.host"), text));
        return;
    };
    match target.port {
        Some(port) if service.port(port).is_none() && service.alias_of.is_none() => {
            let text = format!("service {} has no port {port}; its requests get 503", target.host);
            found.push(complain(Severity::Error, "UNKNOWN_PORT", object, format!("{field}.port.number"), text));
        }
        _ => {}
    }
    let Some(subset) = &target.subset else { return };
    let declared = declares(reader, namespace, service, subset);
    if !declared {
        let text = format!("no DestinationRule for {} declares subset {subset:?}; its requests get 503", target.host);
        found.push(complain(Severity::Error, "UNKNOWN_SUBSET", object, format!("{field}.subset"), text));
    }
}

/// Whether the destination that clients in the namespace use declares the subset. Those of the client's namespace hide the owner's,
/// and those hide the root namespace's.
fn declares(reader: &Reader<'_>, namespace: &Namespace, service: &ServiceHead, subset: &str) -> bool {
    for home in [namespace, &service.key.namespace, &reader.mesh().root_namespace] {
        for pattern in covering(&service.key.host) {
            let usable = |d: &&Arc<Destination>| d.meta.namespace == *home && d.export_to.includes(namespace);
            let list: Vec<&Arc<Destination>> = reader.destinations(&pattern).filter(usable).collect();
            if !list.is_empty() {
                return list.iter().any(|d| d.subsets.iter().any(|s| s.name == *subset));
            }
        }
    }
    false
}

/// Any service that a client in the namespace may mean by the host.
fn service_at<'w>(reader: &Reader<'w>, namespace: &Namespace, host: &Host) -> Option<&'w Arc<ServiceHead>> {
    let local = host.as_str().strip_suffix(".svc.clusterset.local");
    let local = local.and_then(|name| Host::parse(&format!("{name}.svc.{}", reader.site().domain_suffix)).ok());
    let visible = |key: &ServiceKey| reader.service(key).filter(|head| head.visibility.includes(namespace));
    covering(local.as_ref().unwrap_or(host)).find_map(|pattern| reader.services_at(&pattern).find_map(visible))
}

fn check_destination(reader: &Reader<'_>, destination: &Destination, found: &mut Checked) {
    let object = &destination.meta.object;
    let mut names = BTreeSet::new();
    for (at, subset) in destination.subsets.iter().enumerate().filter(|(_, subset)| !names.insert(&subset.name)) {
        let text = format!("subset {:?} is declared above; this one is not in force", subset.name);
        found.push(complain(Severity::Error, "DUPLICATE_SUBSET", object, format!("spec.subsets[{at}]"), text));
    }
    let same = reader.destinations(&destination.host).take_while(|older| older.meta.object != *object);
    let rival = |older: &&Arc<Destination>| {
        let same_place = older.meta.namespace == destination.meta.namespace
            && older.workload_selector == destination.workload_selector;
        same_place && older.policy != TrafficPolicy::default()
    };
    if let Some(older) = same.filter(|_| destination.policy != TrafficPolicy::default()).find(rival) {
        let text = format!(
            "{} is older and has a policy for {}; the one here is not in force, its subsets are",
            older.meta.object, destination.host
        );
        found.push(complain(Severity::Warning, "POLICY_CONFLICT", object, "spec.trafficPolicy", text));
    }
    if destination.host.is_wildcard() {
        return;
    }
    let Some(service) = service_at(reader, &destination.meta.namespace, &destination.host) else {
        let text = format!(
            "there is no service {} that is visible from namespace {}",
            destination.host, destination.meta.namespace
        );
        found.push(complain(Severity::Warning, "UNKNOWN_HOST", object, "spec.host", text));
        return;
    };
    let endpoints = reader.endpoints(&service.key);
    for (at, subset) in destination.subsets.iter().enumerate() {
        let used = endpoints.iter().any(|endpoint| crate::translate::in_subset(&subset.labels, endpoint));
        if !used {
            let text = format!("no endpoint of {} has the labels of subset {:?}", destination.host, subset.name);
            found.push(complain(Severity::Info, "EMPTY_SUBSET", object, format!("spec.subsets[{at}].labels"), text));
        }
    }
}

fn check_gateway(reader: &Reader<'_>, gateway: &Gateway, found: &mut Checked) {
    let object = &gateway.meta.object;
    let selected =
        |proxy: &Arc<crate::proxy::Proxy>| proxy.role == Role::Router && selects(&gateway.selector, &proxy.labels);
    let namespaces: BTreeSet<Namespace> =
        reader.proxies().filter(|proxy| selected(proxy)).map(|proxy| proxy.namespace.clone()).collect();
    if namespaces.is_empty() {
        let text = "no connected gateway has these labels";
        found.push(complain(Severity::Info, "SELECTOR_MATCHES_NOTHING", object, "spec.selector", text));
    }
    for server in &gateway.servers {
        let named = server.tls.iter().flat_map(|tls| &tls.credentials);
        // Each gateway looks in its own namespace, so only those that are there say which secrets are missing.
        let needed: BTreeSet<_> =
            named.flat_map(|named| namespaces.iter().map(|workload| named.at(workload))).collect();
        for credential in needed {
            if reader.secret(&credential).is_none() {
                let text = format!(
                    "there is no secret {}/{}; TLS handshakes for this server fail",
                    credential.namespace, credential.name
                );
                found.push(complain(
                    Severity::Error,
                    "UNKNOWN_SECRET",
                    object,
                    format!("{}.tls.credentialName", server.field),
                    text,
                ));
            }
        }
    }
}

fn check_sidecar(reader: &Reader<'_>, scope: &SidecarScope, found: &mut Checked) {
    let older = reader.sidecars(&scope.meta.namespace).find(|s| s.selector.is_none());
    if let Some(older) = older.filter(|older| scope.selector.is_none() && older.meta.object != scope.meta.object) {
        let text = format!(
            "{} is older and already holds for the whole namespace; this one is not in force",
            older.meta.object
        );
        found.push(complain(Severity::Error, "SIDECAR_CONFLICT", &scope.meta.object, "", text));
    }
}

fn check_peer(reader: &Reader<'_>, policy: &PeerAuthentication, found: &mut Checked) {
    let whole = |p: &PeerAuthentication| p.selector.as_ref().is_none_or(tombolo_federation_model::Labels::is_empty);
    let older = reader.peer_authentications(&policy.meta.namespace).find(|p| whole(p));
    if let Some(older) = older.filter(|older| whole(policy) && older.meta.object != policy.meta.object) {
        let text = format!(
            "{} is older and already holds for the whole namespace; this one is not in force",
            older.meta.object
        );
        found.push(complain(Severity::Error, "POLICY_CONFLICT", &policy.meta.object, "", text));
    }
}
