//! What a control plane is told about its own site at start.
//!
//! Owns no default that a file could set otherwise; never reads an environment or a file itself. Used by the engine, by
//! `bind` for what a proxy does not say about itself, and by the server that fills it in.

use tombolo_federation_model::{ClusterId, Host, Locality, NetworkId, SiteName, TrustDomain};
use tombolo_federation_registry::ExportPolicy;

/// The site: who it is and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteSettings {
    /// Name of the site.
    pub site: SiteName,
    /// The cluster of its own sources.
    pub cluster: ClusterId,
    /// The network of its proxies, unless they say otherwise.
    pub network: NetworkId,
    /// The place of its proxies, unless they say otherwise.
    pub locality: Locality,
    /// The root of its identities.
    pub trust_domain: TrustDomain,
    /// Last part of the hosts of its services, `cluster.local` by convention.
    pub domain_suffix: String,
    /// What peers may see.
    pub export: ExportPolicy,
    /// Hosts and host patterns that mean another service in every cluster: neither exported nor imported.
    pub cluster_local: Vec<Host>,
    /// File on the proxies' machines that holds the roots of the public web.
    pub system_roots: String,
}

impl SiteSettings {
    /// Settings with the conventional values for everything that has one.
    #[must_use]
    pub fn new(site: SiteName, cluster: ClusterId, network: NetworkId, trust_domain: TrustDomain) -> Self {
        Self {
            site,
            cluster,
            network,
            locality: Locality::default(),
            trust_domain,
            domain_suffix: "cluster.local".to_owned(),
            export: ExportPolicy::DeclaredOnly,
            cluster_local: Vec::new(),
            system_roots: "/etc/ssl/certs/ca-certificates.crt".to_owned(),
        }
    }
}
