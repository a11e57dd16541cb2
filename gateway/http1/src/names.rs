//! Names of fields, read without an allocation once they were seen.
//!
//! Owns a small table of recent names as they were spelled. A name that is not in it is judged by `http`, which takes
//! nothing but tokens; a hostile client can push names out of the table and gains nothing by it.

use http::HeaderName;

const SLOTS: usize = 256;
/// Longer names are not remembered: they are rare, and what is kept is bounded.
const LONGEST: usize = 64;

/// Recent names.
pub struct Names {
    slots: Box<[Option<Slot>]>,
    /// Room for where the lines of a head end, from one head to the next.
    pub(crate) ends: Vec<usize>,
}

struct Slot {
    spelled: Box<[u8]>,
    name: HeaderName,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

impl Names {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { slots: std::iter::repeat_with(|| None).take(SLOTS).collect(), ends: Vec::new() }
    }

    /// The name that these bytes spell; `None` when they are no name.
    pub fn read(&mut self, raw: &[u8]) -> Option<HeaderName> {
        if raw.len() > LONGEST {
            return HeaderName::from_bytes(raw).ok();
        }
        let slot = self.slots.get_mut(place(raw))?;
        if let Some(Slot { spelled, name }) = slot
            && **spelled == *raw
        {
            return Some(name.clone());
        }
        let name = HeaderName::from_bytes(raw).ok()?;
        *slot = Some(Slot { spelled: raw.into(), name: name.clone() });
        Some(name)
    }
}

/// Ends and length tell most names apart; the middle decides among those that share them.
fn place(raw: &[u8]) -> usize {
    let at = |index: usize| usize::from(raw.get(index).copied().unwrap_or(0) | 0x20);
    let length = raw.len();
    let mixed = length
        .wrapping_mul(31)
        .wrapping_add(at(0).wrapping_mul(7))
        .wrapping_add(at(length / 2).wrapping_mul(61))
        .wrapping_add(at(length.wrapping_sub(1)).wrapping_mul(13))
        .wrapping_add(at(length.wrapping_mul(3) / 4).wrapping_mul(17));
    (mixed ^ (mixed >> 8)) % SLOTS
}
