//! Virtual hosts of sidecars: one for each port of a service, or for a host that only routes name.

use super::{
    Translated,
    cluster::{http_like, service_ports},
    encode, names, outbound, route,
    route::{At, EncodedRoute, RouteContext},
    route_action,
    wire::route as wire_route,
};
use crate::{
    bind::{View, mesh_routes},
    intent::Target,
    stage::{ServiceHead, VhostKey},
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{Diagnostic, Host, Protocol, ServicePort};

/// A virtual host whose domains are still to be settled, because no two virtual hosts may have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vhost {
    /// Its name.
    pub name: String,
    /// Domains that are its own.
    pub domains: Vec<String>,
    /// Domains that it takes if nobody has them as its own.
    pub aliases: Vec<String>,
    /// Everything but the domains, encoded.
    pub body: Bytes,
}

/// The virtual hosts of a service or a host, for a class of sidecars.
#[must_use]
pub fn vhosts(view: View<'_, '_>, key: &VhostKey) -> Translated<Arc<Vec<Vhost>>> {
    let mut complaints = Vec::new();
    let made = match key {
        VhostKey::Host(host) => vec![of_host(view, host, &mut complaints)],
        VhostKey::Service(key) => match view.reader.service(key) {
            None => Vec::new(),
            Some(service) => of_service(view, service, &mut complaints),
        },
    };
    Translated { value: Arc::new(made), complaints }
}

fn of_service(view: View<'_, '_>, service: &Arc<ServiceHead>, complaints: &mut Vec<Diagnostic>) -> Vec<Vhost> {
    let ports: Vec<&ServicePort> = service_ports(service).collect();
    // In proxy form the Host header carries the port, except for port 80 of `http:`. A client that leaves out another port
    // means the service's only one, so a host without a port is port 80 if the service has that, else its first for HTTP.
    let http = |p: &&&ServicePort| http_like(p.protocol) && p.protocol != Protocol::Https;
    let unnamed = ports.iter().find(|p| p.number == 80).or_else(|| ports.iter().find(http)).or(ports.first());
    let unnamed = unnamed.map(|port| port.number);
    ports.iter().map(|port| of_port(view, service, port, unnamed == Some(port.number), complaints)).collect()
}

fn of_port(
    view: View<'_, '_>,
    service: &Arc<ServiceHead>,
    port: &ServicePort,
    unnamed: bool,
    complaints: &mut Vec<Diagnostic>,
) -> Vhost {
    let host = &service.key.host;
    let number = port.number;
    let mut context = RouteContext { view, at: At::Mesh, port: number };
    let objects = mesh_routes(view, host);
    let target = Target { host: host.clone(), subset: None, port: None };
    let mut routes = Vec::new();
    if !port.protocol.is_http() && port.protocol != Protocol::Detect {
        routes.push(tunnel(&context, &target));
    }
    if !http_like(port.protocol) {
        // Bytes can only come through a tunnel.
    } else if objects.iter().any(|routes| !routes.http.is_empty()) {
        routes.extend(route::combined(&mut context, &objects, complaints));
    } else {
        routes.push(plain(&context, &target));
    }
    let with_port =
        |name: String| if unnamed { vec![format!("{name}:{number}"), name] } else { vec![format!("{name}:{number}")] };
    let own = match host.as_str().parse() {
        Ok(ip) => names::ip_domain(&ip),
        Err(_) => host.to_string(),
    };
    let short = names::aliases(service, view.audience.namespace.as_str(), &view.reader.site().domain_suffix);
    Vhost {
        name: format!("{host}:{number}"),
        domains: with_port(own),
        aliases: short.into_iter().flat_map(with_port).collect(),
        body: encode_host(&format!("{host}:{number}"), &routes),
    }
}

fn plain(context: &RouteContext<'_, '_>, target: &Target) -> EncodedRoute {
    let route = route_action::default_route(context, target);
    EncodedRoute { body: encode::route(&route, &BTreeMap::new()), catch_all: true }
}

/// For ports that do not speak HTTP in the clear: the client asks for a tunnel, whose contents are forwarded as they are.
fn tunnel(context: &RouteContext<'_, '_>, target: &Target) -> EncodedRoute {
    let mut route = route_action::default_route(context, target);
    route.r#match = Some(outbound::connect());
    if let Some(wire_route::route::Action::Route(action)) = &mut route.action {
        action.upgrade_configs.push(outbound::tunnel());
        action.retry_policy = None;
    }
    EncodedRoute { body: encode::route(&route, &BTreeMap::new()), catch_all: false }
}

/// A host that is no service: its rules alone, on every port.
fn of_host(view: View<'_, '_>, host: &Host, complaints: &mut Vec<Diagnostic>) -> Vhost {
    let mut context = RouteContext { view, at: At::Mesh, port: 80 };
    let objects = mesh_routes(view, host);
    let routes = route::combined(&mut context, &objects, complaints);
    let any_port = if host.is_wildcard() { format!("{host}:80") } else { format!("{host}:*") };
    let domains = if host.as_str() == "*" { vec!["*".to_owned()] } else { vec![host.to_string(), any_port] };
    Vhost { name: host.to_string(), domains, aliases: Vec::new(), body: encode_host(host.as_str(), &routes) }
}

fn encode_host(name: &str, routes: &[EncodedRoute]) -> Bytes {
    let base =
        wire_route::VirtualHost { name: name.to_owned(), include_request_attempt_count: true, ..Default::default() };
    let routes: Vec<Vec<u8>> = routes.iter().map(|route| route.body.clone()).collect();
    encode::virtual_host(&base, &routes)
}
