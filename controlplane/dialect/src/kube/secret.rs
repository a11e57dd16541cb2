//! Owns Secret, as far as it holds a certificate or roots. Never shows a byte of it in a complaint.

use crate::{code, fields::Fields, grammar, object::Head, read::Yield};
use std::collections::BTreeMap;
use tombolo_controlplane_core::intent::{Intent, TlsSecret};
use tombolo_federation_model::Severity;

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    object.skip(&["type", "immutable"]);
    let values = values(object);
    let pem = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| values.get(name).map(|value| (name, value.clone())))
    };
    let (certificate, key, roots) = (pem(["tls.crt", "cert"]), pem(["tls.key", "key"]), pem(["ca.crt", "cacert"]));
    if certificate.is_none() && roots.is_none() {
        // A secret for something else.
        return Yield::default();
    }
    if certificate.is_some() != key.is_some() {
        complain(object, "data", "a certificate and its key belong together: tls.crt and tls.key, or cert and key");
    }
    for (name, value) in [&certificate, &key, &roots].into_iter().flatten() {
        if !contains(value, b"-----BEGIN ") {
            complain(object, &format!("data[{name:?}]"), "it is not PEM: it has no line with BEGIN");
        }
    }
    let bytes = |found: Option<(&str, Vec<u8>)>| found.map(|(_, value)| value);
    Intent::Secret(TlsSecret {
        meta: head.meta(),
        certificate: bytes(certificate),
        key: bytes(key),
        roots: bytes(roots),
    })
    .into()
}

/// `stringData` wins over `data`, as in Kubernetes.
fn values<'a>(object: &Fields<'a>) -> BTreeMap<&'a str, Vec<u8>> {
    let mut values = BTreeMap::new();
    for (name, at) in object.at("data").map(|at| at.entries()).unwrap_or_default() {
        let Some(text) = at.node.text() else { continue };
        match grammar::base64(text) {
            Ok(bytes) => drop(values.insert(name, bytes)),
            Err(reason) => at.error(code::BAD_SECRET, reason),
        }
    }
    for (name, at) in object.at("stringData").map(|at| at.entries()).unwrap_or_default() {
        values.extend(at.node.text().map(|text| (name, text.as_bytes().to_vec())));
    }
    values
}

fn complain(object: &Fields<'_>, field: &str, reason: &str) {
    object.at.sink.report(Severity::Error, code::BAD_SECRET, field, object.at.node.line, reason.to_owned());
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
