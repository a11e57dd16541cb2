//! Owns the head that every Kubernetes object has. Never knows a spec.

use crate::{
    grammar,
    reading::Context,
    text::{Node, Value},
};
use tombolo_controlplane_core::intent::Meta;
use tombolo_federation_model::{Host, Labels, Namespace, NotAName, ObjectRef};

/// Kind and name of an object, before anything else of it is read.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: Namespace,
    pub(crate) created: i64,
    pub(crate) generation: i64,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) object: ObjectRef,
}

impl Head {
    /// Reads the head.
    ///
    /// # Errors
    /// When the tree is no object, says a line and a reason.
    pub(crate) fn parse(root: &Node, ctx: &Context) -> Result<Self, (u32, String)> {
        let text = |node: Option<&Node>| node.and_then(Node::text).unwrap_or_default().to_owned();
        let (api_version, kind) = (text(root.get("apiVersion")), text(root.get("kind")));
        if !matches!(root.value, Value::Map(_)) || api_version.is_empty() || kind.is_empty() {
            return Err((root.line, "it has no apiVersion and kind, so it is no Kubernetes object".to_owned()));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let metadata = root.get("metadata");
        let name = text(metadata.and_then(|m| m.get("name")));
        if name.is_empty() {
            let line = metadata.map_or(root.line, |m| m.line);
            return Err((line, format!("this {kind} has no metadata.name")));
        }
        let namespace = match metadata.and_then(|m| m.get("namespace")) {
            None => ctx.default_namespace.clone(),
            Some(node) => Namespace::parse(node.text().unwrap_or_default()).map_err(|e| (node.line, e.to_string()))?,
        };
        let stamp = text(metadata.and_then(|m| m.get("creationTimestamp")));
        let generation = text(metadata.and_then(|m| m.get("generation")));
        let owner = if is_cluster_scoped(group, &kind) { "" } else { namespace.as_str() };
        Ok(Self {
            object: ObjectRef::new(&kind_name(group, &kind), owner, &name, ctx.cluster.as_str()),
            // A time that is malformed counts as absent: it decides only which of two objects is older.
            created: grammar::timestamp(&stamp).unwrap_or(0),
            generation: grammar::integer(&generation).unwrap_or(0),
            labels: string_map(metadata.and_then(|m| m.get("labels"))),
            annotations: string_map(metadata.and_then(|m| m.get("annotations"))),
            group: group.to_owned(),
            version: version.to_owned(),
            kind,
            name,
            namespace,
        })
    }

    /// What an intent of this object has.
    pub(crate) fn meta(&self) -> Meta {
        Meta {
            object: self.object.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            created: self.created,
            generation: self.generation,
        }
    }
}

/// The kind, with its group where other groups have the same kind.
fn kind_name(group: &str, kind: &str) -> String {
    let known = match group {
        "" | "apps" | "batch" | "discovery.k8s.io" | "networking.k8s.io" | "rbac.authorization.k8s.io" => true,
        "networking.istio.io" | "security.istio.io" | "telemetry.istio.io" | "extensions.istio.io" => true,
        "gateway.networking.k8s.io" => kind != "Gateway",
        "multicluster.x-k8s.io" => true,
        _ => false,
    };
    if known { kind.to_owned() } else { format!("{kind}.{group}") }
}

fn is_cluster_scoped(group: &str, kind: &str) -> bool {
    match group {
        "" => matches!(kind, "Namespace" | "Node" | "PersistentVolume"),
        "rbac.authorization.k8s.io" => kind.starts_with("Cluster"),
        "gateway.networking.k8s.io" => kind == "GatewayClass",
        "authentication.istio.io" => kind == "MeshPolicy",
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" | "storage.k8s.io" | "scheduling.k8s.io" => true,
        _ => false,
    }
}

fn string_map(node: Option<&Node>) -> Labels {
    let Some(Value::Map(entries)) = node.map(|n| &n.value) else { return Labels::new() };
    let text = |node: &Node| node.text().unwrap_or_default().to_owned();
    entries.iter().map(|(key, value)| (key.name.clone(), text(value))).collect()
}

/// The full host of a Kubernetes service.
pub(crate) fn service_host(name: &str, namespace: &str, ctx: &Context) -> Result<Host, NotAName> {
    Host::parse(&format!("{name}.{namespace}.svc.{}", ctx.domain_suffix))
}

/// A host as rules write it: a name without dots is a service in the namespace of the rule.
pub(crate) fn rule_host(text: &str, namespace: &Namespace, ctx: &Context) -> Result<Host, NotAName> {
    let short = !text.is_empty() && !text.contains(['.', '*', ':']);
    if short { service_host(text, namespace.as_str(), ctx) } else { Host::parse(text) }
}
