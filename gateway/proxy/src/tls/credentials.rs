//! A certificate chain with its key, ready to be shown.
//!
//! The key exists only inside rustls' signer: it cannot be printed, compared or written anywhere.

use super::provider;
use rustls::{
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate and key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// The chain cannot be read.
    #[error("the certificate chain cannot be read: {0}")]
    Chain(String),
    /// The key cannot be read or is of an unknown kind.
    #[error("the private key cannot be used: {0}")]
    Key(String),
    /// They do not belong together.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
}

/// A chain with its key.
#[derive(Clone)]
pub(crate) struct Credentials {
    key: Arc<CertifiedKey>,
    facts: Facts,
}

/// What may be shown of a certificate.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// First URI or DNS name, or the subject.
    pub(crate) name: String,
    /// Serial number, hexadecimal.
    pub(crate) serial: String,
    /// Begin of validity.
    pub(crate) not_before: SystemTime,
    /// End of validity.
    pub(crate) not_after: SystemTime,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.facts.name).finish_non_exhaustive()
    }
}

impl Credentials {
    /// From PEM texts as they come in a Secret.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|e| CredentialsError::Chain(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| CredentialsError::Key(e.to_string()))?;
        Self::new(chain, key)
    }

    /// From parts.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        let leaf = chain.first().ok_or_else(|| CredentialsError::Chain("it is empty".to_owned()))?;
        let facts = facts(leaf)?;
        let signer = provider().key_provider.load_private_key(key).map_err(|e| CredentialsError::Key(e.to_string()))?;
        let key = CertifiedKey::new(chain, signer);
        match key.keys_match() {
            // Some kinds of key do not tell; a handshake will.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Self { key: Arc::new(key), facts })
            }
            Err(_) => Err(CredentialsError::Mismatch),
        }
    }

    /// What may be shown.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The DER chain, leaf first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// The chain and signer as rustls takes them.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.key.clone()
    }

    /// A resolver that always shows this chain.
    pub(crate) fn resolver(&self) -> Arc<Always> {
        Arc::new(Always(self.key.clone()))
    }
}

/// Reads what may be shown of a certificate.
pub(crate) fn facts(leaf: &CertificateDer<'_>) -> Result<Facts, CredentialsError> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| CredentialsError::Chain(e.to_string()))?;
    let names = super::spiffe::names(leaf).map_err(|e| CredentialsError::Chain(e.to_string()))?;
    let time = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok(Facts {
        name: names.uris.into_iter().chain(names.dns).next().unwrap_or(names.subject),
        serial: parsed.raw_serial().iter().map(|b| format!("{b:02x}")).collect(),
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
    })
}

/// Shows one chain to everybody.
#[derive(Debug)]
pub(crate) struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
