//! Which references into other namespaces are permitted. Those of the Gateway API need a grant in the namespace that they
//! lead to; those of Istio's own kinds never did.

use super::{View, complain};
use crate::{
    intent::{HttpAction, HttpRule, Meta, NamedRef, Precedence, Routes, Target, TcpBackend},
    stage::Reader,
};
use std::borrow::Cow;
use tombolo_federation_model::{Diagnostic, Host, Namespace, Severity};

const API: &str = "gateway.networking.k8s.io";
/// Stands for a backend that may not be referred to: no service ever has this name (RFC 6761, section 6.4).
const REFUSED: &str = "not-granted.invalid";
const CLUSTERSET: &str = "svc.clusterset.local";

/// Whether a destination stands for one that was refused.
#[must_use]
pub fn is_refused(target: &Target) -> bool {
    target.host.as_str() == REFUSED
}

/// The kind, namespace and name of the object that a host of the mesh stands for.
fn referred<'h>(reader: &Reader<'_>, host: &'h Host) -> Option<((&'static str, &'static str), Namespace, &'h str)> {
    let local = format!("svc.{}", reader.site().domain_suffix);
    let kinds = [(CLUSTERSET, ("multicluster.x-k8s.io", "ServiceImport")), (local.as_str(), ("", "Service"))];
    kinds.into_iter().find_map(|(suffix, kind)| {
        let (name, namespace) = host.as_str().strip_suffix(suffix)?.strip_suffix('.')?.rsplit_once('.')?;
        Some((kind, Namespace::parse(namespace).ok()?, name))
    })
}

fn permitted(reader: &Reader<'_>, routes: &Routes, target: &Target) -> bool {
    let Some(((group, kind), namespace, name)) = referred(reader, &target.host) else { return true };
    let from = (API, &*routes.meta.object.kind, &routes.meta.namespace);
    namespace == routes.meta.namespace || reader.grants(&namespace).any(|g| g.permits(from, (group, kind, name)))
}

fn judge(reader: &Reader<'_>, routes: &Routes, target: &mut Target, field: &str, complaints: &mut Vec<Diagnostic>) {
    if routes.precedence == Precedence::ObjectOrder || permitted(reader, routes, target) {
        return;
    }
    let text = format!(
        "{} is in another namespace, and no ReferenceGrant there permits a {} of namespace {} to refer to it; its share of the \
         requests gets 500",
        target.host, routes.meta.object.kind, routes.meta.namespace
    );
    complaints.push(complain(Severity::Error, "REF_NOT_PERMITTED", &routes.meta.object, field, text));
    if let Ok(host) = Host::parse(REFUSED) {
        *target = Target { host, subset: None, port: target.port };
    }
}

/// The rule with the backends and copies that its object may refer to. A refused backend keeps its share; a refused copy is
/// not sent.
pub(super) fn permit(
    reader: &Reader<'_>,
    routes: &Routes,
    rule: &HttpRule,
    complaints: &mut Vec<Diagnostic>,
) -> HttpRule {
    let mut rule = rule.clone();
    if let HttpAction::Forward { backends, .. } = &mut rule.action {
        for (at, backend) in backends.iter_mut().enumerate() {
            let field = format!("{}.backendRefs[{at}]", rule.field);
            judge(reader, routes, &mut backend.destination, &field, complaints);
        }
    }
    for mirror in &mut rule.mirrors {
        judge(reader, routes, &mut mirror.destination, &format!("{}.filters", rule.field), complaints);
    }
    rule.mirrors.retain(|mirror| !is_refused(&mirror.destination));
    rule
}

/// The same for rules about connections.
#[must_use]
pub fn permit_connections<'b>(
    reader: &Reader<'_>,
    routes: &Routes,
    field: &str,
    backends: &'b [TcpBackend],
    complaints: &mut Vec<Diagnostic>,
) -> Cow<'b, [TcpBackend]> {
    if routes.precedence == Precedence::ObjectOrder {
        return Cow::Borrowed(backends);
    }
    let mut backends = backends.to_vec();
    for (at, backend) in backends.iter_mut().enumerate() {
        judge(reader, routes, &mut backend.destination, &format!("{field}.backendRefs[{at}]"), complaints);
    }
    Cow::Owned(backends)
}

/// Whether a gateway's workloads may hold a secret that the gateway names. The key leaves its namespace when the workloads are in
/// another one, so its owner must have permitted their namespace; and the namespace of the object that names it.
#[must_use]
pub fn may_hold(view: View<'_, '_>, gateway: Option<&Meta>, secret: &NamedRef) -> bool {
    let to = ("", "Secret", secret.name.as_str());
    let from = |namespace: &Namespace| {
        *namespace == secret.namespace
            || view.reader.grants(&secret.namespace).any(|g| g.permits((API, "Gateway", namespace), to))
    };
    let names_foreign =
        |gateway: &&Meta| &*gateway.object.kind == "Gateway" && gateway.name.starts_with("gateway-api/");
    from(&view.audience.namespace) && gateway.filter(names_foreign).is_none_or(|gateway| from(&gateway.namespace))
}
