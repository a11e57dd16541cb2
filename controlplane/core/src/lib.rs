//! The control plane without I/O: what users mean ([`intent`]), the references between what they wrote ([`bind`]), its
//! translation to xDS ([`translate`]), and the incremental engine that recomputes only what a change touches ([`engine`]).
//!
//! Pure: time is an argument; no socket, file, thread or `async`. Field names of Kubernetes, Istio and Consul do not occur
//! here (they belong to the dialect crate); xDS field names occur in `translate` only.

pub mod intent;
