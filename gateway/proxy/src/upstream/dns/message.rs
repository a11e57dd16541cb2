//! DNS on the wire: one question, and of the answer what says where a name is.
//!
//! Pure. Never believes an answer that is not to the question that was asked. Used by `stub`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// These addresses, for so long. None: the name does not exist or has none of the kind.
    Found(Vec<IpAddr>, Duration),
    /// It did not fit: ask by TCP.
    Truncated,
    /// The server cannot or will not say, with its code.
    Refused(u8),
}

const CNAME: u16 = 5;
const INTERNET: u16 = 1;
const HEADER: usize = 12;
/// Names that point to names that point to names.
const LONGEST_CHAIN: usize = 16;
/// A day: longer ones are a mistake or an attack.
const LONGEST_TTL: u32 = 86_400;

/// The bytes of a question. `None`: the name cannot be asked for.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER + name.len() + 6);
    out.extend_from_slice(&id.to_be_bytes());
    // One question, recursion desired.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&encoded(name)?);
    out.extend_from_slice(&kind.number().to_be_bytes());
    out.extend_from_slice(&INTERNET.to_be_bytes());
    Some(out)
}

fn encoded(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        if !label.is_ascii() {
            return None;
        }
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        out.push(length);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

/// Reads an answer to that question. `None`: it is another one's, or no message at all.
pub(super) fn reply(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Option<Reply> {
    let header = bytes.get(..HEADER)?;
    let number = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let answers_one = number(4) == 1;
    if number(0) != id || header[2] & 0x80 == 0 || !answers_one {
        return None;
    }
    let mut at = HEADER;
    let asked = read_name(bytes, &mut at)?;
    let (told_kind, class) = (read_u16(bytes, &mut at)?, read_u16(bytes, &mut at)?);
    let wanted = lower(name);
    if asked != wanted || told_kind != kind.number() || class != INTERNET {
        return None;
    }
    if header[2] & 0x02 != 0 {
        return Some(Reply::Truncated);
    }
    match header[3] & 0x0f {
        // No such name is an answer like any other.
        0 | 3 => records(bytes, at, number(6), wanted, kind),
        code => Some(Reply::Refused(code)),
    }
}

struct Record {
    owner: Vec<u8>,
    ttl: u32,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(Vec<u8>),
}

fn records(bytes: &[u8], mut at: usize, count: u16, wanted: Vec<u8>, kind: Kind) -> Option<Reply> {
    let mut known = Vec::new();
    for _ in 0..count {
        known.extend(record(bytes, &mut at, kind)?);
    }
    let (mut owner, mut ttl) = (wanted, LONGEST_TTL);
    for _ in 0..LONGEST_CHAIN {
        let of_owner = || known.iter().filter(|record| record.owner == owner);
        let addresses: Vec<IpAddr> = of_owner()
            .filter_map(|record| match record.data {
                Data::Address(address) => {
                    ttl = ttl.min(record.ttl);
                    Some(address)
                }
                Data::Alias(_) => None,
            })
            .collect();
        if !addresses.is_empty() {
            return Some(Reply::Found(addresses, Duration::from_secs(u64::from(ttl))));
        }
        let next = of_owner().find_map(|record| match &record.data {
            Data::Alias(name) => Some((name.clone(), record.ttl)),
            Data::Address(_) => None,
        });
        let Some((name, for_so_long)) = next else { break };
        ttl = ttl.min(for_so_long);
        owner = name;
    }
    Some(Reply::Found(Vec::new(), Duration::ZERO))
}

/// One record; the inner `None` for one of a kind that does not matter.
#[allow(clippy::option_option, reason = "the outer one is a message that breaks off")]
fn record(bytes: &[u8], at: &mut usize, kind: Kind) -> Option<Option<Record>> {
    let owner = read_name(bytes, at)?;
    let (told, class) = (read_u16(bytes, at)?, read_u16(bytes, at)?);
    let ttl = (u32::from(read_u16(bytes, at)?) << 16 | u32::from(read_u16(bytes, at)?)).min(LONGEST_TTL);
    let length = usize::from(read_u16(bytes, at)?);
    let start = *at;
    let data = bytes.get(start..start.checked_add(length)?)?;
    *at += length;
    if class != INTERNET {
        return Some(None);
    }
    let data = match (told, kind) {
        (1, Kind::A) => <[u8; 4]>::try_from(data).ok().map(|b| Data::Address(Ipv4Addr::from(b).into())),
        (28, Kind::Aaaa) => <[u8; 16]>::try_from(data).ok().map(|b| Data::Address(Ipv6Addr::from(b).into())),
        (CNAME, _) => {
            let mut inside = start;
            Some(Data::Alias(read_name(bytes, &mut inside)?))
        }
        _ => return Some(None),
    };
    Some(Some(Record { owner, ttl, data: data? }))
}

fn read_u16(bytes: &[u8], at: &mut usize) -> Option<u16> {
    let two = bytes.get(*at..*at + 2)?;
    *at += 2;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

/// A name in lower case, labels by dots. Pointers lead backwards only, so this ends.
fn read_name(bytes: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let (mut here, mut jumped) = (*at, false);
    loop {
        let length = usize::from(*bytes.get(here)?);
        match length >> 6 {
            0 if length == 0 => {
                if !jumped {
                    *at = here + 1;
                }
                return (name.len() < 256).then_some(name);
            }
            0 => {
                let label = bytes.get(here + 1..here + 1 + length)?;
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() > 255 {
                    return None;
                }
                here += 1 + length;
            }
            3 => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(here + 1)?);
                if !jumped {
                    *at = here + 2;
                }
                if target >= here {
                    return None;
                }
                (here, jumped) = (target, true);
            }
            _ => return None,
        }
    }
}

fn lower(name: &str) -> Vec<u8> {
    name.strip_suffix('.').unwrap_or(name).bytes().map(|b| b.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with these records behind the question; names in records are pointers to the question or written out.
    fn answer(id: u16, name: &str, kind: Kind, flags: [u8; 2], records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut out = question(id, name, kind).unwrap();
        (out[2], out[3]) = (0x80 | flags[0], flags[1]);
        out[7] = u8::try_from(records.len()).unwrap();
        for (owner, kind, ttl, data) in records {
            out.extend_from_slice(owner);
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&[0, 1]);
            out.extend_from_slice(&ttl.to_be_bytes());
            out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend_from_slice(data);
        }
        out
    }

    const SELF: &[u8] = &[0xc0, 12];

    #[test]
    fn addresses_and_the_shortest_time() {
        let bytes = answer(7, "a.test", Kind::A, [0, 0], &[(SELF, 1, 30, &[1, 2, 3, 4]), (SELF, 1, 20, &[5, 6, 7, 8])]);
        let found = vec!["1.2.3.4".parse().unwrap(), "5.6.7.8".parse().unwrap()];
        assert_eq!(reply(&bytes, 7, "A.test.", Kind::A), Some(Reply::Found(found, Duration::from_secs(20))));
        assert_eq!(reply(&bytes, 8, "a.test", Kind::A), None, "another question's number");
        assert_eq!(reply(&bytes, 7, "b.test", Kind::A), None, "another name");
        assert_eq!(reply(&bytes, 7, "a.test", Kind::Aaaa), None, "another kind");
    }

    #[test]
    fn aliases_are_followed_and_strangers_are_not() {
        let other = encoded("b.test").unwrap();
        let stranger = encoded("evil.test").unwrap();
        let records: &[(&[u8], u16, u32, &[u8])] =
            &[(SELF, CNAME, 5, &other), (&other, 1, 60, &[1, 1, 1, 1]), (&stranger, 1, 1, &[6, 6, 6, 6])];
        let bytes = answer(1, "a.test", Kind::A, [0, 0], records);
        let found = vec!["1.1.1.1".parse().unwrap()];
        assert_eq!(reply(&bytes, 1, "a.test", Kind::A), Some(Reply::Found(found, Duration::from_secs(5))));
    }

    #[test]
    fn what_is_no_address() {
        let none = answer(1, "a.test", Kind::A, [0, 3], &[]);
        assert_eq!(reply(&none, 1, "a.test", Kind::A), Some(Reply::Found(Vec::new(), Duration::ZERO)));
        let failed = answer(1, "a.test", Kind::A, [0, 2], &[]);
        assert_eq!(reply(&failed, 1, "a.test", Kind::A), Some(Reply::Refused(2)));
        let cut = answer(1, "a.test", Kind::A, [2, 0], &[]);
        assert_eq!(reply(&cut, 1, "a.test", Kind::A), Some(Reply::Truncated));
        assert!(question(1, &"x".repeat(64), Kind::A).is_none() && question(1, "a..b", Kind::A).is_none());
    }

    #[test]
    fn broken_messages_are_no_answers() {
        let whole = answer(1, "a.test", Kind::A, [0, 0], &[(SELF, 1, 30, &[1, 2, 3, 4])]);
        for cut in 0..whole.len() {
            assert_eq!(reply(&whole[..cut], 1, "a.test", Kind::A), None, "cut at {cut}");
        }
        // A name that points to itself.
        let looped = answer(1, "a.test", Kind::A, [0, 0], &[(&[0xc0, 24], 1, 30, &[1, 2, 3, 4])]);
        assert_eq!(reply(&looped, 1, "a.test", Kind::A), None);
        let mut random = tombolo_gateway_core::time::Random::new(3);
        for _ in 0..2000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.draw() as u8;
            }
            let _ = reply(&bytes, 1, "a.test", Kind::A);
        }
    }
}
