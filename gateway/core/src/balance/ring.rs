//! Owns the hash ring (ketama): points of hosts on a circle of 64-bit hashes.
//!
//! Immutable and shared. The points are those that Envoy computes, so that a key finds the same host there and here.

use crate::config::{RingHash, RingHashFunction};
use std::io::Write as _;
use xxhash_rust::xxh64::xxh64;

/// A host that takes part: its key and its share of all weight. Shares add up to 1.
#[derive(Debug, Clone)]
pub(super) struct Weighted {
    pub(super) host: u32,
    pub(super) key: String,
    pub(super) share: f64,
}

/// A ring.
#[derive(Debug)]
pub(super) struct Ring {
    /// Sorted by hash.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    pub(super) fn new(hosts: &[Weighted], settings: &RingHash) -> Self {
        let least = hosts.iter().map(|host| host.share).fold(1.0, f64::min);
        // The lightest host gets a whole number of points; the others follow in proportion.
        let scale = ((least * settings.minimum_size as f64).ceil() / least).min(settings.maximum_size as f64);
        let mut points = Vec::with_capacity(if hosts.is_empty() { 0 } else { scale.ceil() as usize });
        let mut text = Vec::with_capacity(64);
        let (mut made, mut target) = (0.0, 0.0);
        for host in hosts {
            target += scale * host.share;
            text.clear();
            text.extend_from_slice(host.key.as_bytes());
            text.push(b'_');
            let prefix = text.len();
            let mut index = 0u64;
            while made < target {
                text.truncate(prefix);
                // Writing to memory cannot fail.
                let _ = write!(text, "{index}");
                points.push((hash(&text, settings.function), host.host));
                index += 1;
                made += 1.0;
            }
        }
        points.sort_unstable_by_key(|(hash, _)| *hash);
        Self { points: points.into() }
    }

    /// The host at or after `hash`; each further attempt goes one point on.
    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<u32> {
        if self.points.is_empty() {
            return None;
        }
        let at = self.points.partition_point(|(point, _)| *point < hash);
        Some(self.points[(at % self.points.len() + attempt as usize) % self.points.len()].1)
    }
}

fn hash(text: &[u8], function: RingHashFunction) -> u64 {
    match function {
        RingHashFunction::XxHash => xxh64(text, 0),
        RingHashFunction::Murmur2 => murmur2(text, 0xc70f_6907),
    }
}

/// MurmurHash2, 64 bit, as the GNU C++ library hashes strings.
fn murmur2(text: &[u8], seed: u64) -> u64 {
    const MUL: u64 = 0xc6a4_a793_5bd1_e995;
    let mix = |value: u64| value ^ (value >> 47);
    let mut hash = seed ^ (text.len() as u64).wrapping_mul(MUL);
    let mut words = text.chunks_exact(8);
    for word in &mut words {
        let word = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash ^= mix(word.wrapping_mul(MUL)).wrapping_mul(MUL);
        hash = hash.wrapping_mul(MUL);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = hash.wrapping_mul(MUL);
    }
    mix(mix(hash).wrapping_mul(MUL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur_is_the_one_of_the_library() {
        // Values of the reference implementation.
        assert_eq!(murmur2(b"", 0xc70f_6907), 6_142_509_188_972_423_790);
        assert_eq!(murmur2(b"a", 0xc70f_6907), 4_993_892_634_952_068_459);
        assert_ne!(murmur2(b"abcdefgh", 0xc70f_6907), murmur2(b"abcdefghi", 0xc70f_6907));
    }

    #[test]
    fn sizes_follow_weights() {
        let host = |host, share| Weighted { host, key: format!("10.0.0.{host}:80"), share };
        let settings = RingHash { minimum_size: 8, maximum_size: 1024, function: RingHashFunction::XxHash };
        let ring = Ring::new(&[host(0, 0.25), host(1, 0.75)], &settings);
        assert_eq!(ring.points.len(), 8);
        assert_eq!(ring.points.iter().filter(|(_, host)| *host == 1).count(), 6);
        let small = Ring::new(&[host(0, 0.25), host(1, 0.75)], &RingHash { maximum_size: 4, ..settings });
        assert_eq!(small.points.len(), 4);
        assert_eq!(Ring::new(&[], &settings).pick(1, 0), None);
    }

    #[test]
    fn the_ring_closes() {
        let ring = Ring { points: Box::new([(10, 0), (20, 1)]) };
        assert_eq!([0, 10, 11, 20, 21].map(|hash| ring.pick(hash, 0)), [0, 0, 1, 1, 0].map(Some));
        assert_eq!(ring.pick(21, 1), Some(1));
    }
}
