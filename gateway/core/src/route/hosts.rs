//! Which virtual host serves a host name.
//!
//! Exact names and wildcards are found by hashing, so the number of virtual hosts does not matter: one lookup for exact
//! names, one for each distinct length of wildcards (at most 253).

use smallvec::SmallVec;

/// The index of a route table's domains.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostIndex {
    exact: Names,
    suffix: Wildcards,
    prefix: Wildcards,
    any: Option<u32>,
}

/// Names with their virtual hosts. All texts lie behind each other in one piece of memory, because there may be very many.
#[derive(Debug, Clone, Default)]
struct Names {
    text: String,
    entries: Vec<Entry>,
    /// Open addressing, at most half full: some bits of the hash, and the number of the entry plus one.
    slots: Vec<(u32, u32)>,
    hasher: ahash::RandomState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Where its text ends; it begins where the one before ends.
    end: u32,
    host: u32,
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.entries == other.entries
    }
}

impl Names {
    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// False when the name is there already, or when there is no room for more.
    fn put(&mut self, name: &str, host: u32) -> bool {
        if self.find(name).is_some() {
            return false;
        }
        let Ok(end) = u32::try_from(self.text.len() + name.len()) else { return false };
        self.text.push_str(name);
        self.entries.push(Entry { end, host });
        if self.entries.len() * 2 > self.slots.len() {
            self.spread();
        } else {
            self.place(self.entries.len() - 1);
        }
        true
    }

    fn find(&self, name: &str) -> Option<u32> {
        let (mut at, tag) = self.start(name);
        loop {
            let (found, number) = *self.slots.get(at)?;
            let number = (number as usize).checked_sub(1)?;
            if found == tag && self.name(number) == Some(name) {
                return self.entries.get(number).map(|entry| entry.host);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// The first slot of a name, and the bits that are kept of its hash.
    fn start(&self, name: &str) -> (usize, u32) {
        let hash = self.hasher.hash_one(name);
        (hash as usize & self.slots.len().wrapping_sub(1), (hash >> 32) as u32)
    }

    fn name(&self, number: usize) -> Option<&str> {
        let from = number.checked_sub(1).map_or(0, |before| self.entries[before].end);
        self.text.get(from as usize..self.entries.get(number)?.end as usize)
    }

    fn spread(&mut self) {
        let slots = (self.entries.len() * 2).next_power_of_two().max(8);
        self.slots = vec![(0, 0); slots];
        (0..self.entries.len()).for_each(|number| self.place(number));
    }

    fn place(&mut self, number: usize) {
        let Some((mut at, tag)) = self.name(number).map(|name| self.start(name)) else { return };
        while self.slots[at].1 != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = (tag, u32::try_from(number + 1).unwrap_or(u32::MAX));
    }

    fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.entries.shrink_to_fit();
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Wildcards {
    /// Longest first, no duplicates.
    lengths: Vec<usize>,
    names: Names,
}

impl Wildcards {
    fn put(&mut self, part: &str, host: u32) -> bool {
        if let Err(at) = self.lengths.binary_search_by(|length| part.len().cmp(length)) {
            self.lengths.insert(at, part.len());
        }
        self.names.put(part, host)
    }

    /// The length of what matches, and where it leads. `part` cuts a piece of the wanted length from the host.
    fn find<'h>(&self, host: &'h str, part: impl Fn(usize) -> Option<&'h str>) -> Option<(usize, u32)> {
        // Something must stand for the star.
        let fitting = self.lengths.iter().filter(|length| **length < host.len());
        fitting.filter_map(|length| part(*length)).find_map(|part| Some((part.len(), self.names.find(part)?)))
    }
}

/// Two virtual hosts have the same domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateDomain(pub String);

impl HostIndex {
    /// Adds a domain: `name`, `*.suffix`, `prefix.*` or `*`, maybe with a port; ASCII case does not count.
    ///
    /// # Errors
    /// When it is there already; it stays with who has it.
    pub fn put(&mut self, domain: &str, host: u32) -> Result<(), DuplicateDomain> {
        let lower = domain.to_ascii_lowercase();
        let fresh = if lower == "*" {
            let free = self.any.is_none();
            self.any.get_or_insert(host);
            free
        } else if let Some(suffix) = lower.strip_prefix('*') {
            self.suffix.put(suffix, host)
        } else if let Some(prefix) = lower.strip_suffix('*') {
            self.prefix.put(prefix, host)
        } else {
            self.exact.put(&lower, host)
        };
        if fresh { Ok(()) } else { Err(DuplicateDomain(domain.to_owned())) }
    }

    /// No more domains come: what was kept free for them is given back.
    pub fn shrink(&mut self) {
        for names in [&mut self.exact, &mut self.suffix.names, &mut self.prefix.names] {
            names.shrink();
        }
    }

    /// The virtual host of a host name: exact, else longest suffix, else longest prefix, else any.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<u32> {
        if self.exact.is_empty() && self.suffix.names.is_empty() && self.prefix.names.is_empty() {
            return self.any;
        }
        if host.bytes().any(|b| b.is_ascii_uppercase()) {
            let mut lower: SmallVec<[u8; 128]> = SmallVec::from_slice(host.as_bytes());
            lower.make_ascii_lowercase();
            return self.find_lower(std::str::from_utf8(&lower).unwrap_or_default());
        }
        self.find_lower(host)
    }

    fn find_lower(&self, host: &str) -> Option<u32> {
        self.exact.find(host).or_else(|| self.find_wild(host).map(|(_, found)| found))
    }

    /// The virtual host of an exact name in lower case.
    pub(crate) fn find_exact(&self, host: &str) -> Option<u32> {
        self.exact.find(host)
    }

    /// The virtual host of the best wildcard for a name in lower case, and how good it is: a greater rank wins.
    pub(crate) fn find_wild(&self, host: &str) -> Option<((u8, usize), u32)> {
        let suffix = self.suffix.find(host, |length| host.get(host.len() - length..));
        let ranked = |rank: u8| move |(length, found)| ((rank, length), found);
        suffix
            .map(ranked(2))
            .or_else(|| self.prefix.find(host, |length| host.get(..length)).map(ranked(1)))
            .or(self.any.map(|any| ((0, 0), any)))
    }

    /// Whether a domain, in lower case, is here.
    pub(crate) fn has(&self, domain: &str) -> bool {
        match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(""), _) => self.any.is_some(),
            (Some(suffix), _) => self.suffix.names.find(suffix).is_some(),
            (None, Some(prefix)) => self.prefix.names.find(prefix).is_some(),
            (None, None) => self.exact.find(domain).is_some(),
        }
    }
}

/// A host without its port; brackets of IPv6 addresses stay.
#[must_use]
pub fn without_port(host: &str) -> &str {
    match port_start(host) {
        Some(at) => host.get(..at).unwrap_or(host),
        None => host,
    }
}

/// Where the colon of the port is.
#[must_use]
pub fn port_start(host: &str) -> Option<usize> {
    let colon = host.rfind(':')?;
    let in_brackets = host.rfind(']').is_some_and(|bracket| bracket > colon);
    let port = host.get(colon + 1..)?;
    (!in_brackets && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())).then_some(colon)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(domains: &[String], host: &str) -> Option<u32> {
        let host = host.to_ascii_lowercase();
        let mut best: Option<(u8, usize, u32)> = None;
        for (at, domain) in domains.iter().enumerate() {
            let domain = domain.to_ascii_lowercase();
            let rank = if domain == "*" {
                (0, 0)
            } else if let Some(suffix) = domain.strip_prefix('*') {
                if !(host.ends_with(suffix) && host.len() > suffix.len()) {
                    continue;
                }
                (2, suffix.len())
            } else if let Some(prefix) = domain.strip_suffix('*') {
                if !(host.starts_with(prefix) && host.len() > prefix.len()) {
                    continue;
                }
                (1, prefix.len())
            } else if domain == host {
                (3, 0)
            } else {
                continue;
            };
            if best.is_none_or(|(kind, length, _)| rank > (kind, length)) {
                best = Some((rank.0, rank.1, u32::try_from(at).unwrap()));
            }
        }
        best.map(|(_, _, at)| at)
    }

    proptest! {
        #[test]
        fn the_index_finds_what_a_scan_finds(
            domains in prop::collection::btree_set("(\\*|\\*\\.[ab]{1,2}|[ab]{1,2}\\.\\*|[abA]{1,2}(\\.[ab]{1,2}){0,2}(:8)?)", 0..12),
            hosts in prop::collection::vec("[abA]{1,2}(\\.[ab]{1,2}){0,3}(:8)?", 1..8),
        ) {
            let mut index = HostIndex::default();
            let mut kept = Vec::new();
            for domain in domains {
                if index.clone().put(&domain, 0).is_ok() {
                    index.put(&domain, u32::try_from(kept.len()).unwrap()).unwrap();
                    kept.push(domain);
                }
            }
            for host in hosts {
                prop_assert_eq!(index.find(&host), naive(&kept, &host), "{:?} in {:?}", host, kept);
            }
        }
    }

    #[test]
    fn the_same_domain_twice_is_refused() {
        let mut index = HostIndex::default();
        for domain in ["*", "a.b", "*.b", "a.*"] {
            index.put(domain, 0).unwrap();
            assert_eq!(index.put(&domain.to_uppercase(), 1), Err(DuplicateDomain(domain.to_uppercase())));
        }
    }

    #[test]
    fn ports_are_found() {
        for (host, bare) in
            [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a:", "a:"), ("a:b", "a:b")]
        {
            assert_eq!(without_port(host), bare);
        }
    }
}
