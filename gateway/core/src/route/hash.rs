//! The hash of a request for consistent hashing. Every bit counts: the same request must land where Envoy would put it.

use super::{matching, replace_all};
use crate::{
    config::{HashPolicy, HashSource},
    head::{ConnInfo, Head, split_query},
    request::Caller,
};
use http::HeaderValue;
use smallvec::SmallVec;
use std::{fmt::Write as _, time::Duration};
use xxhash_rust::xxh64::xxh64;

/// A hash and the cookies that were made on the way.
#[derive(Debug, Clone, Default)]
pub struct Hashed {
    /// `None`: nothing to hash.
    pub hash: Option<u64>,
    /// For `set-cookie`.
    pub cookies: SmallVec<[HeaderValue; 1]>,
}

/// Hashes what the policies say.
#[must_use]
pub fn hash_request(policies: &[HashPolicy], head: &Head, conn: &ConnInfo, caller: Caller) -> Hashed {
    let mut hashed = Hashed::default();
    for policy in policies {
        let fresh = one(&policy.source, head, conn, caller, &mut hashed.cookies);
        if let Some(fresh) = fresh {
            // Turning keeps two equal values from cancelling each other out.
            hashed.hash = Some(hashed.hash.map_or(0, |before| before.rotate_left(1)) ^ fresh);
        }
        if policy.terminal && hashed.hash.is_some() {
            break;
        }
    }
    hashed
}

fn one(
    source: &HashSource,
    head: &Head,
    conn: &ConnInfo,
    caller: Caller,
    made: &mut SmallVec<[HeaderValue; 1]>,
) -> Option<u64> {
    match source {
        HashSource::Header(name, rewrite) => {
            let mut values: SmallVec<[&[u8]; 2]> =
                head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            if values.is_empty() && *name == http::header::HOST {
                values.push(head.authority.as_bytes());
            }
            if values.is_empty() {
                return None;
            }
            values.sort_unstable();
            Some(values.iter().fold(0, |seed, value| match rewrite {
                Some(rewrite) => xxh64(replace_all(rewrite, &String::from_utf8_lossy(value)).as_bytes(), seed),
                None => xxh64(value, seed),
            }))
        }
        HashSource::Cookie { name, ttl, path, attributes } => {
            if let Some(value) = matching::cookie_value(name, &head.headers).filter(|value| !value.is_empty()) {
                return Some(xxh64(value.as_bytes(), 0));
            }
            let value = fresh_cookie(conn);
            made.extend(set_cookie(name, &value, (*ttl)?, path, attributes));
            Some(xxh64(value.as_bytes(), 0))
        }
        HashSource::SourceIp => caller.address.map(|address| xxh64(address.ip().to_string().as_bytes(), 0)),
        HashSource::Query(name) => {
            let value = matching::query_value(name, split_query(&head.path).1)?;
            Some(xxh64(value.as_bytes(), 0))
        }
    }
}

/// The value of a made cookie: from the connection's addresses, so that it stays the same on one connection.
fn fresh_cookie(conn: &ConnInfo) -> String {
    let text = |address: Option<std::net::SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    format!("{:016x}", xxh64(format!("{}{}", text(conn.remote), text(conn.local)).as_bytes(), 0))
}

fn set_cookie(
    name: &str,
    value: &str,
    ttl: Duration,
    path: &str,
    attributes: &[(Box<str>, Box<str>)],
) -> Option<HeaderValue> {
    let mut out = format!("{name}=\"{value}\"");
    // Writing to a string cannot fail.
    if !ttl.is_zero() {
        let _ = write!(out, "; Max-Age={}", ttl.as_secs());
    }
    if !path.is_empty() {
        let _ = write!(out, "; Path={path}");
    }
    for (key, value) in attributes {
        let _ = if value.is_empty() { write!(out, "; {key}") } else { write!(out, "; {key}={value}") };
    }
    out.push_str("; HttpOnly");
    HeaderValue::try_from(out).ok()
}
