//! TLS 1.3 settings of both ends. No session is ever resumed: a resumed one would skip the judgement of a chain that may
//! no longer be trusted.

use crate::verify::{Trust, Verifier};
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::TLS13,
};
use std::{fmt, sync::Arc};
use tombolo_federation_model::Identity;

const ALPN: &[u8] = b"h2";

/// A certificate chain, leaf first, and its key.
pub struct Credentials {
    /// The chain that is presented.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is not printable.
        write!(f, "Credentials({} certificates)", self.chain.len())
    }
}

/// For dialing the one that has this identity.
pub(crate) fn client(own: &Credentials, trust: Trust, expected: Identity) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(trust, Some(expected))))
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For being dialed by anybody with a valid identity; who may stay is decided by the identity.
pub(crate) fn server(own: &Credentials, trust: Trust) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Verifier::new(trust, None)))
        .with_single_cert(own.chain.clone(), own.key.clone_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(config)
}
