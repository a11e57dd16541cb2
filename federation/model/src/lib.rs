//! The vocabulary of the mesh: ids, identities, localities, services, workloads and endpoints.
//!
//! Pure: knows no clock, environment, socket, file, thread or `async`. Used by every other crate.
//! Never contains a field name of Kubernetes, Istio, Consul or xDS.

mod endpoint;
mod id;
mod identity;
mod locality;
mod object;
mod protocol;
mod service;

pub use endpoint::{Endpoint, Health, NetworkGateway, TlsMode, Workload, WorkloadAddress};
pub use id::{ClusterId, Host, Labels, Namespace, NetworkId, NotAName, SiteName, Subsets, TrustDomain};
pub use identity::{Identity, NotAnIdentity};
pub use locality::Locality;
pub use object::{Diagnostic, ObjectRef, Severity};
pub use protocol::Protocol;
pub use service::{
    EndpointSlice, Export, Resolution, Scope, Service, ServiceKey, ServicePort, SliceEndpoint, TargetPort, Visibility,
};
