//! What is told of a TLS connection that was ended here.
//!
//! Computed once per connection. An identity appears only when the handshake verified it.

use super::{context::ServerContext, facts, names, spiffe};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{ServerConnection, pki_types::CertificateDer};
use std::fmt::Write as _;
use tombolo_federation_identity::claimed_identity;
use tombolo_gateway_core::{
    config::{FilterChain, Terminal},
    head::{PeerCertificate, TlsInfo},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Reads a connection after its handshake.
pub(crate) fn info(connection: &ServerConnection, chain: &FilterChain, context: &ServerContext) -> TlsInfo {
    let (version, cipher) = facts(connection);
    let alpn = connection.alpn_protocol().unwrap_or_default();
    of(version, cipher, alpn, connection.peer_certificates().unwrap_or_default(), chain, context)
}

/// The same from its parts.
pub(crate) fn of(
    version: &'static str,
    cipher: &'static str,
    alpn: &[u8],
    certificates: &[CertificateDer<'_>],
    chain: &FilterChain,
    context: &ServerContext,
) -> TlsInfo {
    let alpn = String::from_utf8_lossy(alpn).into_owned();
    let details = match &chain.terminal {
        Terminal::Http(hcm) => hcm.xfcc_details,
        Terminal::Tcp(_) => Default::default(),
    };
    let peer = certificates.first().and_then(|leaf| {
        let mut peer = certificate(leaf, context.verifies)?;
        if details.cert || details.chain {
            peer.pem = encoded(certificates.get(..1)?);
            peer.chain_pem = encoded(certificates);
        }
        Some(peer)
    });
    let own = &context.own;
    TlsInfo { version, cipher, alpn, peer, local_uris: own.uris.clone(), local_subject: own.subject.clone() }
}

fn certificate(leaf: &CertificateDer<'_>, verified: bool) -> Option<PeerCertificate> {
    let names = spiffe::names(leaf).ok()?;
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    Some(PeerCertificate {
        verified,
        identity: claimed_identity(leaf).ok().filter(|_| verified),
        uris: names.uris,
        dns: names.dns,
        subject: names.subject,
        issuer: parsed.issuer().to_string(),
        serial: parsed.raw_serial().iter().fold(String::new(), |mut out, b| {
            let _ = write!(out, "{b:02x}");
            out
        }),
        sha256: names::sha256_hex(leaf),
        ..PeerCertificate::default()
    })
}

/// URL-encoded PEM.
fn encoded(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(certificate);
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    let mut out = String::with_capacity(pem.len() + 64);
    for byte in pem.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
