//! What a control plane says about itself and its federation, as JSON. Served at `/status` of the control plane's admin
//! address, exchanged between peers, read by `tombolo federation status`.

use serde::{Deserialize, Serialize};

/// One whole answer: this site first, then what its peers say about themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FederationStatus {
    /// The site that answered.
    pub site: SiteStatus,
    /// The other sites, as they last reported, with the age of the report.
    pub others: Vec<RemoteSiteStatus>,
}

/// Another site's report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RemoteSiteStatus {
    pub status: SiteStatus,
    /// Milliseconds since it was received.
    pub age_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    pub site: String,
    pub cluster: String,
    pub network: String,
    pub trust_domain: String,
    pub version: String,
    /// True when nothing below needs a person.
    pub healthy: bool,
    /// Why not.
    pub problems: Vec<String>,
    pub sources: Vec<SourceStatus>,
    pub peers: Vec<PeerStatus>,
    pub registry: RegistryStatus,
    pub proxies: Vec<ProxyStatus>,
    pub certificates: Vec<CertificateStatus>,
    pub trust_domains: Vec<TrustDomainStatus>,
    pub diagnostics: Vec<DiagnosticStatus>,
    pub uptime_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    pub kind: String,
    /// `syncing`, `fresh`, `stale` or `expired`.
    pub state: String,
    pub services: u64,
    pub workloads: u64,
    pub objects: u64,
    pub refused: u64,
    /// Milliseconds since the source last proved that it is up to date.
    pub age_ms: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub name: String,
    pub address: String,
    /// `connected`, `stale`, `expired`, `connecting` or `refused`.
    pub state: String,
    /// Why it is not connected.
    pub reason: String,
    /// Milliseconds since something was heard.
    pub age_ms: u64,
    pub services: u64,
    pub endpoints: u64,
    pub gateways: u64,
    /// Messages outside the remit that were dropped.
    pub out_of_remit: u64,
    pub trust_domains: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RegistryStatus {
    pub services: u64,
    pub endpoints: u64,
    pub stale_endpoints: u64,
    pub exported: u64,
    pub imported: u64,
    /// Changes applied since start.
    pub revision: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyStatus {
    pub id: String,
    /// `sidecar` or `router`.
    pub role: String,
    pub namespace: String,
    pub connected: bool,
    /// True when the proxy acknowledged the newest config of every type.
    pub synced: bool,
    /// Newest refusal, empty when none.
    pub rejected: String,
    pub version: String,
    pub address: String,
    /// Responses sent and refused since it connected.
    pub sent: u64,
    pub nacked: u64,
    /// Milliseconds since it connected, or since it was last seen.
    pub age_ms: u64,
    /// `delta` or `sotw`.
    pub protocol: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    pub name: String,
    pub serial: String,
    pub not_after_unix: i64,
    pub seconds_left: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrustDomainStatus {
    pub name: String,
    /// `own` or the peer that brought it.
    pub source: String,
    pub roots: u64,
    pub not_after_unix: i64,
    pub seconds_left: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DiagnosticStatus {
    pub severity: String,
    pub code: String,
    pub object: String,
    pub field: String,
    pub message: String,
    pub place: String,
}
