//! Protobuf messages and gRPC stubs: Envoy's xDS v3 (from a crate), and our own peer exchange and
//! certificate signing messages. Owns no behaviour; used by every crate that speaks on a wire.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

/// Envoy's xDS v3 messages.
pub use envoy_types::pb as xds;
/// Helpers of the message crate, such as packing into `Any`.
pub use envoy_types::util;

/// The exchange between control planes.
pub mod peer {
    tonic::include_proto!("tombolo.federation.peer.v1");
}

/// Istio's certificate signing API.
pub mod ca {
    tonic::include_proto!("istio.v1.auth");
}

pub mod json;
pub mod node;
pub mod status;
