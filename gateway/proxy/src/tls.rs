//! TLS: which certificate is shown, which peers are believed, and the identity that follows.
//!
//! Owns rustls configurations and verifiers. Never accepts a peer because something needed to judge it is missing:
//! no bundle means refusal.

pub(crate) mod context;
pub(crate) mod credentials;
pub(crate) mod files;
pub(crate) mod names;
pub(crate) mod peer;
pub(crate) mod spiffe;
#[cfg(test)]
mod tests;
pub(crate) mod verify;

use rustls::{
    CertificateError, CipherSuite, CommonState, ProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
};
use std::sync::{Arc, OnceLock};

/// The one crypto provider of the process. Of the suites of TLS 1.3 the one with AES-128 and SHA-256 comes first, as in Envoy:
/// its key schedule costs a tenth less of a handshake than SHA-384 does.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        Arc::new(provider)
    };
    PROVIDER.get_or_init(make).clone()
}

/// Makes the provider the process default, for libraries that look there. Safe to call again.
pub(crate) fn install_crypto() {
    // An error only says that somebody installed one before, which is the state that is wanted.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// What a failed handshake says, without the wrapping of our own refusals.
pub(crate) fn explain(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(refusal))) => {
            format!("invalid peer certificate: {}", refusal.0)
        }
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// Version and cipher suite as OpenSSL and Envoy write them.
pub(crate) fn facts(connection: &CommonState) -> (&'static str, &'static str) {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "",
    };
    let cipher = match connection.negotiated_cipher_suite().map(|suite| suite.suite()) {
        Some(CipherSuite::TLS13_AES_128_GCM_SHA256) => "TLS_AES_128_GCM_SHA256",
        Some(CipherSuite::TLS13_AES_256_GCM_SHA384) => "TLS_AES_256_GCM_SHA384",
        Some(CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
        Some(suite) => context::openssl_name(suite).unwrap_or(""),
        None => "",
    };
    (version, cipher)
}
