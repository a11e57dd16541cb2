//! Owns what an answer to a check says.
//!
//! Pure: heads, statuses and bytes in, a finding out.

use super::Finding;
use crate::config::{HealthCheckKind, StringMatcher};
use bytes::Bytes;
use http::HeaderMap;

/// A head that asks to be taken after others.
const DEGRADED: &str = "x-envoy-degraded";
/// The name by which a server says which service it is.
const SERVICE: &str = "x-envoy-upstream-healthchecked-cluster";

/// An HTTP answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// As much of the body as is looked at.
    pub body: &'a [u8],
}

/// What an HTTP answer says. Settings of another kind find everything good.
#[must_use]
pub fn http_answer(settings: &HealthCheckKind, answer: &Answer<'_>) -> Finding {
    let HealthCheckKind::Http { expected, retriable, service, receive, .. } = settings else {
        return Finding::Healthy;
    };
    let within = |ranges: &[(u16, u16)]| ranges.iter().any(|(from, to)| (*from..*to).contains(&answer.status));
    let good = if expected.is_empty() { answer.status == 200 } else { within(expected) };
    if !good {
        return if within(retriable) { Finding::Unready } else { Finding::Unhealthy };
    }
    if !received(receive, answer.body) || !service.as_ref().is_none_or(|service| is_service(service, answer.headers)) {
        return Finding::Unhealthy;
    }
    if answer.headers.contains_key(DEGRADED) { Finding::Degraded } else { Finding::Healthy }
}

fn is_service(service: &StringMatcher, headers: &HeaderMap) -> bool {
    let told = headers.get(SERVICE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    service.fits(told.as_bytes())
}

/// What a gRPC answer says: the status of the call, and the first message of its body with its five bytes in front.
#[must_use]
pub fn grpc_answer(status: Option<u16>, body: &[u8]) -> Finding {
    const SERVING: u64 = 1;
    if status != Some(0) {
        return Finding::Unhealthy;
    }
    let message = match body {
        [0, a, b, c, d, rest @ ..] => rest.get(..u32::from_be_bytes([*a, *b, *c, *d]) as usize),
        _ => None,
    };
    match message.map(serving_status) {
        Some(Some(SERVING)) => Finding::Healthy,
        _ => Finding::Unhealthy,
    }
}

/// Field 1 of a message that has no other known one, as a number; absent means 0.
fn serving_status(message: &[u8]) -> Option<u64> {
    let mut found = 0;
    let mut rest = message;
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        match key & 7 {
            0 => {
                let value = number(&mut rest)?;
                if key >> 3 == 1 {
                    found = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(found)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Whether these pieces are found in this order.
#[must_use]
pub fn received(pieces: &[Bytes], mut bytes: &[u8]) -> bool {
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let Some(at) = bytes.windows(piece.len()).position(|window| window == piece) else { return false };
        bytes = &bytes[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HeaderChanges, StringMatch};
    use proptest::prelude::*;

    fn http(expected: &[(u16, u16)], retriable: &[(u16, u16)], service: Option<&str>) -> HealthCheckKind {
        HealthCheckKind::Http {
            host: "".into(),
            path: "/".into(),
            method: http::Method::GET,
            http2: false,
            expected: expected.into(),
            retriable: retriable.into(),
            headers: HeaderChanges::default(),
            service: service
                .map(|prefix| StringMatcher { kind: StringMatch::Prefix(prefix.into()), ignore_case: false }),
            receive: Box::default(),
            body_limit: 0,
        }
    }

    fn found(settings: &HealthCheckKind, status: u16, header: Option<(&'static str, &str)>) -> Finding {
        let headers: HeaderMap =
            header.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        http_answer(settings, &Answer { status, headers: &headers, body: b"" })
    }

    #[test]
    fn statuses() {
        let plain = http(&[], &[], None);
        assert_eq!(found(&plain, 200, None), Finding::Healthy);
        assert_eq!(found(&plain, 204, None), Finding::Unhealthy);
        let ranges = http(&[(200, 300)], &[(500, 504)], None);
        assert_eq!(found(&ranges, 299, None), Finding::Healthy);
        assert_eq!(found(&ranges, 300, None), Finding::Unhealthy);
        assert_eq!(found(&ranges, 503, None), Finding::Unready);
        assert_eq!(found(&plain, 200, Some((DEGRADED, ""))), Finding::Degraded);
    }

    #[test]
    fn the_service_must_be_the_right_one() {
        let named = http(&[], &[], Some("locations"));
        assert_eq!(found(&named, 200, None), Finding::Unhealthy);
        assert_eq!(found(&named, 200, Some((SERVICE, "locations-production"))), Finding::Healthy);
        assert_eq!(found(&named, 200, Some((SERVICE, "api"))), Finding::Unhealthy);
    }

    #[test]
    fn grpc() {
        assert_eq!(grpc_answer(Some(0), b"\0\0\0\0\x02\x08\x01"), Finding::Healthy);
        assert_eq!(grpc_answer(Some(0), b"\0\0\0\0\x02\x08\x02"), Finding::Unhealthy);
        assert_eq!(grpc_answer(Some(0), b"\0\0\0\0\0"), Finding::Unhealthy);
        assert_eq!(grpc_answer(Some(12), b"\0\0\0\0\x02\x08\x01"), Finding::Unhealthy);
        assert_eq!(grpc_answer(None, b""), Finding::Unhealthy);
    }

    #[test]
    fn pieces_in_order() {
        let pieces = [Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        assert!(received(&pieces, b"xxabyycz"));
        assert!(!received(&pieces, b"xxcyyab"));
        assert!(received(&[], b""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(body: Vec<u8>, status: Option<u16>) {
            let _ = grpc_answer(status, &body);
            let _ = serving_status(&body);
        }
    }
}
