//! Owns the choice of an endpoint.
//!
//! Three layers, from shared and slow to private and fast:
//!
//! * [`EndpointSet`]: the endpoints of a cluster as discovery told them, with state that outlives updates
//!   ([`HostState`]: load, health, outlier counters; atomics shared by all workers). Made when discovery speaks.
//! * [`Plan`]: who may be chosen now, priority loads, subsets, rings and tables; immutable and shared. Made from a set
//!   whenever the set or the health of a host changes; costs O(endpoints of this cluster).
//! * [`Picker`]: the turn-taking of one worker over a plan. Belongs to one worker (not shared), allocates nothing per pick:
//!   O(1) for equal weights, random, Maglev; O(log n) for rings and unequal weights.
//!
//! Never reads a clock, never draws a random number (both are arguments), never opens a connection. Placement by hash is
//! that of Envoy, so that sessions survive a change of the gateway.

mod chain;
mod drops;
mod edf;
mod ewma;
mod host;
mod load;
mod maglev;
mod picker;
#[cfg(test)]
mod placement;
mod plan;
mod ring;
mod set;
mod slow;
mod subset;
#[cfg(test)]
mod tests;
mod zone;

pub use chain::{Chain, Chosen};
pub use drops::{Drop, drop_overload};
pub use ewma::Latency;
pub use host::{Connected, Health, Host, HostId, HostState, InFlight};
pub use picker::{Aim, Picker, Request};
pub use plan::Plan;
pub use set::EndpointSet;
pub use zone::Fleet;
