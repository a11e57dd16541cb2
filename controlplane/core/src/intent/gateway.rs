//! Listeners of gateways.

use super::{Credential, Meta, Selector};
use serde::{Deserialize, Serialize};
use tombolo_federation_model::{Host, Labels, Protocol};

/// Listeners for the gateway workloads that a selector picks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// Identity of the object.
    pub meta: Meta,
    /// Labels of gateway workloads, in all namespaces.
    pub selector: Selector,
    /// Listeners, in order.
    pub servers: Vec<Server>,
    /// How listeners of several objects combine.
    pub conflict: ConflictRule,
}

/// What happens to listeners that cannot stand beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConflictRule {
    /// The oldest stays (Istio's Gateway).
    OldestWins,
    /// None stays (Gateway API, inside one Gateway).
    AllLose,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Unique in the object.
    pub name: String,
    /// Path in the object, for example `spec.servers[0]`.
    pub field: String,
    /// Port number.
    pub port: u16,
    /// Name of the port.
    pub port_name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// Which hosts of which routes.
    pub hosts: Vec<ServerHost>,
    /// TLS of the listener.
    pub tls: Option<ServerTls>,
    /// Address or socket to bind instead of the default.
    pub bind: Option<String>,
    /// Which namespaces may attach routes, beside what `hosts` says (Gateway API).
    pub allowed_routes: RouteNamespaces,
}

/// Which namespaces may attach routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteNamespaces {
    /// Every namespace.
    #[default]
    All,
    /// The gateway's own.
    Same,
    /// Those with labels.
    Selector(Labels),
}

/// A host of a listener, with the namespaces whose routes may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHost {
    /// Only routes of this namespace; `None` means all.
    pub namespace: Option<tombolo_federation_model::Namespace>,
    /// Host or pattern.
    pub host: Host,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerTls {
    /// Which.
    pub mode: ServerTlsMode,
    /// Answer plain HTTP with a redirect to HTTPS.
    pub https_redirect: bool,
    /// Secrets by name, at most two (RSA and ECDSA).
    pub credentials: Vec<Credential>,
    /// Certificate and key files.
    pub files: Option<(String, String)>,
    /// Roots for client certificates.
    pub client_roots_file: Option<String>,
    /// Names that a client certificate may have; empty means any.
    pub subject_alt_names: Vec<String>,
    /// Lowest version: 2 for TLS 1.2, 3 for TLS 1.3.
    pub min_version: Option<u8>,
    /// Highest version.
    pub max_version: Option<u8>,
    /// Names of cipher suites.
    pub cipher_suites: Vec<String>,
}

/// What a listener does with TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerTlsMode {
    /// Route by server name, do not terminate.
    Passthrough,
    /// Terminate.
    Simple,
    /// Terminate, and require a client certificate.
    Mutual,
    /// Terminate, and check a client certificate when there is one.
    OptionalMutual,
    /// Terminate with the mesh's certificate and require one of the mesh.
    Mesh,
    /// Route by a server name that says service, subset and port; do not terminate.
    AutoPassthrough,
}

/// A certificate with its key, or roots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSecret {
    /// Identity of the object.
    pub meta: Meta,
    /// PEM chain, leaf first.
    pub certificate: Option<Vec<u8>>,
    /// PEM key.
    pub key: Option<Vec<u8>>,
    /// PEM roots.
    pub roots: Option<Vec<u8>>,
}

impl std::fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not reach a log by way of a derived formatter.
        f.debug_struct("TlsSecret").field("object", &self.meta.object).finish_non_exhaustive()
    }
}
