//! The control plane without I/O: what users mean ([`intent`]), the references between what they wrote ([`bind`]), its
//! translation to xDS ([`translate`]), and the incremental engine that recomputes only what a change touches ([`engine`]).
//!
//! Pure: time is an argument; no socket, file, thread or `async`. Field names of Kubernetes, Istio and Consul do not occur
//! here (they belong to the dialect crate); xDS field names occur in `translate` only.

pub mod bind;
pub mod engine;
pub mod input;
pub mod intent;
pub mod proxy;
pub mod settings;
pub mod snapshot;
pub mod stage;
pub mod translate;

pub use engine::{Engine, Exports, Step};
pub use input::{Input, IntentEvent};
pub use proxy::{NotAProxy, Proxy, Role};
pub use settings::SiteSettings;
pub use stage::ProxyId;
