//! Is this certificate chain an identity of the mesh? One module answers for both ends of a connection: the leaf must
//! have exactly one URI name, a SPIFFE id; the chain must end in the roots of *that* id's trust domain and of no other;
//! no issuer on the way may be constrained to other names. DNS names and addresses are ignored.
//!
//! Used by the exchange between control planes and by whoever terminates mutual TLS of the mesh. Never authorizes:
//! knowing who it is does not mean that it may.

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use tombolo_federation_model::{Identity, TrustDomain};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, NameConstraints},
    prelude::FromDer,
};

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

/// Which end of a connection presented the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that dialed.
    Client,
    /// The one that was dialed.
    Server,
}

/// Why a chain is not an identity of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTrusted {
    /// Nothing was presented.
    #[error("no certificate was presented")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// An issuer's certificate used as a leaf.
    #[error("the certificate belongs to an issuer of certificates")]
    Issuer,
    /// None, or several.
    #[error("the certificate has {0} URI names instead of one")]
    UriNames(usize),
    /// The URI name is not a SPIFFE id.
    #[error("{0}")]
    NotAnIdentity(String),
    /// Nothing is known about the trust domain.
    #[error("no bundle for trust domain {0}")]
    NoBundle(TrustDomain),
    /// The chain does not end in the bundle, is expired, or may not be used so.
    #[error("the certificate of {identity} does not verify against the bundle of its trust domain: {reason}")]
    Chain {
        /// Who it says it is.
        identity: Identity,
        /// Why not.
        reason: String,
    },
    /// An issuer vouches for a name that it must not vouch for.
    #[error("an issuer of the certificate of {0} is constrained to other names")]
    Constrained(Identity),
    /// A valid identity, but not the one that was expected.
    #[error("the identity is {found}, not {expected}")]
    Unexpected {
        /// Who it is.
        found: Identity,
        /// Who it should be.
        expected: Identity,
    },
}

impl From<NotTrusted> for TlsError {
    fn from(reason: NotTrusted) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
    }
}

/// The identity that a leaf certificate claims. It is worth nothing before the chain is verified.
///
/// # Errors
/// When the certificate is not a leaf with exactly one SPIFFE id.
pub fn claimed_identity(leaf: &CertificateDer<'_>) -> Result<Identity, NotTrusted> {
    let unreadable = |error: String| NotTrusted::Unreadable(error);
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|error| unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(unreadable("something follows it".to_owned()));
    }
    if signs_certificates(&certificate).map_err(unreadable)? {
        return Err(NotTrusted::Issuer);
    }
    let names = certificate.subject_alternative_name().map_err(|error| unreadable(error.to_string()))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let [uri] = uris[..] else { return Err(NotTrusted::UriNames(uris.len())) };
    Identity::parse(uri).map_err(|error| NotTrusted::NotAnIdentity(error.to_string()))
}

fn signs_certificates(certificate: &X509Certificate<'_>) -> Result<bool, String> {
    let constraints = certificate.basic_constraints().map_err(|error| error.to_string())?;
    let usage = certificate.key_usage().map_err(|error| error.to_string())?;
    let signs = usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    Ok(signs || constraints.is_some_and(|constraints| constraints.value.ca))
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
    let identity = claimed_identity(leaf)?;
    let domain = identity.trust_domain();
    let roots = trust.get(domain).filter(|roots| !roots.is_empty());
    let roots = roots.ok_or_else(|| NotTrusted::NoBundle(domain.clone()))?;
    let refuse = |reason: webpki::Error| NotTrusted::Chain { identity: identity.clone(), reason: reason.to_string() };
    // A root that cannot be read vouches for nobody; the others still do.
    let anchors: Vec<_> = roots.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
    let leaf = EndEntityCert::try_from(leaf).map_err(refuse)?;
    let usage = match end {
        End::Client => KeyUsage::client_auth(),
        End::Server => KeyUsage::server_auth(),
    };
    let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let path = leaf.verify_for_usage(algorithms, &anchors, intermediates, now, usage, None, None).map_err(refuse)?;
    for issuer in path.intermediate_certificates() {
        if !may_vouch_for(&issuer.der(), domain) {
            return Err(NotTrusted::Constrained(identity));
        }
    }
    Ok(identity)
}

/// Whether an issuer's URI name constraints allow the trust domain. The library does not judge them.
pub(crate) fn may_vouch_for(issuer: &CertificateDer<'_>, domain: &TrustDomain) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(issuer) else { return false };
    match certificate.name_constraints() {
        Ok(None) => true,
        Ok(Some(constraints)) => constraints_allow(constraints.value, domain.as_str()),
        Err(_) => false,
    }
}

fn constraints_allow(constraints: &NameConstraints<'_>, host: &str) -> bool {
    let uris = |trees: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| -> Vec<String> {
        let bases = trees.iter().flatten().map(|tree| &tree.base);
        bases.filter_map(|base| if let GeneralName::URI(uri) = base { Some((*uri).to_owned()) } else { None }).collect()
    };
    let (permitted, excluded) = (uris(&constraints.permitted_subtrees), uris(&constraints.excluded_subtrees));
    let within = |base: &String| base == host || (base.starts_with('.') && host.ends_with(base.as_str()));
    !excluded.iter().any(within) && (permitted.is_empty() || permitted.iter().any(within))
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
        self.judge(end_entity, intermediates, End::Server, now)?;
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
        self.judge(end_entity, intermediates, End::Client, now)?;
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
