//! Names in certificates, and why a peer is refused. What an identity of the mesh is, `federation/identity` says.
//!
//! Pure.

use rustls::{RootCertStore, pki_types::CertificateDer};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_identity::{Check, NotTrusted};
use tombolo_federation_model::{Identity, TrustDomain};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// Why a peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not a certificate at all.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// It is no identity of the mesh.
    #[error(transparent)]
    NotTrusted(#[from] NotTrusted),
    /// The chain does not end in the roots, is expired, or is not for this use.
    #[error("the certificate of the peer is not valid: {0}")]
    Chain(String),
    /// The peer is who it says, but not who was expected.
    #[error("{0} is not among the expected names")]
    Unexpected(String),
}

/// Names in a leaf certificate, for matchers and for the `x-forwarded-client-cert` header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// URI names.
    pub(crate) uris: Vec<String>,
    /// DNS names.
    pub(crate) dns: Vec<String>,
    /// E-mail addresses.
    pub(crate) emails: Vec<String>,
    /// IP addresses.
    pub(crate) ips: Vec<std::net::IpAddr>,
    /// Subject, RFC 2253 style.
    pub(crate) subject: String,
}

/// The roots of every trust domain that this process believes, kept apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bundles(pub(crate) BTreeMap<TrustDomain, Arc<RootCertStore>>);

/// Reads the names of a leaf certificate.
pub(crate) fn names(leaf: &[u8]) -> Result<Names, Refusal> {
    let certificate = parse(leaf)?;
    let mut names = Names { subject: certificate.subject().to_string(), ..Names::default() };
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                GeneralName::RFC822Name(mail) => names.emails.push((*mail).to_owned()),
                GeneralName::IPAddress(octets) => names.ips.extend(address(octets)),
                _ => {}
            }
        }
    }
    Ok(names)
}

fn address(octets: &[u8]) -> Option<std::net::IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(octets).ok().map(Into::into),
        _ => None,
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Refusal::Unreadable),
    }
}

/// Judges a chain against the bundle of the identity's own trust domain and no other.
pub(crate) fn verify(
    bundles: &Bundles,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    check: Check<'_>,
) -> Result<Identity, Refusal> {
    let roots = |domain: &TrustDomain| bundles.0.get(domain).filter(|r| !r.is_empty()).map(|r| r.roots.as_slice());
    Ok(tombolo_federation_identity::verify(roots, leaf, intermediates, check)?)
}
