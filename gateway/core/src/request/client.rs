//! Who the client is: the peer, or whom trusted proxies in front say it is.

use super::{Caller, Node, append, set_text};
use crate::{
    config::{Hcm, InternalAddresses},
    head::{ConnInfo, Head},
    names::{self, Present},
};
use http::{HeaderMap, HeaderValue};
use std::net::{IpAddr, SocketAddr};

pub(super) fn identify(hcm: &Hcm, node: &Node, conn: &ConnInfo, present: Present, head: &mut Head) -> Caller {
    let (told, may_be_internal) = if hcm.use_remote_address {
        let single = !head.headers.contains_key(names::X_FORWARDED_FOR);
        let told =
            hcm.trusted_hops.checked_sub(1).and_then(|skip| last_forwarded(&head.headers, skip)).map(|(ip, _)| ip);
        forward_for(hcm, node, conn, head);
        (told.map(at_no_port).or(conn.remote), single)
    } else if present.has(Present::FORWARDED_FOR)
        && let Some((ip, single)) = last_forwarded(&head.headers, hcm.trusted_hops)
    {
        (Some(at_no_port(ip)), single)
    } else {
        (None, false)
    };
    let internal = may_be_internal && is_internal(&hcm.internal, told, conn);
    Caller { address: told.or(conn.remote), internal, edge: !internal && hcm.use_remote_address }
}

fn at_no_port(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 0)
}

fn is_internal(settings: &InternalAddresses, address: Option<SocketAddr>, conn: &ConnInfo) -> bool {
    match address {
        Some(address) => settings.ranges.iter().any(|range| range.contains(&address.ip())),
        None => conn.unix && settings.unix_sockets,
    }
}

/// Appends the peer to `x-forwarded-for` and tells the port that it came to.
fn forward_for(hcm: &Hcm, node: &Node, conn: &ConnInfo, head: &mut Head) {
    if !hcm.skip_xff_append
        && let Some(peer) = conn.remote_ip()
    {
        // A loopback address would mean nothing to those behind us.
        let shown = if peer.is_loopback() { node.address } else { peer };
        append(&mut head.headers, names::X_FORWARDED_FOR, shown.to_string().as_bytes(), b",");
    }
    if hcm.append_x_forwarded_port
        && let Some(local) = conn.local
        && (hcm.trusted_hops == 0 || !head.headers.contains_key(names::X_FORWARDED_PORT))
    {
        set_text(&mut head.headers, names::X_FORWARDED_PORT, &local.port().to_string());
    }
}

/// The address in `x-forwarded-for`, counted from the right, and whether it is the only one.
fn last_forwarded(headers: &HeaderMap, skip: u32) -> Option<(IpAddr, bool)> {
    let all = joined(headers)?;
    let mut rest = all.as_str();
    for _ in 0..skip {
        rest = rest.rsplit_once(',')?.0;
    }
    let (more, last) = match rest.rsplit_once(',') {
        Some((_, last)) => (true, last),
        None => (false, rest),
    };
    Some((last.trim().parse().ok()?, !more && skip == 0))
}

fn joined(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(names::X_FORWARDED_FOR).iter().map(HeaderValue::to_str);
    let mut all = values.next()?.ok()?.to_owned();
    for value in values {
        all.push(',');
        all.push_str(value.ok()?);
    }
    Some(all)
}
