//! Mutual TLS between control planes: which roots hold now, and who is at the other end. What an identity of the mesh is,
//! `federation/identity` says.
//!
//! Never authorizes: knowing who it is does not mean that it may.

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
pub use tombolo_federation_identity::claimed_identity;
use tombolo_federation_identity::{Check, verify};
pub(crate) use tombolo_federation_identity::{End, NotTrusted};
use tombolo_federation_model::{Identity, TrustDomain};
use webpki::anchor_from_trusted_cert;

/// Roots by trust domain, kept apart: a root of one never vouches for another.
pub type TrustMap = BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>;

/// The roots that hold now; whoever owns the other end may change them at any time.
#[derive(Debug, Clone)]
pub struct Trust(watch::Receiver<Arc<TrustMap>>);

impl Trust {
    /// Roots that follow a watch.
    #[must_use]
    pub fn new(roots: watch::Receiver<Arc<TrustMap>>) -> Self {
        Self(roots)
    }

    /// The roots that hold now.
    #[must_use]
    pub fn now(&self) -> Arc<TrustMap> {
        self.0.borrow().clone()
    }

    /// Waits until the roots are others than before. Never returns once nobody can change them any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn refused(reason: NotTrusted) -> TlsError {
    TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}

/// The identity that a chain, leaf first, proves at a moment.
///
/// # Errors
/// Says what is wrong with the chain.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    trust: &TrustMap,
    end: End,
    now: UnixTime,
) -> Result<Identity, NotTrusted> {
    let (leaf, intermediates) = chain.split_first().ok_or(NotTrusted::NoCertificate)?;
    // A root that cannot be read vouches for nobody; the others still do.
    let anchor = |root: &CertificateDer<'static>| anchor_from_trusted_cert(root).ok().map(|anchor| anchor.to_owned());
    let roots = |domain: &TrustDomain| {
        let roots = trust.get(domain).filter(|roots| !roots.is_empty())?;
        Some(roots.iter().filter_map(anchor).collect::<Vec<_>>())
    };
    verify(roots, leaf, intermediates, Check::new(end, now))
}

/// Judges the other end of a TLS 1.3 connection, in both roles.
#[derive(Debug)]
pub struct Verifier {
    trust: Trust,
    /// `None`: anybody whose chain verifies; who may enter is decided by whoever knows more.
    expected: Option<Identity>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Accepts exactly this identity, or every identity of the known trust domains.
    #[must_use]
    pub fn new(trust: Trust, expected: Option<Identity>) -> Self {
        Self { trust, expected, provider: Arc::new(aws_lc_rs::default_provider()) }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        end: End,
        now: UnixTime,
    ) -> Result<(), NotTrusted> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf).chain(intermediates).cloned().collect();
        let found = verify_chain(&chain, &self.trust.now(), end, now)?;
        match &self.expected {
            Some(expected) if *expected != found => Err(NotTrusted::Unexpected { found, expected: expected.clone() }),
            _ => Ok(()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
}

/// TLS 1.2 is never offered, so this is never asked.
fn no_tls12() -> TlsError {
    TlsError::General("only TLS 1.3 is spoken inside the mesh".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        self.judge(end_entity, intermediates, End::Server, now).map_err(refused)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The other end has one certificate; hints would only tell strangers whom this site trusts.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.judge(end_entity, intermediates, End::Client, now).map_err(refused)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
