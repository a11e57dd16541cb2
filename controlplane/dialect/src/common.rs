//! Owns what several families share: export lists, well-known labels and annotations, ports. Never knows a whole object.

use crate::{
    code,
    fields::{At, Fields},
    object::Head,
};
use std::collections::BTreeMap;
use tombolo_controlplane_core::intent::Selector;
use tombolo_federation_model::{Labels, Locality, Namespace, NetworkId, Protocol, TargetPort, TlsMode, Visibility};

pub(crate) const NETWORK: &str = "topology.istio.io/network";
const SUBZONE: &str = "topology.istio.io/subzone";
const ISTIO_LOCALITY: &str = "istio-locality";
const REGIONS: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
const ZONES: [&str; 2] = ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];
const TLS_MODE: &str = "security.istio.io/tlsMode";
const SERVED_PORTS: &str = "tombolo.io/served-ports";
const INJECT: &str = "sidecar.istio.io/inject";

/// A complaint about metadata, which has no cursor because the head is read first.
pub(crate) fn metadata_error(object: &Fields<'_>, field: &str, message: String) {
    let line = object.at.node.get("metadata").map_or(object.at.node.line, |m| m.line);
    object.at.sink.report(tombolo_federation_model::Severity::Error, code::BAD_VALUE, field, line, message);
}

/// An `exportTo` list. Absent means everybody.
pub(crate) fn export_to(list: Option<At<'_>>, own: &Namespace) -> Visibility {
    let Some(list) = list else { return Visibility::All };
    let words: Vec<_> = list.list().iter().filter_map(At::str).collect();
    match visibility(&words, own) {
        Ok(visibility) => visibility,
        Err(reason) => {
            list.error(code::BAD_VALUE, reason);
            Visibility::Nobody
        }
    }
}

/// `.` is the own namespace, `*` all, `~` none; others are names.
pub(crate) fn visibility(words: &[&str], own: &Namespace) -> Result<Visibility, String> {
    match words {
        [] | ["*"] => return Ok(Visibility::All),
        ["~"] => return Ok(Visibility::Nobody),
        _ => {}
    }
    if words.contains(&"*") || words.contains(&"~") {
        return Err("\"*\" and \"~\" must stand alone; keep one of them, or list namespaces".to_owned());
    }
    if words.contains(&".") && words.contains(&own.as_str()) {
        return Err(format!("\".\" and {:?} are the same namespace; keep one", own.as_str()));
    }
    let parse = |word: &&str| match *word {
        "." => Ok(own.clone()),
        name => Namespace::parse(name).map_err(|e| e.to_string()),
    };
    Ok(Visibility::Only(words.iter().map(parse).collect::<Result<_, _>>()?))
}

/// A label selector of the form `matchLabels`; empty and absent are the same.
pub(crate) fn match_labels(selector: Option<Fields<'_>>) -> Option<Selector> {
    let selector = selector?;
    if let Some(expressions) = selector.at("matchExpressions") {
        expressions.error(code::BAD_VALUE, "expressions are not supported here; write matchLabels");
    }
    let labels = selector.labels("matchLabels");
    (!labels.is_empty()).then_some(labels)
}

/// The place that labels tell.
pub(crate) fn locality(labels: &Labels) -> Option<Locality> {
    // A workload may override its node's place; dots stand for slashes because a label value cannot hold a slash.
    if let Some(text) = labels.get(ISTIO_LOCALITY) {
        return Some(Locality::parse(&text.replace('.', "/")));
    }
    let first = |keys: [&str; 2]| keys.iter().find_map(|key| labels.get(*key)).cloned();
    let region = first(REGIONS)?;
    let subzone = labels.get(SUBZONE).cloned().unwrap_or_default();
    Some(Locality { region, zone: first(ZONES).unwrap_or_default(), subzone })
}

/// The network that a label tells.
pub(crate) fn network(labels: &Labels, object: &Fields<'_>) -> Option<NetworkId> {
    let text = labels.get(NETWORK).filter(|text| !text.is_empty())?;
    match NetworkId::parse(text) {
        Ok(network) => Some(network),
        Err(reason) => {
            metadata_error(object, &format!("metadata.labels[{NETWORK:?}]"), reason.to_string());
            None
        }
    }
}

/// What the address of a workload can do on the wire, as the label tells that its sidecar sets.
pub(crate) fn tls_mode(labels: &Labels) -> TlsMode {
    match labels.get(TLS_MODE).map(String::as_str) {
        Some("istio") => TlsMode::Mutual,
        _ => TlsMode::Disabled,
    }
}

/// Whether a sidecar is wanted; the label wins over the annotation.
pub(crate) fn wants_sidecar(labels: &Labels, annotations: &Labels) -> bool {
    labels.get(INJECT).or_else(|| annotations.get(INJECT)).is_none_or(|text| text != "false")
}

/// `80=10080,443=10443`: the numbers that others know, and those that are served.
pub(crate) fn served_ports(head: &Head, object: &Fields<'_>) -> BTreeMap<u16, u16> {
    let Some(text) = head.annotations.get(SERVED_PORTS) else { return BTreeMap::new() };
    let pair = |part: &str| {
        let (known, served) = part.split_once('=')?;
        Some((port_number(known)?, port_number(served)?))
    };
    let pairs: Option<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect();
    pairs.unwrap_or_else(|| {
        let field = format!("metadata.annotations[{SERVED_PORTS:?}]");
        metadata_error(object, &field, format!("{text:?} is no list like \"80=10080,443=10443\""));
        BTreeMap::new()
    })
}

fn port_number(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|port| *port != 0)
}

/// A port by number, by number as text, or by name.
pub(crate) fn target_port(at: &At<'_>) -> Option<TargetPort> {
    let text = at.str()?;
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return at.port().map(TargetPort::Number);
    }
    Some(TargetPort::Name(text.to_owned()))
}

/// Ports whose server usually speaks first: looking at the first bytes would wait for a client that waits too.
const SERVER_FIRST: [u16; 4] = [25, 53, 3306, 27017];

/// What is spoken on a port: `appProtocol`, else the begin of the name, else what is known of the number.
pub(crate) fn port_protocol(transport: &str, app: Option<&str>, name: &str, number: u16) -> Protocol {
    if transport.eq_ignore_ascii_case("UDP") || transport.eq_ignore_ascii_case("SCTP") {
        return Protocol::Udp;
    }
    let said = app.and_then(Protocol::parse).or_else(|| Protocol::from_port_name(name));
    // On a TCP port a name that begins with udp cannot mean datagrams.
    match said {
        Some(Protocol::Udp) => Protocol::Tcp,
        Some(protocol) => protocol,
        None if SERVER_FIRST.contains(&number) => Protocol::Tcp,
        None => Protocol::Detect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_lists() {
        let own = Namespace::parse("a").unwrap();
        let b = Namespace::parse("b").unwrap();
        assert_eq!(visibility(&[], &own), Ok(Visibility::All));
        assert_eq!(visibility(&["~"], &own), Ok(Visibility::Nobody));
        assert_eq!(visibility(&[".", "b"], &own), Ok(Visibility::Only(vec![own.clone(), b])));
        for bad in [&["*", "b"][..], &[".", "a"], &["~", "."], &["a b"]] {
            assert!(visibility(bad, &own).is_err(), "{bad:?} should be refused");
        }
    }

    #[test]
    fn the_protocol_of_a_port() {
        assert_eq!(port_protocol("TCP", Some("grpc"), "http", 80), Protocol::Grpc);
        assert_eq!(port_protocol("TCP", Some("example.com/x"), "http-web", 80), Protocol::Http);
        assert_eq!(port_protocol("TCP", None, "db", 3306), Protocol::Tcp);
        assert_eq!(port_protocol("UDP", None, "http", 80), Protocol::Udp);
        assert_eq!(port_protocol("", None, "", 8080), Protocol::Detect);
    }

    #[test]
    fn a_place_needs_a_region() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(locality(&labels(&[(ZONES[0], "z")])), None);
        assert_eq!(locality(&labels(&[(REGIONS[1], "r"), (ZONES[0], "z")])), Some(Locality::parse("r/z")));
        assert_eq!(locality(&labels(&[(ISTIO_LOCALITY, "r.z.s")])), Some(Locality::parse("r/z/s")));
    }
}
