//! Owns drop overloads: shares of the load that the control plane asks to refuse before an endpoint is chosen.
//!
//! Never counts what it drops.

use crate::config::DropOverload;
use crate::failure::Kind;
use crate::time::Random;
use std::sync::Arc;

/// A request that is to be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drop {
    /// For statistics.
    pub category: Arc<str>,
    /// What the client is told.
    pub kind: Kind,
}

/// Decides whether a request is refused. Categories are asked in order, each with its own draw.
#[must_use]
pub fn drop_overload(drops: &[DropOverload], random: u64) -> Option<Drop> {
    const ALL: u32 = 1_000_000;
    if drops.is_empty() {
        return None;
    }
    let mut random = Random::new(random);
    let hit = drops.iter().find(|drop| random.below(u64::from(ALL)) < u64::from(drop.per_million))?;
    let kind = if hit.per_million >= ALL { Kind::UnconditionalDropOverload } else { Kind::DropOverload };
    Some(Drop { category: hit.category.clone(), kind })
}
