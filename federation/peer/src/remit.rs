//! What a peer may speak for. A compromised peer can lie about itself only: everything else that it says is dropped by
//! these checks, before it becomes an event.

use std::collections::BTreeSet;
use tombolo_controlplane_api::peer as wire;
use tombolo_federation_model::{ClusterId, Identity, NetworkId, TrustDomain};

/// The clusters, networks and trust domains that a peer may speak for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remit {
    /// Owners of services.
    pub clusters: BTreeSet<ClusterId>,
    /// Where endpoints and gateways may stand.
    pub networks: BTreeSet<NetworkId>,
    /// Whose identities endpoints may present, and whose roots it may publish.
    pub trust_domains: BTreeSet<TrustDomain>,
}

impl Remit {
    fn cluster(&self, text: &str) -> Result<(), String> {
        if self.clusters.contains(text) { Ok(()) } else { Err(format!("cluster {text:?} is outside the remit")) }
    }

    fn network(&self, text: &str) -> Result<(), String> {
        if self.networks.contains(text) { Ok(()) } else { Err(format!("network {text:?} is outside the remit")) }
    }

    fn trust_domain(&self, text: &str) -> Result<(), String> {
        let known = TrustDomain::parse(text).is_ok_and(|domain| self.trust_domains.contains(&domain));
        if known { Ok(()) } else { Err(format!("trust domain {text:?} is outside the remit")) }
    }

    /// Whether the peer may say this about a service and each of its endpoints.
    ///
    /// # Errors
    /// Names the first part that is outside.
    pub fn admits_service(&self, service: &wire::ExportedService) -> Result<(), String> {
        self.cluster(&service.cluster)?;
        for endpoint in &service.endpoints {
            let of = |reason: String| format!("endpoint {}: {reason}", endpoint.workload);
            if endpoint.cluster != service.cluster {
                return Err(of(format!("cluster {:?} is not that of the service", endpoint.cluster)));
            }
            self.network(&endpoint.network).map_err(of)?;
            if endpoint.identity.is_empty() {
                continue;
            }
            let identity = Identity::parse(&endpoint.identity).map_err(|error| of(error.to_string()))?;
            self.trust_domain(identity.trust_domain().as_str()).map_err(of)?;
        }
        Ok(())
    }

    /// Whether the peer may say this about a gateway.
    ///
    /// # Errors
    /// Names the part that is outside.
    pub fn admits_gateway(&self, gateway: &wire::NetworkGateway) -> Result<(), String> {
        self.cluster(&gateway.cluster)?;
        self.network(&gateway.network)
    }

    /// Whether the peer may publish these roots.
    ///
    /// # Errors
    /// When the trust domain is outside.
    pub fn admits_bundle(&self, bundle: &wire::TrustBundle) -> Result<(), String> {
        self.trust_domain(&bundle.trust_domain)
    }
}
