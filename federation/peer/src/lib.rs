//! Streams between control planes: every site shows its exported part of the registry to the peers it was told to
//! trust, and reads theirs. Owns connections, their trust and their remits; never decides what a service means.
//!
//! Either side may dial; one stream per pair; both directions speak the same language. What is read becomes
//! [`PeerEvent`]s. A lost connection says nothing to the registry: its lease does. Used by the control plane's server.

mod accept;
mod backoff;
mod convert;
mod dial;
mod exchange;
mod holding;
mod intake;
mod publish;
mod remit;
mod session;
mod settings;
mod start;
mod state;
mod tls;
pub mod verify;
mod wire;

pub use convert::{
    NotAService, exported_services, gateway_from_wire, gateway_to_wire, service_items, subset_from_wire,
};
pub use holding::Holding;
pub use publish::{Bundle, Exports, export_snapshot};
pub use remit::Remit;
pub use settings::{LocalSite, PeerEvent, Settings, types};
pub use start::{Peers, start};
pub use state::{Link, PeerState};
pub use tls::Credentials;
pub use verify::{Trust, TrustMap};

#[cfg(test)]
mod tests;
