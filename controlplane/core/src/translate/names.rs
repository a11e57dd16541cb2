//! Names of resources, as Istio gives them: other tools and users' habits know these.

use crate::stage::ServiceHead;
use tombolo_federation_model::Host;

/// Upstream that resolves the host of each request.
pub(super) const ALLOW_ANY: &str = "AllowAnyDynamicDNSCluster";
/// Upstream with no endpoint.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";
/// Upstream that goes where the client was going.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";
/// Listener and routes for requests in proxy form.
pub(super) const HTTP_PROXY: &str = "http_proxy";

/// Upstream of a service's port or of a subset of it; the subset may be empty.
pub(super) fn outbound(port: u16, subset: &str, host: &Host) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The same as a server name between sidecars, and as upstream at east-west gateways.
pub(super) fn server_name(port: u16, subset: &str, host: &Host) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// Upstream of the application beside a sidecar.
pub(super) fn inbound(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The names besides its host by which a client in a namespace may call a service.
pub(super) fn aliases(service: &ServiceHead, namespace: &str, suffix: &str) -> Vec<String> {
    let host = service.key.host.as_str();
    let mut names = Vec::new();
    let short =
        host.strip_suffix(suffix).and_then(|rest| rest.strip_suffix(".svc.")).and_then(|rest| rest.split_once('.'));
    if let Some((name, home)) = short.filter(|(_, home)| !home.contains('.')) {
        if home == namespace {
            names.push(name.to_owned());
        }
        names.push(format!("{name}.{home}"));
        names.push(format!("{name}.{home}.svc"));
        if service.clusterset {
            names.push(format!("{name}.{home}.svc.clusterset.local"));
        }
    }
    names.extend(service.addresses.iter().map(ip_domain));
    names
}

/// An address as it stands in a Host header.
pub(super) fn ip_domain(ip: &std::net::IpAddr) -> String {
    match ip {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
