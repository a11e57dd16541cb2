//! The machinery of incremental computing: tables that know what changed in them ([`Table`], [`Lists`]), a [`Reader`] that
//! writes down everything an output reads, and a [`Stage`] that recomputes an output only when something it read changed.
//!
//! Owns no rule about the mesh. Nothing outside of this module can read a table without leaving a trace, so no cache key
//! is ever written by hand. Used by the engine.

mod lists;
mod reader;
mod run;
mod subsets;
mod table;
mod world;

pub use lists::Lists;
pub use reader::{Dep, Reader};
pub use run::Stage;
pub use table::Table;
pub use world::{AudienceId, Bundles, ProxyId, ServedHere, ServiceHead, VhostKey, World};

#[cfg(test)]
mod tests;
