//! The bridge from configured trust to rustls: one verifier for both directions.
//!
//! Owns the order of the checks. A validation that names no roots at all refuses everybody, unless the configuration
//! asks for no verification.

use super::{
    names, provider,
    spiffe::{self, Bundles, Refusal},
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime, pem::PemObject as _},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{
    fmt,
    sync::{Arc, OnceLock},
};
use tombolo_federation_identity::{Check, End, NotTrusted, verify_to};
use tombolo_gateway_core::config::{SanMatcher, Validation};
use webpki::{CertRevocationList, OwnedCertRevocationList};

/// What a peer's chain is judged by.
enum Trust {
    /// SPIFFE: per trust domain.
    Spiffe(Bundles),
    /// Plain authorities, as at the edge.
    Roots(Arc<RootCertStore>),
    /// No judgement at all.
    Anybody,
}

/// Whether a server's certificate must have the name that it was reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HostCheck {
    /// It need not.
    No,
    /// The name that was sent in the hello; where none was sent there is nothing to compare.
    AskedName,
    /// That name, or the address.
    Always,
}

/// Judges peers by one validation context.
pub(crate) struct Verifier {
    trust: Trust,
    sans: Box<[SanMatcher]>,
    spki: Box<[Arc<str>]>,
    hashes: Box<[Arc<str>]>,
    revoked: Vec<CertRevocationList<'static>>,
    leaf_only: bool,
    allow_expired: bool,
    /// A chain that does not verify passes all the same.
    tolerate: bool,
    /// The server's DNS name must match.
    check_host: HostCheck,
    /// Clients must show a certificate.
    required: bool,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("required", &self.required).finish_non_exhaustive()
    }
}

impl Verifier {
    /// A verifier of what the configuration says.
    pub(crate) fn new(validation: &Validation) -> Result<Self, String> {
        let revoked = match &validation.crl {
            Some(pem) => lists(pem)?,
            None => Vec::new(),
        };
        Ok(Self {
            trust: trust(validation)?,
            sans: validation.san_matchers.clone(),
            spki: validation.spki_hashes.clone(),
            hashes: validation.certificate_hashes.clone(),
            revoked,
            leaf_only: validation.crl_leaf_only,
            allow_expired: validation.allow_expired,
            tolerate: validation.accept_untrusted,
            check_host: HostCheck::No,
            required: false,
        })
    }

    /// A verifier of servers that believes everybody: the configuration has no validation for them.
    pub(crate) fn anybody() -> Self {
        Self {
            trust: Trust::Anybody,
            sans: Box::default(),
            spki: Box::default(),
            hashes: Box::default(),
            revoked: Vec::new(),
            leaf_only: false,
            allow_expired: false,
            tolerate: false,
            check_host: HostCheck::No,
            required: false,
        }
    }

    /// The same that refuses clients without a certificate.
    pub(crate) fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// The same that compares the server's DNS name with the one that was asked for.
    pub(crate) fn check_host(mut self, check: HostCheck) -> Self {
        self.check_host = check;
        self
    }

    /// Nobody passes whose chain does not verify.
    pub(crate) fn is_strict(&self) -> bool {
        !self.tolerate && !matches!(self.trust, Trust::Anybody)
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        end: End,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let check =
            Check { end, now, revoked: &self.revoked, leaf_only: self.leaf_only, allow_expired: self.allow_expired };
        let verdict = match &self.trust {
            Trust::Spiffe(bundles) => spiffe::verify(bundles, leaf, rest, check).map(|_| ()),
            Trust::Roots(roots) => verify_to(&roots.roots, leaf, rest, check).map_err(Refusal::Chain),
            Trust::Anybody => Ok(()),
        };
        match verdict {
            Err(refusal) if !self.tolerate => return Err(refusal),
            _ => {}
        }
        self.judge_pins(leaf)?;
        if self.sans.is_empty() {
            return Ok(());
        }
        let found = spiffe::names(leaf)?;
        if self.sans.iter().any(|rule| names::matches(rule, &found)) {
            return Ok(());
        }
        Err(Refusal::Unexpected(
            found.uris.into_iter().chain(found.dns).next().unwrap_or_else(|| "a nameless peer".to_owned()),
        ))
    }

    fn judge_pins(&self, leaf: &CertificateDer<'_>) -> Result<(), Refusal> {
        if self.spki.is_empty() && self.hashes.is_empty() {
            return Ok(());
        }
        let (spki, hash) = names::fingerprints(leaf)?;
        if self.spki.iter().any(|s| **s == *spki) || self.hashes.iter().any(|h| **h == *hash) {
            return Ok(());
        }
        Err(Refusal::Unexpected("a certificate that is not pinned".to_owned()))
    }
}

fn trust(validation: &Validation) -> Result<Trust, String> {
    if !validation.bundles.is_empty() {
        let domains = validation.bundles.iter().map(|b| Ok((b.trust_domain.clone(), Arc::new(roots(&b.roots)?))));
        return Ok(Trust::Spiffe(Bundles(domains.collect::<Result<_, String>>()?)));
    }
    let mut store = match &validation.roots {
        Some(pem) => roots(pem)?,
        None => RootCertStore::empty(),
    };
    if let Some(path) = &validation.roots_file {
        // Whoever knows files read it before; roots that were asked for and are not here must not be done without.
        return Err(format!("the roots in {path} were not read"));
    }
    if validation.system_roots {
        store.roots.extend(system_roots().roots.iter().cloned());
    }
    if store.is_empty() && (validation.accept_untrusted || pins_only(validation)) {
        return Ok(Trust::Anybody);
    }
    // Empty roots verify nobody, which is the point: missing trust must not look like consent.
    Ok(Trust::Roots(Arc::new(store)))
}

/// A context that pins certificates needs no authority.
fn pins_only(validation: &Validation) -> bool {
    !validation.spki_hashes.is_empty() || !validation.certificate_hashes.is_empty()
}

/// Reads roots in PEM.
pub(crate) fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| format!("a root cannot be read: {e}"))?;
        store.add(certificate).map_err(|e| format!("a root cannot be used: {e}"))?;
    }
    Ok(store)
}

fn lists(pem: &[u8]) -> Result<Vec<CertRevocationList<'static>>, String> {
    CertificateRevocationListDer::pem_slice_iter(pem)
        .map(|der| {
            let der = der.map_err(|e| format!("a revocation list cannot be read: {e}"))?;
            let list = OwnedCertRevocationList::from_der(&der)
                .map_err(|e| format!("a revocation list cannot be used: {e}"))?;
            Ok(CertRevocationList::from(list))
        })
        .collect()
}

/// The roots of the operating system, read once.
fn system_roots() -> &'static RootCertStore {
    static STORE: OnceLock<RootCertStore> = OnceLock::new();
    STORE.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        store
    })
}

fn refuse(refusal: Refusal) -> Error {
    Error::InvalidCertificate(match &refusal {
        Refusal::Unreadable | Refusal::NotTrusted(NotTrusted::Unreadable(_)) => CertificateError::BadEncoding,
        Refusal::NotTrusted(NotTrusted::NoBundle(_)) => CertificateError::UnknownIssuer,
        _ => CertificateError::Other(OtherError(Arc::new(refusal))),
    })
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, rest, End::Client, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, rest, End::Server, now).map_err(refuse)?;
        let asked = match self.check_host {
            HostCheck::No => false,
            HostCheck::AskedName => matches!(name, ServerName::DnsName(_)),
            HostCheck::Always => true,
        };
        if asked {
            let end = webpki::EndEntityCert::try_from(leaf).map_err(|_| refuse(Refusal::Unreadable))?;
            end.verify_is_valid_for_subject_name(name)
                .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
