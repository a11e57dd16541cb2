//! The process' monotonic clock in the pure crates' unit.
//!
//! Owns the origin: every thread counts from the same one, so that marks made by one are understood by another. Each thread remembers
//! what it read last: a request reads the clock where it waited (when it begins, and when its response is here) and takes the rest
//! from memory.

use std::{
    cell::Cell,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};
use tombolo_gateway_core::time::Millis;

/// The wall clock may be set: what it said is believed for so long.
const WALL: Duration = Duration::from_secs(1);

thread_local! {
    static LAST: Cell<Option<(Instant, Millis)>> = const { Cell::new(None) };
    static BOTH: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}

/// The moment from which all are counted.
pub(crate) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// Reads the clock.
pub(crate) fn read() -> Instant {
    look().0
}

fn look() -> (Instant, Millis) {
    let now = Instant::now();
    let both = (now, at(now));
    LAST.set(Some(both));
    both
}

/// What this thread read last. Only where nothing was waited for since.
pub(crate) fn recent() -> Instant {
    LAST.get().unwrap_or_else(look).0
}

/// The same in milliseconds.
pub(crate) fn recently() -> Millis {
    LAST.get().unwrap_or_else(look).1
}

/// Now.
pub(crate) fn now() -> Millis {
    look().1
}

/// A given moment.
pub(crate) fn at(instant: Instant) -> Millis {
    Millis(u64::try_from(instant.saturating_duration_since(origin()).as_millis()).unwrap_or(u64::MAX))
}

/// What the wall clock said at a moment not long ago.
pub(crate) fn wall(at: Instant) -> SystemTime {
    let near = |(then, _): &(Instant, SystemTime)| at.checked_duration_since(*then).is_some_and(|since| since < WALL);
    let (then, said) = BOTH.get().filter(near).unwrap_or_else(|| {
        let both = (Instant::now(), SystemTime::now());
        BOTH.set(Some(both));
        both
    });
    match at.checked_duration_since(then) {
        Some(since) => said + since,
        None => said - then.duration_since(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_last_is_remembered_and_nothing_else() {
        let first = read();
        assert_eq!(recent(), first);
        let second = read();
        assert!(second >= first && recent() == second && recently() == at(second));
        assert_eq!(at(origin() + Duration::from_millis(5)), Millis(5));
    }

    #[test]
    fn moments_have_their_time_of_day() {
        let (now, said) = (Instant::now(), SystemTime::now());
        for ago in [0, 1, 500, 600_000] {
            let ago = Duration::from_millis(ago);
            let Some(then) = now.checked_sub(ago) else { continue };
            let told = wall(then) + ago;
            let off = told.duration_since(said).unwrap_or_else(|early| early.duration());
            // The two clocks are not read at the same moment.
            assert!(off < Duration::from_secs(60), "{off:?}");
        }
    }
}
