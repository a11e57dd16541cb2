//! Settings of the whole mesh, and the scope of sidecars.

use super::{LocalityPolicy, Meta, RetryPolicy, Selector};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tombolo_federation_model::{Host, Namespace, TrustDomain, Visibility};

/// What a sidecar does with a host that it does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OutboundPolicy {
    /// Let it through.
    #[default]
    AllowAny,
    /// Refuse it.
    RegistryOnly,
}

/// Settings of the whole mesh (Istio's mesh config).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeshSettings {
    /// Identity of the object.
    pub meta: Meta,
    /// Where mesh-wide objects live; `istio-system` by default.
    pub root_namespace: Namespace,
    /// Overrides the site's trust domain when set.
    pub trust_domain: Option<TrustDomain>,
    /// Unknown hosts.
    pub outbound: OutboundPolicy,
    /// Use mutual TLS wherever the endpoint can.
    pub auto_mtls: bool,
    /// Preference for places.
    pub locality: LocalityPolicy,
    /// For rules that say nothing about retries.
    pub default_retry: Option<RetryPolicy>,
    /// Default of `exportTo` for services, routes and destinations.
    pub default_service_visibility: Visibility,
    /// See above.
    pub default_routes_visibility: Visibility,
    /// See above.
    pub default_destination_visibility: Visibility,
    /// Time to connect.
    pub connect_timeout: Option<Duration>,
    /// Access log file, `/dev/stdout` for standard output, empty for none.
    pub access_log_file: String,
    /// Access log as JSON instead of text.
    pub access_log_json: bool,
    /// Access log format; empty means Envoy's default.
    pub access_log_format: String,
    /// How many proxies before a gateway are trusted to have appended to `x-forwarded-for`.
    pub trusted_proxies: u32,
    /// Services of these hosts are never reached in other clusters.
    pub cluster_local: Vec<Host>,
}

/// What a group of sidecars imports (Istio's Sidecar).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SidecarScope {
    /// Identity of the object.
    pub meta: Meta,
    /// Workloads of the object's namespace; `None` means the namespace, or the mesh in the root namespace.
    pub selector: Option<Selector>,
    /// Imports; `None` means everything.
    pub egress: Option<Vec<EgressImport>>,
    /// Unknown hosts; `None` means the mesh's setting.
    pub outbound: Option<OutboundPolicy>,
}

/// One import: hosts of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EgressImport {
    /// From which namespace.
    pub namespace: ImportFrom,
    /// Which hosts.
    pub host: Host,
}

/// Namespaces of an import.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ImportFrom {
    /// Any (`*`).
    Any,
    /// The sidecar's own (`.`).
    Own,
    /// This one.
    Namespace(Namespace),
    /// None (`~`).
    Nothing,
}
