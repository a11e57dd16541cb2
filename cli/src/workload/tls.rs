//! TLS of a stand-in that plays a server outside of the mesh.
//!
//! Owns the reading of its certificate. Asks clients for none.

use anyhow::Context;
use std::{path::Path, sync::Arc};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// What a client asked for in its TLS hello.
#[derive(Debug, Clone, Default)]
pub(super) struct Hello {
    /// The connection is TLS.
    pub(super) secure: bool,
    /// Server name; empty for none.
    pub(super) server_name: String,
}

/// Shows the certificate in these files, for HTTP/2 and HTTP/1.1.
///
/// # Errors
/// When a file cannot be read, or they do not fit each other.
pub(super) fn acceptor(chain: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let name = |path: &Path| format!("cannot use {}", path.display());
    let certificates = CertificateDer::pem_file_iter(chain)
        .with_context(|| name(chain))?
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| name(chain))?;
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| name(key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, private)
        .with_context(|| name(chain))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
