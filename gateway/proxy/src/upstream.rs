//! Towards the endpoints: connections, pools of them, and the names that must be resolved.
//!
//! Owns every connection that this process opens for traffic. Pools belong to one worker and are never shared.

pub(crate) mod choice;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod dns;
mod eyeballs;
pub(crate) mod health;
pub(crate) mod keeper;
pub(crate) mod pool;
pub(crate) mod resolver;
