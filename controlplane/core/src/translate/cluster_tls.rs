//! Which TLS an upstream uses.

use super::{
    pb::{file, transport_socket},
    policy::proxied,
    tls::{TLS_SOCKET, certificate_files, checked_by, mesh_client, peer_identity, peer_name, plain, served_secret},
    wire::{cluster, core, protobuf, tls},
};
use crate::intent::{ClientTls, ClientTlsMode, TrafficPolicy};
use std::collections::{BTreeSet, HashMap};
use tombolo_federation_model::Identity;

/// What a choice of TLS depends on besides the policy.
#[derive(Debug)]
pub(super) struct Peer<'a> {
    /// Server name between sidecars.
    pub(super) server_name: String,
    /// Identities that the endpoints present.
    pub(super) identities: Option<&'a BTreeSet<Identity>>,
    /// Other names that they may present.
    pub(super) names: &'a [String],
    /// Mutual TLS where an endpoint can, without anybody asking for it.
    pub(super) automatic: bool,
    /// Names of protocols for ALPN towards the mesh, and towards others.
    pub(super) mesh_protocols: &'static [&'static str],
    pub(super) protocols: &'static [&'static str],
    /// File with the roots of the public web.
    pub(super) system_roots: &'a str,
}

/// Sets the transport sockets of an upstream.
pub(super) fn apply(policy: &TrafficPolicy, peer: &Peer<'_>, to: &mut cluster::Cluster) {
    match &policy.tls {
        None if peer.automatic => to.transport_socket_matches = automatic(policy, peer),
        None => to.transport_socket = policy.proxy_protocol.map(|version| proxied(Some(version), plain())),
        Some(tls) => to.transport_socket = explicit(tls, peer).map(|socket| proxied(policy.proxy_protocol, socket)),
    }
}

/// Each endpoint says what it can do, so one service may have endpoints with and without a sidecar.
fn automatic(policy: &TrafficPolicy, peer: &Peer<'_>) -> Vec<cluster::cluster::TransportSocketMatch> {
    let kind = protobuf::value::Kind::StringValue("istio".to_owned());
    let istio = HashMap::from([("tlsMode".to_owned(), protobuf::Value { kind: Some(kind) })]);
    let entry = |name: &str, fields, socket| cluster::cluster::TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(protobuf::Struct { fields }),
        transport_socket: Some(proxied(policy.proxy_protocol, socket)),
    };
    vec![
        entry("tlsMode-istio", istio, mesh_socket(peer, &[], None)),
        entry("tlsMode-disabled", HashMap::new(), plain()),
    ]
}

fn mesh_socket(peer: &Peer<'_>, extra: &[String], sni: Option<&str>) -> core::TransportSocket {
    let identities = peer.identities.into_iter().flatten().map(peer_identity);
    let names = peer.names.iter().chain(extra).map(|name| peer_name(name));
    mesh_client(peer.mesh_protocols, identities.chain(names).collect(), sni.unwrap_or(&peer.server_name))
}

fn explicit(settings: &ClientTls, peer: &Peer<'_>) -> Option<core::TransportSocket> {
    match settings.mode {
        ClientTlsMode::Disable => Some(plain()),
        ClientTlsMode::Mesh => Some(mesh_socket(peer, &settings.subject_alt_names, settings.sni.as_deref())),
        ClientTlsMode::Simple | ClientTlsMode::Mutual => {
            Some(transport_socket(TLS_SOCKET, &originated(settings, peer)))
        }
    }
}

/// TLS to a server outside of the mesh, with the user's certificates.
fn originated(settings: &ClientTls, peer: &Peer<'_>) -> tls::UpstreamTlsContext {
    let names: Vec<_> = peer.names.iter().chain(&settings.subject_alt_names).map(|name| peer_name(name)).collect();
    // Where nobody says which names a certificate may have, it must have the one that is asked for.
    let by_asked_name = names.is_empty() && !settings.insecure;
    let mut common = tls::CommonTlsContext {
        alpn_protocols: peer.protocols.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        common.tls_certificates.push(certificate_files(certificate, key));
    }
    let secret = settings.credential.as_ref().map(|name| format!("kubernetes://{name}"));
    if let (Some(secret), ClientTlsMode::Mutual) = (&secret, settings.mode) {
        common.tls_certificate_sds_secret_configs.push(served_secret(secret));
    }
    common.validation_context_type = match (&secret, settings.insecure) {
        (_, true) => None,
        (Some(secret), false) => {
            let extra =
                tls::CertificateValidationContext { match_typed_subject_alt_names: names, ..Default::default() };
            Some(checked_by(extra, &format!("{secret}-cacert")))
        }
        (None, false) => {
            let roots = settings.roots.as_deref().unwrap_or(peer.system_roots);
            Some(tls::common_tls_context::ValidationContextType::ValidationContext(tls::CertificateValidationContext {
                trusted_ca: Some(file(roots)),
                match_typed_subject_alt_names: names,
                ..Default::default()
            }))
        }
    };
    tls::UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: settings.sni.clone().unwrap_or_default(),
        // Without a name the one that the client asked for is used, and it is what the certificate must say.
        auto_host_sni: settings.sni.is_none(),
        auto_sni_san_validation: by_asked_name,
        ..Default::default()
    }
}
