//! Places for connections, of which there are only so many at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// So many places, and how many of them are taken. Shared by all workers.
#[derive(Debug)]
pub struct Places {
    most: u64,
    /// Whoever finds none is kept waiting for so long before being closed, where that is wanted.
    pub delay: Option<Duration>,
    taken: AtomicU64,
}

// Alike when their settings are: who is there does not make settings differ.
impl PartialEq for Places {
    fn eq(&self, other: &Self) -> bool {
        (self.most, self.delay) == (other.most, other.delay)
    }
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Places {
    /// All of them free.
    #[must_use]
    pub fn new(most: u64, delay: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { most, delay, taken: AtomicU64::new(0) })
    }

    /// A place; `None` when all are taken.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        let more = |taken: u64| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_until_it_is_given_back() {
        let places = Places::new(2, None);
        let (first, second) = (places.take(), places.take());
        assert!(first.is_some() && second.is_some() && places.take().is_none());
        drop(first);
        assert!(places.take().is_some());
        assert_eq!(places, Places::new(2, None));
        assert_ne!(places, Places::new(3, None));
    }
}
