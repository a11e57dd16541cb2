//! Resources that end by themselves unless the control plane renews them (`ttl`).
//!
//! Pure. Owns the moments; who asks says what time it is.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tombolo_gateway_core::wire::Kind;

/// When what ends.
#[derive(Debug, Default)]
pub(super) struct Lives {
    ends: BTreeMap<(Kind, Arc<str>), Instant>,
}

impl Lives {
    /// A resource or a sign of life of it came; without a time it lives until it is removed.
    pub(super) fn set(&mut self, kind: Kind, name: &Arc<str>, ttl: Option<Duration>, now: Instant) {
        if ttl.is_none() && self.ends.is_empty() {
            return;
        }
        let key = (kind, name.clone());
        match ttl.and_then(|ttl| now.checked_add(ttl)) {
            Some(end) => drop(self.ends.insert(key, end)),
            None => drop(self.ends.remove(&key)),
        }
    }

    /// When the next one ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ends.values().min().copied()
    }

    /// What has ended, each once.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<(Kind, Arc<str>)> {
        if self.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        let ended: Vec<_> = self.ends.iter().filter(|(_, end)| **end <= now).map(|(key, _)| key.clone()).collect();
        self.ends.retain(|_, end| *end > now);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_puts_the_end_off() {
        let (mut lives, start) = (Lives::default(), Instant::now());
        let (name, second) = (Arc::<str>::from("l"), Duration::from_secs(1));
        lives.set(Kind::Listener, &name, Some(second), start);
        lives.set(Kind::Listener, &name, Some(second * 3), start);
        assert!(lives.ended(start + second * 2).is_empty());
        assert_eq!(lives.ended(start + second * 3), [(Kind::Listener, name.clone())]);
        assert!(lives.ended(start + second * 9).is_empty());
        lives.set(Kind::Listener, &name, Some(second), start);
        lives.set(Kind::Listener, &name, None, start);
        assert_eq!(lives.next(), None, "a version without an end lives on");
    }
}
