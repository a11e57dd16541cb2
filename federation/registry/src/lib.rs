//! Shards in, one merged view out: which services the mesh has, where their endpoints are, and how old that knowledge is.
//!
//! A source reports one [`ShardId`] by [`Event`]s; [`Registry`] keeps every shard as it was reported (ground state) and
//! derives [`MergedService`]s from all of them. Silence makes a shard stale and later expired, never empty. Pure: time is
//! an argument. Used by the control plane's core, by the exchange between control planes and by the status page. Never
//! knows where a shard comes from, nor what a service is used for.

mod event;
mod index;
mod merge;
mod registry;
mod resolve;
mod shard;
mod view;

pub use event::{Event, Item, ItemKey, Lease, Millis, ShardId, ShardSettings};
pub use registry::{Changes, ExportPolicy, Registry, RegistrySettings};
pub use shard::{Freshness, ShardStatus};
pub use view::{MergedService, Totals};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
