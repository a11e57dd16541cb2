//! TLS with the mesh's certificates, which both sides of a connection share, and certificates of gateways.

use super::{
    pb::{ads, any, boolean, exact, file, own_sds, transport_socket},
    wire::{core, tls},
};
use tombolo_controlplane_api::node;
use tombolo_federation_model::Identity;

/// What a sidecar offers and accepts besides HTTP's own names, so that a server sees before decrypting that a
/// connection is one of the mesh.
pub(super) const MESH_PROTOCOLS: [&str; 5] =
    ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Those of them that announce HTTP.
pub(super) const MESH_HTTP_PROTOCOLS: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// What a server answers: the first that the client offered too. The name of the mesh comes last, so that it is agreed on
/// only when the client offers nothing that says which HTTP version it speaks. `istio-peer-exchange` is not accepted: who
/// agrees on it must begin the connection with an exchange of metadata.
pub(super) const SERVER_PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "istio"];

pub(super) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";

fn sds(name: &str, source: core::ConfigSource) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

/// A secret that the control plane serves.
pub(super) fn served_secret(name: &str) -> tls::SdsSecretConfig {
    sds(name, ads())
}

/// Own certificate, and the roots of every trust domain; the peer must present one of the names, if there are any.
pub(super) fn mesh_context(protocols: &[&str], names: Vec<tls::SubjectAltNameMatcher>) -> tls::CommonTlsContext {
    tls::CommonTlsContext {
        alpn_protocols: protocols.iter().map(|p| (*p).to_owned()).collect(),
        tls_certificate_sds_secret_configs: vec![sds(node::SECRET_DEFAULT, own_sds())],
        validation_context_type: Some(checked_by(
            tls::CertificateValidationContext { match_typed_subject_alt_names: names, ..Default::default() },
            node::SECRET_ROOTS,
        )),
        ..Default::default()
    }
}

/// Roots from a secret, with further conditions.
pub(super) fn checked_by(
    extra: tls::CertificateValidationContext,
    roots: &str,
) -> tls::common_tls_context::ValidationContextType {
    tls::common_tls_context::ValidationContextType::CombinedValidationContext(
        tls::common_tls_context::CombinedCertificateValidationContext {
            default_validation_context: Some(extra),
            validation_context_sds_secret_config: Some(served_secret(roots)),
            ..Default::default()
        },
    )
}

/// Mutual TLS of the mesh at a server.
pub(super) fn mesh_server(protocols: &[&str]) -> core::TransportSocket {
    let context = tls::DownstreamTlsContext {
        common_tls_context: Some(mesh_context(protocols, Vec::new())),
        require_client_certificate: boolean(true),
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// Mutual TLS of the mesh at a client.
pub(super) fn mesh_client(
    protocols: &[&str],
    names: Vec<tls::SubjectAltNameMatcher>,
    sni: &str,
) -> core::TransportSocket {
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(mesh_context(protocols, names)),
        sni: sni.to_owned(),
        ..Default::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

/// A name that a peer may present: a URI when it looks like one, else a DNS name.
pub(super) fn peer_name(name: &str) -> tls::SubjectAltNameMatcher {
    let kind = if name.contains("://") {
        tls::subject_alt_name_matcher::SanType::Uri
    } else {
        tls::subject_alt_name_matcher::SanType::Dns
    };
    tls::SubjectAltNameMatcher { san_type: kind.into(), matcher: Some(exact(name)), oid: String::new() }
}

/// The identity of a workload as a name that it must present.
pub(super) fn peer_identity(identity: &Identity) -> tls::SubjectAltNameMatcher {
    peer_name(&identity.to_string())
}

/// Certificate and key from files of the proxy's machine.
pub(super) fn certificate_files(certificate: &str, key: &str) -> tls::TlsCertificate {
    tls::TlsCertificate {
        certificate_chain: Some(file(certificate)),
        private_key: Some(file(key)),
        ..Default::default()
    }
}

/// A socket without TLS.
pub(super) fn plain() -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(&super::wire::raw_buffer::RawBuffer {}))),
    }
}
