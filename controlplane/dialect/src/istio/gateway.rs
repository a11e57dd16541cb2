//! Owns Istio's Gateway: listeners of the gateway workloads that a selector picks.

use super::backend;
use crate::{
    code,
    fields::{At, Fields},
    object::Head,
    read::Yield,
};
use std::collections::BTreeSet;
use tombolo_controlplane_core::intent::{
    ConflictRule, Credential, Gateway, Intent, NamedRef, RouteNamespaces, Server, ServerHost, ServerTls, ServerTlsMode,
};
use tombolo_federation_model::{Host, Namespace, Protocol};

pub(crate) fn read(head: &Head, object: &Fields<'_>) -> Yield {
    let Some(spec) = object.need("spec").map(|at| at.fields()) else { return Yield::default() };
    let selector = spec.labels("selector");
    let Some(list) = spec.need("servers") else { return Yield::default() };
    let mut names = BTreeSet::new();
    let mut servers: Vec<Server> = Vec::new();
    for at in list.list() {
        let Some(server) = server(&at, head) else { continue };
        if !server.port_name.is_empty() && !names.insert(server.port_name.clone()) {
            at.error(
                code::BAD_VALUE,
                format!("two servers have a port named {:?}; names must be unique", server.port_name),
            );
        }
        servers.push(server);
    }
    if servers.is_empty() {
        list.error(code::REQUIRED, "at least one server is required");
    }
    Intent::Gateway(Gateway { meta: head.meta(), selector, servers, conflict: ConflictRule::OldestWins }).into()
}

fn server(at: &At<'_>, head: &Head) -> Option<Server> {
    let fields = at.fields();
    fields.skip(&["defaultEndpoint"]);
    let hosts = hosts(&fields, head);
    let tls = fields.at("tls");
    let (port, port_name, protocol) = port(&fields)?;
    let secured = matches!(protocol, Protocol::Https | Protocol::Tls);
    if secured && tls.is_none() {
        at.error(
            code::REQUIRED,
            format!("{protocol} needs tls; write for example tls: {{mode: SIMPLE, credentialName: NAME}}"),
        );
    }
    let tls = tls.and_then(|at| server_tls(&at, head, protocol));
    let name = fields.string("name").filter(|name| !name.is_empty());
    Some(Server {
        name: name.unwrap_or_else(|| port_name.clone()),
        field: at.path.clone(),
        port,
        port_name,
        protocol,
        hosts,
        tls,
        bind: fields.string("bind").filter(|bind| !bind.is_empty()),
        allowed_routes: RouteNamespaces::All,
    })
}

fn port(server: &Fields<'_>) -> Option<(u16, String, Protocol)> {
    let fields = server.need("port")?.fields();
    if let Some(at) = fields.at("targetPort") {
        at.error(code::BAD_VALUE, "a gateway's port has no targetPort; remove it");
    }
    let number = fields.need("number").and_then(|at| at.port());
    let spoken = |text: &str| {
        let known = Protocol::parse(text).filter(|p| !matches!(p, Protocol::Udp | Protocol::MySql | Protocol::Redis));
        known.ok_or_else(|| {
            format!("{text:?} is no protocol of a gateway; write HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS")
        })
    };
    let protocol = fields.need("protocol").and_then(|at| at.parse(spoken));
    let name = fields.string("name").unwrap_or_default();
    let (number, protocol) = (number?, protocol?);
    if name.is_empty() {
        fields.at.warn(code::SUSPICIOUS, "the port has no name; write one that is unique in the object");
    }
    let name = if name.is_empty() { format!("{}-{number}", protocol.as_str().to_ascii_lowercase()) } else { name };
    Some((number, name, protocol))
}

/// `[NAMESPACE/]HOST`, where the namespace is that of routes. Unlike in rules a name without dots is no service: it is
/// what clients write.
fn hosts(server: &Fields<'_>, head: &Head) -> Vec<ServerHost> {
    let Some(list) = server.need("hosts") else { return Vec::new() };
    let mut hosts = Vec::new();
    for at in list.list() {
        let Some(text) = at.str() else { continue };
        let (namespace, host) = match text.split_once('/') {
            None | Some(("*", _)) => (None, text.rsplit('/').next().unwrap_or(text)),
            Some((".", host)) => (Some(head.namespace.clone()), host),
            Some((namespace, host)) => (at.parse(|_| Namespace::parse(namespace)), host),
        };
        let host = at.parse(|_| Host::parse(host));
        hosts.extend(host.map(|host| ServerHost { namespace, host }));
    }
    if hosts.is_empty() {
        list.error(code::REQUIRED, "at least one host is required; for any host write \"*\"");
    }
    hosts
}

fn server_tls(at: &At<'_>, head: &Head, protocol: Protocol) -> Option<ServerTls> {
    let fields = at.fields();
    fields.not_in_force(&["tlsCertificates", "insecureSkipVerify"]);
    fields.not_enforced(&["verifyCertificateSpki", "verifyCertificateHash", "caCrl"]);
    if let Some(at) = fields.at("caCertCredentialName") {
        at.error(
            code::NOT_ENFORCED,
            "a second secret for roots is not supported; put the roots as ca.crt into the secret of credentialName",
        );
    }
    let text = |name| fields.string(name).filter(|text| !text.is_empty());
    let modes = [
        ("PASSTHROUGH", ServerTlsMode::Passthrough),
        ("SIMPLE", ServerTlsMode::Simple),
        ("MUTUAL", ServerTlsMode::Mutual),
        ("OPTIONAL_MUTUAL", ServerTlsMode::OptionalMutual),
        ("ISTIO_MUTUAL", ServerTlsMode::Mesh),
        ("AUTO_PASSTHROUGH", ServerTlsMode::AutoPassthrough),
    ];
    let https_redirect = fields.bool("httpsRedirect").unwrap_or(false);
    let (certificate, key) = (text("serverCertificate"), text("privateKey"));
    let tls = ServerTls {
        mode: fields.at("mode").map_or(Some(ServerTlsMode::Passthrough), |at| at.choose(&modes))?,
        https_redirect,
        credentials: credentials(&fields, head),
        files: certificate.clone().zip(key.clone()),
        client_roots_file: text("caCertificates"),
        subject_alt_names: fields.strings("subjectAltNames"),
        min_version: version(&fields, "minProtocolVersion"),
        max_version: version(&fields, "maxProtocolVersion"),
        cipher_suites: fields.strings("cipherSuites"),
    };
    if https_redirect && protocol != Protocol::Http {
        at.warn(code::SUSPICIOUS, "httpsRedirect does something on a plain HTTP port only");
    }
    if certificate.is_some() != key.is_some() {
        at.error(code::REQUIRED, "serverCertificate and privateKey belong together");
    }
    check_certificates(at, &tls, protocol);
    Some(tls)
}

fn check_certificates(at: &At<'_>, tls: &ServerTls, protocol: Protocol) {
    let given = !tls.credentials.is_empty() || tls.files.is_some();
    let secured = matches!(protocol, Protocol::Https | Protocol::Tls);
    match tls.mode {
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual if !given && secured => {
            at.error(code::REQUIRED, "this mode needs a certificate; write credentialName: NAME of a Secret");
        }
        ServerTlsMode::Mesh if given => {
            at.error(
                code::CONFLICTING_FIELDS,
                "ISTIO_MUTUAL uses the mesh's certificates; remove the others, or write MUTUAL",
            );
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough if given => {
            at.error(
                code::CONFLICTING_FIELDS,
                "TLS is passed through, so the certificate would not be used; write mode: SIMPLE to terminate it",
            );
        }
        _ => {}
    }
}

/// A bare name is of the namespace of whichever workload listens, not of the object's.
fn credentials(fields: &Fields<'_>, head: &Head) -> Vec<Credential> {
    let mut written: Vec<_> = fields.at("credentialName").into_iter().collect();
    written.extend(fields.list("credentialNames"));
    let named = |at: &At<'_>| {
        let text = at.str().filter(|text| !text.is_empty())?;
        let text = text.strip_prefix("kubernetes://").unwrap_or(text);
        let NamedRef { namespace, name } = backend::named_ref(at, text, &head.namespace)?;
        Some(Credential { namespace: text.contains('/').then_some(namespace), name })
    };
    let names: Vec<_> = written.iter().filter_map(named).collect();
    if names.len() > 2 {
        fields.at.error(code::BAD_VALUE, "at most two certificates are possible, one RSA and one ECDSA");
    }
    names
}

fn version(fields: &Fields<'_>, name: &'static str) -> Option<u8> {
    let words = [("TLS_AUTO", 0), ("TLSV1_0", 0), ("TLSV1_1", 0), ("TLSV1_2", 2), ("TLSV1_3", 3)];
    let at = fields.at(name)?;
    if matches!(at.node.text(), Some("TLSV1_0" | "TLSV1_1")) {
        at.warn(code::NOT_IN_FORCE, "versions below 1.2 are never spoken, because they are broken");
    }
    at.choose(&words).filter(|version| *version != 0)
}
