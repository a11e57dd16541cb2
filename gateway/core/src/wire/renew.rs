//! A route table of which one virtual host among many changed: what came before is used again for the others.
//!
//! A control plane sends a table whole whatever changed in it. Hosts whose bytes are the same are the same, so that only the others
//! are decoded. Gives up, and leaves the work to the usual way, wherever anything is unusual.

use super::{
    any,
    route::{most_body, virtual_host},
    split::{Split, split},
};
use crate::{
    config::{RouteTable, VirtualHost},
    route::hosts::HostIndex,
};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use std::sync::Arc;
use tombolo_controlplane_api::xds::envoy::config::route::v3 as pb;

/// Number of the field of virtual hosts in a table, and of domains in a virtual host.
const HOSTS: u32 = 2;
const DOMAINS: u32 = 2;

/// A version that is in use: its bytes, and what was made of them.
#[derive(Debug, Clone)]
pub struct Earlier<'b> {
    /// The bytes.
    pub body: &'b [u8],
    /// The table.
    pub table: Arc<RouteTable>,
}

/// The table of a new version, if it is the earlier one but for some hosts.
pub(super) fn renewed(body: &[u8], earlier: &Earlier<'_>) -> Option<RouteTable> {
    let (new, old) = (split(body, HOSTS).ok()?, split(earlier.body, HOSTS).ok()?);
    if new.rest != old.rest || old.items.len() != earlier.table.hosts.len() {
        return None;
    }
    let most_body = most_body(new.message::<pb::RouteConfiguration>().ok()?.max_direct_response_body_size_bytes);
    let pairs = Pairs::new(&new, &old);
    let mut same_domains = new.items.len() == old.items.len();
    let mut hosts: Vec<VirtualHost> = Vec::with_capacity(new.items.len());
    for (at, item) in new.items.iter().enumerate() {
        let before = pairs.before(at);
        match before.filter(|before| old.items.get(*before) == Some(item)) {
            Some(before) => hosts.push(earlier.table.hosts.get(before)?.clone()),
            None => {
                same_domains = same_domains && domains(item)? == domains(old.items.get(before?)?)?;
                hosts.push(virtual_host(any::decode(item).ok()?, most_body).ok()?);
            }
        }
    }
    let index = if same_domains { earlier.table.index.clone() } else { index(&new.items)? };
    Some(RouteTable { hosts: hosts.into(), index, more: None, ..(*earlier.table).clone() })
}

/// Which items of two lists belong together: those at the same place, counted from the nearer end when some were put in or taken out.
struct Pairs {
    new: usize,
    old: usize,
    first: usize,
    last: usize,
}

impl Pairs {
    fn new(new: &Split<'_>, old: &Split<'_>) -> Self {
        let equal = |(a, b): &(&&[u8], &&[u8])| a == b;
        let first = new.items.iter().zip(&old.items).take_while(equal).count();
        let last = new.items.iter().rev().zip(old.items.iter().rev()).take_while(equal).count();
        Self { new: new.items.len(), old: old.items.len(), first, last }
    }

    fn before(&self, at: usize) -> Option<usize> {
        if at < self.first || self.new == self.old {
            return Some(at);
        }
        if at >= self.new - self.last {
            (at + self.old).checked_sub(self.new)
        } else {
            Some(at).filter(|at| *at < self.old)
        }
    }
}

/// The domains of an encoded virtual host.
fn domains(mut item: &[u8]) -> Option<Vec<&str>> {
    let mut out = Vec::new();
    while !item.is_empty() {
        let (number, kind) = decode_key(&mut item).ok()?;
        if number == DOMAINS && kind == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut item).ok()?).ok()?;
            let (domain, rest) = item.split_at_checked(length)?;
            out.push(std::str::from_utf8(domain).ok()?);
            item = rest;
        } else {
            skip_field(kind, number, &mut item, DecodeContext::default()).ok()?;
        }
    }
    Some(out)
}

fn index(items: &[&[u8]]) -> Option<HostIndex> {
    let mut index = HostIndex::default();
    for (place, item) in items.iter().enumerate() {
        for domain in domains(item)? {
            index.put(domain, u32::try_from(place).ok()?).ok()?;
        }
    }
    index.shrink();
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{route_to, table_message},
        wire::{Kind, Resource, decode, decode_after},
    };
    use proptest::prelude::*;
    use prost::Message as _;

    fn message(hosts: &[(u8, u8)]) -> pb::RouteConfiguration {
        let host = |(name, cluster): &(u8, u8)| {
            let route = route_to(&format!("c{cluster}"), pb::route_match::PathSpecifier::Prefix("/".into()));
            table_message("t", &[&format!("h{name}"), &format!("*.h{name}")], vec![route]).virtual_hosts.remove(0)
        };
        pb::RouteConfiguration { virtual_hosts: hosts.iter().map(host).collect(), ..table_message("t", &[], vec![]) }
    }

    fn table(resource: Resource) -> Arc<RouteTable> {
        let Resource::Routes(table) = resource else { panic!("{resource:?}") };
        table
    }

    fn check(before: &[(u8, u8)], after: &[(u8, u8)]) {
        let (old, new) = (message(before).encode_to_vec(), message(after).encode_to_vec());
        let scratch = decode(Kind::Routes, "t", &new);
        let Ok(first) = decode(Kind::Routes, "t", &old).map(table) else { return };
        let earlier = Earlier { body: &old, table: first };
        match (decode_after(Kind::Routes, "t", &new, Some(&earlier)), scratch) {
            (Ok(made), Ok(scratch)) => {
                let (made, scratch) = (table(made), table(scratch));
                assert_eq!(made.hosts, scratch.hosts);
                for name in 0..8 {
                    for host in [format!("h{name}"), format!("x.h{name}"), "none".to_owned()] {
                        assert_eq!(made.find(&host), scratch.find(&host), "{host}");
                    }
                }
            }
            (made, scratch) => assert_eq!(made.err(), scratch.err()),
        }
    }

    #[test]
    fn one_host_changes_and_the_others_are_what_they_were() {
        let (old, new) = (message(&[(0, 0), (1, 0), (2, 0)]), message(&[(0, 0), (1, 1), (2, 0)]));
        let (old, new) = (old.encode_to_vec(), new.encode_to_vec());
        let first = table(decode(Kind::Routes, "t", &old).unwrap());
        let made =
            table(decode_after(Kind::Routes, "t", &new, Some(&Earlier { body: &old, table: first.clone() })).unwrap());
        let shared = |at: usize| Arc::ptr_eq(&made.hosts[at].routes[0], &first.hosts[at].routes[0]);
        assert_eq!([shared(0), shared(1), shared(2)], [true, false, true]);
    }

    proptest! {
        #[test]
        fn a_renewed_table_is_the_one_from_scratch(
            before in prop::collection::vec((0u8..8, 0u8..2), 0..6),
            after in prop::collection::vec((0u8..8, 0u8..2), 0..6),
        ) {
            check(&before, &after);
        }
    }
}
