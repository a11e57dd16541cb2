//! The proxy's own certificate: key made here, signed by the authority, renewed at half of its life.
//!
//! Owns the key from its making to its hand-over as a [`Secret`]; it is never written anywhere and never leaves the
//! process. A renewal that fails is tried again; the old certificate serves until it expires.

use crate::{
    control::{Backoff, Remote, RemoteError},
    tls::credentials,
};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;
use tombolo_controlplane_api::ca::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};
use tombolo_gateway_core::config::{Certificate, PrivateKey, Secret};
use tonic::Request;
use zeroize::{Zeroize as _, Zeroizing};

/// What is asked of the authority: zero leaves the life of a certificate to it.
const ASKED_VALIDITY: i64 = 0;
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertError {
    /// The key or the request could not be made.
    #[error("making the request: {0}")]
    Request(String),
    /// The authority could not be asked or refused.
    #[error("asking the authority: {0}")]
    Authority(#[from] RemoteError),
    /// The answer is unusable.
    #[error("the authority's answer: {0}")]
    Answer(String),
}

/// The newest certificate, and the state of renewal, for everybody who wants it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    /// The secret.
    pub(crate) secret: Option<Arc<Secret>>,
    /// End of validity.
    pub(crate) expires: Option<SystemTime>,
    /// The last failure since then.
    pub(crate) trouble: Option<Arc<str>>,
}

/// A new key that only ever exists inside the crypto library and in one wiped buffer.
struct Key(EcdsaKeyPair);

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl Key {
    fn generate() -> Result<Self, CertError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Self).map_err(|e| CertError::Request(e.to_string()))
    }

    fn request(&self) -> Result<String, CertError> {
        let params = CertificateParams::default();
        let request = params.serialize_request(self).map_err(|e| CertError::Request(e.to_string()))?;
        request.pem().map_err(|e| CertError::Request(e.to_string()))
    }

    fn private(&self) -> Result<PrivateKey, CertError> {
        let der = self.0.to_pkcs8v1().map_err(|e| CertError::Request(e.to_string()))?;
        let mut pem = Zeroizing::new(String::with_capacity(512));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut body = STANDARD.encode(der.as_ref());
        pem.push_str(&body);
        body.zeroize();
        pem.push_str("\n-----END PRIVATE KEY-----\n");
        Ok(PrivateKey::from_pem(pem.as_bytes().to_vec()))
    }
}

/// Asks once for a certificate with a new key.
pub(crate) async fn obtain(authority: &Remote) -> Result<(Arc<Secret>, credentials::Facts), CertError> {
    let key = Key::generate()?;
    let message = IstioCertificateRequest { csr: key.request()?, validity_duration: ASKED_VALIDITY, metadata: None };
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(10));
    if let Some(token) = authority.authorization().await? {
        request.metadata_mut().insert("authorization", token);
    }
    let channel = authority.connect().await?;
    let answer =
        IstioCertificateServiceClient::new(channel).create_certificate(request).await.map_err(RemoteError::from)?;
    let chain = answer.into_inner().cert_chain;
    // The root comes last and is not shown to peers: they have their own copy or none of our word.
    let shown = chain.len().saturating_sub(1).max(1);
    let mut pem = String::new();
    for part in chain.iter().take(shown) {
        pem.push_str(part);
        if !part.ends_with('\n') {
            pem.push('\n');
        }
    }
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| CertError::Answer(e.to_string()))?;
    let facts = credentials::facts(&leaf).map_err(|e| CertError::Answer(e.to_string()))?;
    let private = key.private()?;
    credentials::Credentials::from_pem(pem.as_bytes(), private.pem()).map_err(|e| CertError::Answer(e.to_string()))?;
    let certificate = Certificate { chain: pem.into_bytes().into(), key: private };
    Ok((Arc::new(Secret::Certificate(certificate)), facts))
}

/// Keeps the certificate fresh for as long as the process runs.
pub(crate) async fn keep(authority: Remote, out: watch::Sender<Own>) {
    let mut backoff = Backoff::new(Duration::from_millis(250), LONGEST_WAIT);
    loop {
        let wait = match obtain(&authority).await {
            Ok((secret, facts)) => {
                backoff = Backoff::new(Duration::from_millis(250), LONGEST_WAIT);
                let left = facts.not_after.duration_since(SystemTime::now()).unwrap_or_default();
                tracing::info!(name = %facts.name, serial = %facts.serial, seconds = left.as_secs(), "certificate obtained");
                out.send_replace(Own { secret: Some(secret), expires: Some(facts.not_after), trouble: None });
                until_renewal(left)
            }
            Err(error) => {
                let words: Arc<str> = error.to_string().into();
                if out.borrow().trouble.as_ref() != Some(&words) {
                    tracing::warn!(%error, "no certificate, trying again");
                }
                out.send_modify(|own| own.trouble = Some(words));
                backoff.wait()
            }
        };
        // A monotonic clock measures the wait: a wall clock that jumps must not stop renewal.
        tokio::time::sleep(wait).await;
    }
}

/// Half of what is left, a little less or more so that a fleet does not ask at once.
fn until_renewal(left: Duration) -> Duration {
    left.mul_f64(0.45 + 0.1 * rand::random::<f64>()).max(Duration::from_millis(500))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_the_key_and_verifies() {
        let key = Key::generate().unwrap();
        let pem = key.request().unwrap();
        let parsed = rcgen::CertificateSigningRequestParams::from_pem(&pem).unwrap();
        assert_eq!(parsed.public_key.der_bytes(), key.der_bytes());
    }

    #[test]
    fn the_key_loads_and_does_not_print() {
        crate::tls::install_crypto();
        let private = Key::generate().unwrap().private().unwrap();
        let shown = format!("{private:?}");
        assert!(!shown.contains("BEGIN"), "{shown}");
        let der = rustls::pki_types::PrivateKeyDer::from_pem_slice(private.pem()).unwrap();
        assert!(crate::tls::provider().key_provider.load_private_key(der).is_ok());
    }

    #[test]
    fn renewal_is_near_half_life() {
        for _ in 0..100 {
            let wait = until_renewal(Duration::from_secs(3600)).as_secs();
            assert!((1600..=2000).contains(&wait), "{wait}");
        }
    }
}
