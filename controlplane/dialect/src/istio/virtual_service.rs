//! Owns VirtualService as a whole: hosts, where it is in force, and its three lists of rules.

use super::{backend, http_action, tcp};
use crate::{code, common, fields::Fields, object::Head, read::Yield};
use tombolo_controlplane_core::intent::{Attachment, Intent, Precedence, Routes};
use tombolo_federation_model::Host;

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let hosts = hosts(&spec, head);
    let mut attachments = backend::attachments(&spec, head);
    let delegate = !spec.present("hosts");
    if delegate && !attachments.is_empty() {
        object.at.error(
            code::CONFLICTING_FIELDS,
            "a VirtualService without hosts is a delegate and takes its gateways from the one that delegates; remove gateways or add hosts",
        );
    }
    if attachments.is_empty() && !delegate {
        attachments.push(Attachment::Mesh);
    }
    check_hosts(&spec, &hosts, &attachments);
    let http = spec.list("http").iter().map(|at| http_action::rule(at, head)).collect();
    let tls = tcp::tls_rules(&spec, head, &hosts);
    let routes = Routes {
        meta: head.meta(),
        export_to: common::export_to(spec.at("exportTo"), &head.namespace),
        precedence: Precedence::ObjectOrder,
        tls,
        tcp: tcp::tcp_rules(&spec, head),
        http,
        hosts,
        attachments,
    };
    if routes.http.is_empty() && routes.tls.is_empty() && routes.tcp.is_empty() {
        object.at.error(code::REQUIRED, "it has no rule; write at least one under spec.http, spec.tls or spec.tcp");
    }
    Intent::Routes(routes).into()
}

fn hosts(spec: &Fields<'_>, head: &Head) -> Vec<Host> {
    let Some(list) = spec.at("hosts") else { return Vec::new() };
    let list_of = list.list();
    if list_of.is_empty() {
        list.error(code::REQUIRED, "the list is empty; to match any host at a gateway write \"*\"");
    }
    list_of.iter().filter_map(|at| backend::host(at, head)).collect()
}

/// Hosts of one object must not overlap, and at the sidecars a rule must say which host it means.
fn check_hosts(spec: &Fields<'_>, hosts: &[Host], attachments: &[Attachment]) {
    let Some(list) = spec.at("hosts") else { return };
    let in_mesh = attachments.contains(&Attachment::Mesh);
    for (i, host) in hosts.iter().enumerate() {
        if in_mesh && host.as_str() == "*" {
            list.error(
                code::BAD_VALUE,
                "\"*\" is possible at gateways only; name a host, or remove \"mesh\" from gateways",
            );
        }
        if in_mesh && host.as_str().parse::<std::net::IpAddr>().is_ok() {
            let text = format!(
                "{host} is an address, which is possible at gateways only; name a host, or use tcp with destinationSubnets"
            );
            list.error(code::BAD_VALUE, text);
        }
        if let Some(other) = hosts[..i].iter().find(|other| other.overlaps(host)) {
            let text =
                format!("{other} and {host} overlap, so it is undefined which applies; keep one, or split the object");
            list.error(code::BAD_VALUE, text);
        }
    }
}
