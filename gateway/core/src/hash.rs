//! Owns how parts of a request become the one number that consistent hashing places by.
//!
//! Never looks at a request itself: the caller finds header, cookie, parameter and address. Results are those of Envoy,
//! so that a client keeps its server when a gateway takes Envoy's place. Used by the router and by `balance`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use xxhash_rust::xxh64::xxh64;

/// Hash of one value: header, cookie, query parameter.
#[inline]
#[must_use]
pub fn text(value: &[u8]) -> u64 {
    xxh64(value, 0)
}

/// Hash of a header that may occur several times: the order of occurrence does not matter. `None` without a value.
#[must_use]
pub fn header<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<u64> {
    let mut values: smallvec::SmallVec<[&[u8]; 4]> = values.collect();
    values.sort_unstable();
    values.into_iter().fold(None, |seed, value| Some(xxh64(value, seed.unwrap_or(0))))
}

/// Hash of the client's address, without its port.
#[must_use]
pub fn address(ip: IpAddr) -> u64 {
    // Longest text of an address: 45 bytes.
    let mut text = StackText::<64>::default();
    let _ = write!(text, "{ip}");
    xxh64(text.bytes(), 0)
}

/// What a cookie that does not exist yet will say, and its hash: it is derived from both ends of the connection, so every
/// request of this connection gets the same one before the client sends it back.
#[must_use]
pub fn generated_cookie(remote: SocketAddr, local: SocketAddr) -> (String, u64) {
    let mut ends = StackText::<128>::default();
    let _ = write!(ends, "{remote}{local}");
    let value = format!("{:016x}", xxh64(ends.bytes(), 0));
    let hash = text(value.as_bytes());
    (value, hash)
}

/// The `set-cookie` value of a generated cookie. `ttl` in seconds, 0 for a session; attributes as `(name, value)`, an empty
/// value for a bare name.
#[must_use]
pub fn set_cookie(name: &str, value: &str, ttl: u64, path: &str, attributes: &[(String, String)]) -> String {
    let mut cookie = format!("{name}=\"{value}\"");
    if ttl > 0 {
        let _ = write!(cookie, "; Max-Age={ttl}");
    }
    if !path.is_empty() {
        let _ = write!(cookie, "; Path={path}");
    }
    for (name, value) in attributes {
        let _ = if value.is_empty() { write!(cookie, "; {name}") } else { write!(cookie, "; {name}={value}") };
    }
    cookie.push_str("; HttpOnly");
    cookie
}

/// Combines the results of a route's hash policies, in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Combined(Option<u64>);

impl Combined {
    /// Takes the result of the next policy; `None` means that it found nothing to hash. Returns whether evaluation ends
    /// here, which a terminal policy asks for once there is any hash.
    #[must_use]
    pub fn add(&mut self, found: Option<u64>, terminal: bool) -> bool {
        if let Some(found) = found {
            self.0 = Some(self.0.map_or(0, |old| old.rotate_left(1)) ^ found);
        }
        terminal && self.0.is_some()
    }

    /// The hash to place by; `None`: place at random.
    #[must_use]
    pub fn hash(self) -> Option<u64> {
        self.0
    }
}

/// Text in a fixed buffer; what does not fit is cut.
struct StackText<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for StackText<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> StackText<N> {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> std::fmt::Write for StackText<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let taken = text.len().min(room.len());
        room[..taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_headers_hash_the_same_in_any_order() {
        let one = header([&b"a"[..], b"b"].into_iter());
        assert_eq!(one, header([&b"b"[..], b"a"].into_iter()));
        assert_eq!(one, Some(xxh64(b"b", xxh64(b"a", 0))));
        assert_eq!(header(std::iter::empty()), None);
        assert_eq!(header([&b"x"[..]].into_iter()), Some(text(b"x")));
    }

    #[test]
    fn policies_combine_by_rotation_and_stop_at_a_terminal_one() {
        let mut hash = Combined::default();
        assert!(!hash.add(None, true), "a terminal policy that found nothing does not stop");
        assert!(!hash.add(Some(0x8000_0000_0000_0001), false));
        assert!(hash.add(Some(1), true));
        assert_eq!(hash.hash(), Some(3 ^ 1));
        assert_eq!(Combined::default().hash(), None);
    }

    #[test]
    fn addresses_hash_as_text_without_port() {
        assert_eq!(address("127.0.0.1".parse().unwrap()), xxh64(b"127.0.0.1", 0));
        assert_eq!(address("::1".parse().unwrap()), xxh64(b"::1", 0));
    }

    #[test]
    fn a_generated_cookie_is_stable_for_a_connection() {
        let (remote, local) = ("10.0.0.1:5000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let (value, hash) = generated_cookie(remote, local);
        assert_eq!(value, format!("{:016x}", xxh64(b"10.0.0.1:500010.0.0.2:80", 0)));
        assert_eq!(hash, text(value.as_bytes()));
        let attributes = [("SameSite".to_owned(), "Lax".to_owned()), ("Secure".to_owned(), String::new())];
        assert_eq!(
            set_cookie("s", "v", 9, "/", &attributes),
            "s=\"v\"; Max-Age=9; Path=/; SameSite=Lax; Secure; HttpOnly"
        );
        assert_eq!(set_cookie("s", "v", 0, "", &[]), "s=\"v\"; HttpOnly");
    }
}
