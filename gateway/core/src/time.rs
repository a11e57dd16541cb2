//! Owns the clock values that pure code takes as arguments.
//!
//! Never reads a clock. Used by `attempt`, `balance` and `outlier`.

/// Milliseconds of a clock that never goes back, from an origin that the caller keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment, later by `duration` milliseconds.
    #[must_use]
    pub fn after(self, duration: u64) -> Millis {
        Millis(self.0.saturating_add(duration))
    }

    /// How many milliseconds passed since `earlier`; 0 if it is later than this.
    #[must_use]
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A duration in whole milliseconds.
#[must_use]
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A stream of random numbers grown from one that the caller drew: several draws of one decision need no clock, no lock
/// and no thread-local.
#[derive(Debug, Clone, Copy)]
pub struct Random(u64);

impl Random {
    /// Starts from a drawn number.
    #[must_use]
    pub fn new(drawn: u64) -> Self {
        Self(drawn)
    }

    /// The next number (SplitMix64).
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`; 0 for a bound of 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// True for `percent` of 100 draws.
    pub fn percent(&mut self, percent: u32) -> bool {
        percent >= 100 || self.below(100) < u64::from(percent)
    }
}
