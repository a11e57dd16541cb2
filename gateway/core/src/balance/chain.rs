//! Owns the chain of an aggregate: the priorities of its members one after the other, and which of them a request takes.
//!
//! Immutable and shared; made anew when the plan of a member changes. Never takes turns: that is done by the picker of
//! the member that was chosen.

use super::load::{self, Class, Counts, Share};
use super::picker::Aim;
use super::plan::Plan;
use std::sync::Arc;

/// Priorities of several clusters as one list.
#[derive(Debug)]
pub struct Chain {
    links: Box<[Link]>,
    counts: Box<[Counts]>,
    shares: Box<[Share]>,
    panic_threshold: f64,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    member: u32,
    priority: u32,
    overprovisioning: u32,
}

/// A member and what of it to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Its place in the list of members.
    pub member: u32,
    /// Its place in the chain: what a retry may want to avoid.
    pub place: u32,
    /// For [`super::Request::aim`].
    pub aim: Aim,
}

impl Chain {
    /// Links the priorities of these members that have endpoints. A member that is not there is passed over.
    #[must_use]
    pub fn new<'a>(members: impl Iterator<Item = Option<&'a Arc<Plan>>>, panic_threshold: f64) -> Self {
        let (mut links, mut counts) = (Vec::new(), Vec::new());
        for (member, plan) in members.enumerate() {
            let Some(plan) = plan else { continue };
            let overprovisioning = plan.set().load().overprovisioning;
            for (priority, level) in plan.groups[0].counts.iter().enumerate().filter(|(_, level)| level.all > 0) {
                links.push(Link { member: member as u32, priority: priority as u32, overprovisioning });
                counts.push(*level);
            }
        }
        let shares = shares(&links, &counts, panic_threshold);
        Self { links: links.into(), counts: counts.into(), shares, panic_threshold }
    }

    /// Takes a link, avoiding those whose bit is set in `skip` as long as there is another one. `None`: no member has an
    /// endpoint.
    #[must_use]
    pub fn choose(&self, skip: u32, random: u64) -> Option<Chosen> {
        let skipped = |place: usize| place < 32 && skip & (1 << place) != 0;
        let left = |(place, counts): (usize, &Counts)| if skipped(place) { Counts::default() } else { *counts };
        let mut shares = None;
        if skip != 0 {
            let left: Box<[Counts]> = self.counts.iter().enumerate().map(left).collect();
            if left.iter().any(|counts| counts.healthy + counts.degraded > 0) {
                shares = Some(self::shares(&self.links, &left, self.panic_threshold));
            }
        }
        if self.links.is_empty() {
            return None;
        }
        let (place, class) = load::choose(shares.as_ref().unwrap_or(&self.shares), random);
        let link = self.links.get(place)?;
        let aim = Aim { priority: link.priority, degraded: class == Class::Degraded };
        Some(Chosen { member: link.member, place: place as u32, aim })
    }
}

fn shares(links: &[Link], counts: &[Counts], panic_threshold: f64) -> Box<[Share]> {
    if counts.is_empty() {
        return Box::default();
    }
    load::shares_by(counts, |place| links[place].overprovisioning, panic_threshold)
}
