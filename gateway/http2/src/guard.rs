//! How much trouble a peer may make.
//!
//! Two budgets that useful work and time fill up again: one for frames that cost us work and bring nothing, one for streams that
//! were ended before they were served. Both are far above what honest peers need.

use crate::code::Fault;

/// Points of worthless frames at once.
const MOST_NUISANCE: u32 = 2000;
/// Points that go away in a second.
const NUISANCE_A_SECOND: u64 = 100;
/// Streams ended early at once.
const MOST_RESETS: u32 = 200;
/// Of which are forgotten in a second.
const RESETS_A_SECOND: u64 = 20;
/// A useful frame makes up for this many points.
const USEFUL: u32 = 4;

#[derive(Debug, Default)]
pub(crate) struct Guard {
    nuisance: u32,
    resets: u32,
    /// When time was last credited, in milliseconds.
    credited: u64,
}

impl Guard {
    /// Time goes on.
    pub(crate) fn at(&mut self, now: u64) {
        let passed = now.saturating_sub(self.credited);
        if passed < 100 {
            return;
        }
        self.credited = now;
        let points = |rate: u64| u32::try_from(passed.saturating_mul(rate) / 1000).unwrap_or(u32::MAX);
        self.nuisance = self.nuisance.saturating_sub(points(NUISANCE_A_SECOND));
        self.resets = self.resets.saturating_sub(points(RESETS_A_SECOND));
    }

    /// A frame that brings nothing.
    pub(crate) fn nuisance(&mut self, points: u32, reason: &'static str) -> Result<(), Fault> {
        self.nuisance += points;
        if self.nuisance > MOST_NUISANCE { Err(Fault::calm(reason)) } else { Ok(()) }
    }

    /// A frame that somebody needs.
    pub(crate) fn useful(&mut self) {
        self.nuisance = self.nuisance.saturating_sub(USEFUL);
    }

    /// A stream was ended early, by the peer or because of what it did.
    pub(crate) fn reset(&mut self) -> Result<(), Fault> {
        self.resets += 1;
        if self.resets > MOST_RESETS { Err(Fault::calm("too many streams ended early")) } else { Ok(()) }
    }

    /// A stream came to its proper end.
    pub(crate) fn completed(&mut self) {
        self.resets = self.resets.saturating_sub(1);
    }
}
