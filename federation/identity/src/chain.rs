//! From a leaf to a root: signatures, dates, use, revocation.

use crate::{claimed_identity, may_vouch_for};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tombolo_federation_model::{Identity, TrustDomain};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// Which end of a connection presented the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that dialed.
    Client,
    /// The one that was dialed.
    Server,
}

/// How a chain is judged.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    /// What its owner uses it for.
    pub end: End,
    /// When.
    pub now: UnixTime,
    /// Revocation lists; issuers without one pass.
    pub revoked: &'a [CertRevocationList<'static>],
    /// Only the leaf is looked up in them.
    pub leaf_only: bool,
    /// A leaf that is out of date passes.
    pub allow_expired: bool,
}

impl Check<'_> {
    /// Strictly, without revocation lists.
    #[must_use]
    pub fn new(end: End, now: UnixTime) -> Self {
        Self { end, now, revoked: &[], leaf_only: false, allow_expired: false }
    }
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
    /// Key usage without digital signature.
    #[error("the certificate's key may not sign")]
    KeyUsage,
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

/// The identity that a chain proves, judged by the roots of its own trust domain: `roots` is asked for those and no others.
///
/// # Errors
/// Says what is wrong with the chain.
pub fn verify<R: AsRef<[TrustAnchor<'static>]>>(
    roots: impl FnOnce(&TrustDomain) -> Option<R>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    check: Check<'_>,
) -> Result<Identity, NotTrusted> {
    let identity = claimed_identity(leaf)?;
    let domain = identity.trust_domain();
    let roots = roots(domain).ok_or_else(|| NotTrusted::NoBundle(domain.clone()))?;
    let honest = |path: &VerifiedPath<'_>| path.intermediate_certificates().all(|c| may_vouch_for(&c.der(), domain));
    match judge(roots.as_ref(), leaf, intermediates, check, honest) {
        Ok(true) => Ok(identity),
        Ok(false) => Err(NotTrusted::Constrained(identity)),
        Err(reason) => Err(NotTrusted::Chain { identity, reason }),
    }
}

/// Whether a chain ends in some roots, whoever it names.
///
/// # Errors
/// Says why not.
pub fn verify_to(
    roots: &[TrustAnchor<'_>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    check: Check<'_>,
) -> Result<(), String> {
    judge(roots, leaf, intermediates, check, |_| true).map(|_| ())
}

fn judge(
    roots: &[TrustAnchor<'_>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    check: Check<'_>,
    honest: impl Fn(&VerifiedPath<'_>) -> bool,
) -> Result<bool, String> {
    let usage = match check.end {
        End::Client => KeyUsage::client_auth(),
        End::Server => KeyUsage::server_auth(),
    };
    let end = EndEntityCert::try_from(leaf).map_err(|e| e.to_string())?;
    let lists: Vec<&CertRevocationList<'_>> = check.revoked.iter().collect();
    let at = |now| {
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
            let depth = if check.leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
            builder.with_depth(depth).with_status_policy(UnknownStatusPolicy::Allow).build()
        });
        let path =
            end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, roots, intermediates, now, usage, revocation, None);
        path.map(|path| honest(&path))
    };
    match at(check.now) {
        // Judged again as of the day it became valid: everything but the date still counts.
        Err(webpki::Error::CertExpired { .. }) if check.allow_expired => {
            at(valid_from(leaf)?).map_err(|e| e.to_string())
        }
        other => other.map_err(|e| e.to_string()),
    }
}

fn valid_from(leaf: &CertificateDer<'_>) -> Result<UnixTime, String> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| e.to_string())?;
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).unwrap_or(0);
    Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}
