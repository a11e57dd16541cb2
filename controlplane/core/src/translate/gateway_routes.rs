//! Routes of gateways: for each HTTP server, the virtual hosts of the routes that are bound to it.

use super::{
    Translated, encode,
    pb::{boolean, uint},
    route::{self, At, EncodedRoute, RouteContext},
    wire::route as wire_route,
};
use crate::{
    bind::{ChainKind, ListenerKind, ServerRef, View, complain},
    intent::{NamedRef, RouteNamespaces, Routes, ServerHost},
};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{Diagnostic, Host, Severity};
use tombolo_federation_sync::Resource;

/// Names of the routes that a class of gateways asks for.
#[must_use]
pub fn route_names(plan: &crate::bind::GatewayPlan) -> Vec<String> {
    let mut names = Vec::new();
    for listener in &plan.listeners {
        match &listener.kind {
            ListenerKind::Http(_) => names.push(listener.route_name()),
            ListenerKind::Tls(chains) => {
                names
                    .extend(chains.iter().filter(|c| c.kind == ChainKind::Http).map(crate::bind::TlsChain::route_name));
            }
            ListenerKind::Tcp(_) => {}
        }
    }
    names
}

/// The routes of one name.
#[must_use]
pub fn gateway_routes(view: View<'_, '_>, name: &str) -> Translated<Option<Arc<Resource>>> {
    let Some(plan) = view.reader.plan(view.id) else { return Translated::default() };
    let mut servers: Vec<(&ServerRef, &[ServerHost])> = Vec::new();
    for listener in &plan.listeners {
        match &listener.kind {
            ListenerKind::Http(list) if listener.route_name() == name => {
                servers.extend(list.iter().map(|server| (server, server.server().hosts.as_slice())));
            }
            ListenerKind::Tls(chains) => {
                let here = chains.iter().filter(|c| c.kind == ChainKind::Http && c.route_name() == name);
                servers.extend(here.map(|chain| (&chain.server, chain.hosts.as_slice())));
            }
            ListenerKind::Http(_) | ListenerKind::Tcp(_) => {}
        }
    }
    let mut complaints = Vec::new();
    let hosts = collect(view, &servers);
    let encoded: Vec<_> =
        hosts.iter().map(|(host, entry)| (entry.encode(view, host, &mut complaints), vec![domain(host)])).collect();
    // A host without a virtual host gets 404. The port of the Host header says nothing here: it is the gateway's own.
    let base = wire_route::RouteConfiguration {
        name: name.to_owned(),
        validate_clusters: boolean(false),
        max_direct_response_body_size_bytes: uint(route::MAX_BODY),
        ignore_port_in_host_matching: true,
        ..Default::default()
    };
    let resource = encode::route_configuration(&base, encoded.iter().map(|(body, domains)| (body, domains.clone())));
    Translated { value: Some(resource), complaints }
}

fn domain(host: &Host) -> String {
    match host.as_str().parse() {
        Ok(ip) => super::names::ip_domain(&ip),
        Err(_) => host.to_string(),
    }
}

/// What is bound to one host.
#[derive(Default)]
struct Entry<'p, 'w> {
    bound: Vec<(&'p ServerRef, &'w Arc<Routes>)>,
    redirect: bool,
    port: u16,
}

fn collect<'p, 'w>(view: View<'_, 'w>, servers: &[(&'p ServerRef, &[ServerHost])]) -> BTreeMap<Host, Entry<'p, 'w>> {
    let mut hosts: BTreeMap<Host, Entry<'p, 'w>> = BTreeMap::new();
    for (reference, server_hosts) in servers {
        let server = reference.server();
        let redirect = server.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        for routes in view.reader.gateway_routes(&reference.name()).filter(|routes| attached(view, reference, routes)) {
            for host in common_hosts(server_hosts, routes) {
                let entry = hosts.entry(host).or_default();
                entry.port = server.port;
                entry.redirect |= redirect;
                entry.bound.push((reference, routes));
            }
        }
        // Hosts that only redirect need no routes.
        for host in server_hosts.iter().filter(|_| redirect) {
            let entry = hosts.entry(host.host.clone()).or_default();
            entry.port = server.port;
            entry.redirect = true;
        }
    }
    hosts
}

/// Whether routes may bind to a server: they name it, are exported to the gateway's namespace, and theirs is one that it takes.
pub(super) fn attached(view: View<'_, '_>, reference: &ServerRef, routes: &Routes) -> bool {
    let server = reference.server();
    let name = reference.name();
    let at = at(&name, reference);
    let allowed = match &server.allowed_routes {
        RouteNamespaces::All => true,
        RouteNamespaces::Same => routes.meta.namespace == reference.gateway.meta.namespace,
        // Labels of namespaces are not part of the registry; who asks for them gets nobody rather than everybody.
        RouteNamespaces::Selector(labels) => {
            labels.get("kubernetes.io/metadata.name").map(String::as_str) == Some(routes.meta.namespace.as_str())
        }
    };
    allowed
        && routes.export_to.includes(&view.audience.namespace)
        && routes.attachments.iter().any(|attachment| at.is(attachment))
}

fn at<'a>(name: &'a NamedRef, reference: &'a ServerRef) -> At<'a> {
    At::Gateway { name, section: &reference.server().name, port: reference.server().port }
}

/// The hosts that a server and routes have in common: of each pair the more specific.
pub(super) fn common_hosts(server_hosts: &[ServerHost], routes: &Routes) -> Vec<Host> {
    let mut hosts = Vec::new();
    for server in server_hosts.iter().filter(|s| s.namespace.as_ref().is_none_or(|ns| *ns == routes.meta.namespace)) {
        for host in &routes.hosts {
            let common = if server.host.covers(host) {
                host
            } else if host.covers(&server.host) {
                &server.host
            } else {
                continue;
            };
            if !hosts.contains(common) {
                hosts.push(common.clone());
            }
        }
    }
    hosts
}

impl Entry<'_, '_> {
    fn encode(&self, view: View<'_, '_>, host: &Host, complaints: &mut Vec<Diagnostic>) -> bytes::Bytes {
        let mut bound = self.bound.clone();
        bound.sort_by(|(_, a), (_, b)| a.meta.merge_order().cmp(&b.meta.merge_order()));
        let mut seen = Vec::new();
        let mut all: Vec<EncodedRoute> = Vec::new();
        for (reference, routes) in &bound {
            // Two servers of one port may bind the same object; its rules count once.
            if seen.contains(&&routes.meta.object) {
                continue;
            }
            seen.push(&routes.meta.object);
            let name = reference.name();
            let mut context = RouteContext { view, at: at(&name, reference), port: self.port };
            if routes.precedence == crate::intent::Precedence::ObjectOrder {
                all.extend(route::combined(&mut context, &[routes], complaints));
            }
        }
        all.splice(0..0, self.most_specific(view, &bound, complaints));
        all.sort_by_key(|encoded| encoded.catch_all);
        self.check_shadowed(&bound, host, complaints);
        let tls = if self.redirect {
            wire_route::virtual_host::TlsRequirementType::All
        } else {
            wire_route::virtual_host::TlsRequirementType::None
        };
        let base = wire_route::VirtualHost {
            name: format!("{host}:{}", self.port),
            require_tls: tls.into(),
            include_request_attempt_count: true,
            ..Default::default()
        };
        let routes: Vec<Vec<u8>> = all.into_iter().map(|encoded| encoded.body).collect();
        encode::virtual_host(&base, &routes)
    }

    /// Objects whose rules rank by specificity rank together.
    fn most_specific(
        &self,
        view: View<'_, '_>,
        bound: &[(&ServerRef, &Arc<Routes>)],
        complaints: &mut Vec<Diagnostic>,
    ) -> Vec<EncodedRoute> {
        let ranked: Vec<&(&ServerRef, &Arc<Routes>)> =
            bound.iter().filter(|(_, routes)| routes.precedence == crate::intent::Precedence::MostSpecific).collect();
        let Some((reference, _)) = ranked.first() else { return Vec::new() };
        let name = reference.name();
        let mut objects: Vec<&Arc<Routes>> = ranked.iter().map(|(_, routes)| *routes).collect();
        objects.dedup_by(|a, b| a.meta.object == b.meta.object);
        let mut context = RouteContext { view, at: at(&name, reference), port: self.port };
        route::combined(&mut context, &objects, complaints)
    }

    /// Two catch-all rules for one host: the younger is never used.
    fn check_shadowed(&self, bound: &[(&ServerRef, &Arc<Routes>)], host: &Host, complaints: &mut Vec<Diagnostic>) {
        let catches =
            |routes: &&Arc<Routes>| routes.http.iter().any(|rule| rule.matches.is_empty() && rule.delegate.is_none());
        let mut all: Vec<&Arc<Routes>> = bound.iter().map(|(_, routes)| *routes).filter(catches).collect();
        all.dedup_by(|a, b| a.meta.object == b.meta.object);
        let Some((first, others)) = all.split_first() else { return };
        for loser in others.iter().filter(|loser| loser.meta.object != first.meta.object) {
            let text = format!(
                "{} is older and matches every request for {host}; rules of this object that do so too are never used",
                first.meta.object
            );
            complaints.push(complain(Severity::Warning, "UNREACHABLE_RULE", &loser.meta.object, "spec.http", text));
        }
    }
}
