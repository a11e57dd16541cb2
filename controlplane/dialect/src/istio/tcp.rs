//! Owns rules for connections that are not HTTP: TLS that is passed through, and plain bytes.

use super::backend;
use crate::{
    code,
    fields::{At, Fields},
    object::Head,
};
use tombolo_controlplane_core::intent::{TcpMatch, TcpRule, TlsMatch, TlsRule};
use tombolo_federation_model::Host;

pub(crate) fn tls_rules(spec: &Fields<'_>, head: &Head, hosts: &[Host]) -> Vec<TlsRule> {
    let rule = |at: &At<'_>| {
        let fields = at.fields();
        let matches: Vec<_> = fields.list("match").iter().filter_map(|at| tls_match(at, head, hosts)).collect();
        if matches.is_empty() {
            at.error(
                code::REQUIRED,
                "a TLS rule needs match with sniHosts, because nothing else of the request is visible",
            );
        }
        TlsRule { field: at.path.clone(), matches, backends: backend::tcp_backends(&fields, head) }
    };
    spec.list("tls").iter().map(rule).collect()
}

fn tls_match(at: &At<'_>, head: &Head, hosts: &[Host]) -> Option<TlsMatch> {
    let fields = at.fields();
    let list = fields.need("sniHosts")?;
    let mut sni_hosts = Vec::new();
    for at in list.list() {
        // The object's hosts were completed to services; a server name stays what clients send.
        let (Some(host), Some(full)) = (at.host(), backend::host(&at, head)) else { continue };
        if !hosts.is_empty() && !hosts.iter().any(|of_object| of_object.covers(&full)) {
            let hosts: Vec<_> = hosts.iter().map(Host::as_str).collect();
            at.error(
                code::BAD_VALUE,
                format!("{host} is not among the object's hosts ({}); add it there", hosts.join(", ")),
            );
        }
        sni_hosts.push(host);
    }
    let connection = connection(&fields, head);
    (!sni_hosts.is_empty()).then_some(TlsMatch { sni_hosts, connection })
}

pub(crate) fn tcp_rules(spec: &Fields<'_>, head: &Head) -> Vec<TcpRule> {
    let rule = |at: &At<'_>| {
        let fields = at.fields();
        let conditions = |at: &At<'_>| {
            let fields = at.fields();
            if let Some(at) = fields.at("sourceSubnet") {
                at.error(
                    code::NOT_ENFORCED,
                    "conditions on the client's address are not supported; use sourceLabels or sourceNamespace",
                );
            }
            connection(&fields, head)
        };
        let matches = fields.list("match").iter().map(conditions).collect();
        TcpRule { field: at.path.clone(), matches, backends: backend::tcp_backends(&fields, head) }
    };
    spec.list("tcp").iter().map(rule).collect()
}

fn connection(fields: &Fields<'_>, head: &Head) -> TcpMatch {
    TcpMatch {
        destination_subnets: backend::subnets(fields, "destinationSubnets"),
        port: fields.port("port"),
        source_labels: fields.labels("sourceLabels"),
        source_namespace: fields.namespace("sourceNamespace"),
        attachments: backend::attachments(fields, head),
    }
}
