//! Where a real Envoy 1.40 placed keys: hosts 127.0.0.1:21010 to 21013, header `x-k` from `k0` up.

use super::Request;
use super::tests::{NOW, endpoint, flat, picker, port, settings};
use crate::config::{Endpoint, LbPolicy, MaglevSettings, RingHash, RingHashFunction};
use crate::hash;

fn hosts(first_weight: u32) -> Vec<Endpoint> {
    (21010..21014)
        .map(|port| Endpoint { weight: if port == 21010 { first_weight } else { 1 }, ..endpoint(port) })
        .collect()
}

fn ring(minimum_size: u64) -> LbPolicy {
    LbPolicy::RingHash(RingHash { minimum_size, maximum_size: 8 << 20, function: RingHashFunction::XxHash })
}

/// The hosts for these hashes, as the last digits of their ports.
fn placed(policy: LbPolicy, first_weight: u32, hashes: impl Iterator<Item = u64>) -> String {
    let mut picker = picker(&flat(hosts(first_weight)), &settings(policy));
    hashes
        .map(|hash| {
            let index = picker.pick(&Request { hash: Some(hash), ..Request::default() }, 0, NOW).unwrap();
            char::from(b'0' + (port(&picker, index) - 21010) as u8)
        })
        .collect()
}

fn keys(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(|key| hash::text(format!("k{key}").as_bytes()))
}

#[test]
fn keys_are_where_envoy_puts_them() {
    assert_eq!(placed(ring(128), 1, keys(24)), "103132300331211013111101");
    assert_eq!(placed(ring(64), 3, keys(8)), "10030030");
    assert_eq!(placed(LbPolicy::Maglev(MaglevSettings { table_size: 251 }), 1, keys(24)), "133133102301131020002331");
}

#[test]
fn hash_policies_lead_where_envoy_leads() {
    let header = hash::header([&b"a"[..], b"b"].into_iter());
    let found = [
        Some(hash::text(b"zed")),
        Some(hash::address([127, 0, 0, 1].into())),
        Some(hash::text(b"abc")),
        Some(hash::text(b"zz")),
        header,
    ];
    assert_eq!(placed(ring(128), 1, found.into_iter().flatten()), "30312");
}
