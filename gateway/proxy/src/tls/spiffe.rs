//! The rules for X.509 SVIDs (SPIFFE X509-SVID specification, sections 2 to 5).
//!
//! Pure. An identity exists only after the chain was verified against the bundle of the identity's own trust domain.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
};
use std::{collections::BTreeMap, sync::Arc};
use tombolo_federation_model::{Identity, TrustDomain};
use webpki::{CertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{FromDer as _, X509Certificate},
};

/// The role in which the peer showed its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It called us.
    Client,
    /// We called it.
    Server,
}

/// Why a peer was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not a certificate at all.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// SPIFFE demands exactly one URI.
    #[error("the certificate has {0} URI names, one is required")]
    UriCount(usize),
    /// The URI is not a SPIFFE id.
    #[error("{0}")]
    NotAnIdentity(String),
    /// A signing certificate may not speak for a workload.
    #[error("the certificate is an authority's")]
    Authority,
    /// Key usage without digital signature.
    #[error("the certificate's key may not sign")]
    KeyUsage,
    /// There is nothing to judge the peer by.
    #[error("there is no trust bundle for {0}")]
    NoBundle(TrustDomain),
    /// The chain does not end in the bundle, is expired, or is not for this use.
    #[error("the certificate of {0} is not valid: {1}")]
    Chain(String, String),
    /// The peer is who it says, but not who was expected.
    #[error("{0} is not among the expected names")]
    Unexpected(String),
}

/// How a chain is judged.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    /// What the peer uses its certificate for.
    pub(crate) role: Role,
    /// When.
    pub(crate) now: UnixTime,
    /// Revocation lists.
    pub(crate) revoked: &'a [CertRevocationList<'static>],
    /// Only the leaf is looked up in them.
    pub(crate) leaf_only: bool,
    /// Expired certificates pass.
    pub(crate) allow_expired: bool,
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

/// The identity that a leaf certificate claims. It is only a claim until [`verify`] has passed.
pub(crate) fn claimed(leaf: &[u8]) -> Result<Identity, Refusal> {
    let certificate = parse(leaf)?;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => return Err(Refusal::Authority),
            ParsedExtension::KeyUsage(usage) if usage.key_cert_sign() || usage.crl_sign() => {
                return Err(Refusal::Authority);
            }
            ParsedExtension::KeyUsage(usage) if !usage.digital_signature() => return Err(Refusal::KeyUsage),
            ParsedExtension::ParseError { .. } => return Err(Refusal::Unreadable),
            _ => {}
        }
    }
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) => return Err(Refusal::UriCount(0)),
        Err(_) => return Err(Refusal::Unreadable),
    };
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Identity::parse(uri).map_err(|e| Refusal::NotAnIdentity(e.to_string())),
        (first, more) => Err(Refusal::UriCount(more + usize::from(first.is_some()))),
    }
}

/// Judges a chain against the bundle of the identity's own trust domain and no other.
pub(crate) fn verify(
    bundles: &Bundles,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    check: Check<'_>,
) -> Result<Identity, Refusal> {
    let identity = claimed(leaf)?;
    let Some(roots) = bundles.0.get(identity.trust_domain()).filter(|r| !r.is_empty()) else {
        return Err(Refusal::NoBundle(identity.trust_domain().clone()));
    };
    chain(roots, leaf, intermediates, check).map_err(|e| Refusal::Chain(identity.to_string(), e))?;
    Ok(identity)
}

/// Judges a chain against some roots.
pub(crate) fn chain(
    roots: &RootCertStore,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    check: Check<'_>,
) -> Result<(), String> {
    let usage = match check.role {
        Role::Client => webpki::KeyUsage::client_auth(),
        Role::Server => webpki::KeyUsage::server_auth(),
    };
    let end = webpki::EndEntityCert::try_from(leaf).map_err(|e| e.to_string())?;
    let lists: Vec<&CertRevocationList<'_>> = check.revoked.iter().collect();
    let judge = |now| {
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|b| {
            let depth = if check.leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
            b.with_depth(depth).with_status_policy(UnknownStatusPolicy::Allow).build()
        });
        end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &roots.roots, intermediates, now, usage, revocation, None)
            .map(|_| ())
    };
    match judge(check.now) {
        // Judged again as of the day it became valid: everything but the date still counts.
        Err(webpki::Error::CertExpired { .. }) if check.allow_expired => {
            judge(valid_from(leaf)?).map_err(|e| e.to_string())
        }
        other => other.map_err(|e| e.to_string()),
    }
}

fn valid_from(leaf: &[u8]) -> Result<UnixTime, String> {
    let certificate = parse(leaf).map_err(|e| e.to_string())?;
    let seconds = u64::try_from(certificate.validity().not_before.timestamp()).unwrap_or(0);
    Ok(UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
    };

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        root: CertificateDer<'static>,
    }

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), root }
    }

    fn leaf(ca: &Authority, uris: &[&str], change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), &ca.issuer).unwrap().der().clone()
    }

    fn bundles(pairs: &[(&str, &Authority)]) -> Bundles {
        let map = pairs.iter().map(|(domain, ca)| {
            let mut store = RootCertStore::empty();
            store.add(ca.root.clone()).unwrap();
            (TrustDomain::parse(domain).unwrap(), Arc::new(store))
        });
        Bundles(map.collect())
    }

    fn judge(b: &Bundles, cert: &CertificateDer<'_>) -> Result<Identity, Refusal> {
        verify(b, cert, &[], check(Role::Client))
    }

    fn check(role: Role) -> Check<'static> {
        Check { role, now: UnixTime::now(), revoked: &[], leaf_only: false, allow_expired: false }
    }

    const EAST: &str = "spiffe://east/ns/a/sa/b";

    #[test]
    fn a_chain_counts_only_for_its_own_domain() {
        let (east, west) = (authority(), authority());
        let both = bundles(&[("east", &east), ("west", &west)]);
        assert_eq!(judge(&both, &leaf(&east, &[EAST], |_| {})).unwrap().to_string(), EAST);
        assert!(matches!(judge(&both, &leaf(&west, &[EAST], |_| {})), Err(Refusal::Chain(..))));
        let only_west = bundles(&[("west", &west)]);
        assert!(matches!(judge(&only_west, &leaf(&east, &[EAST], |_| {})), Err(Refusal::NoBundle(_))));
    }

    #[test]
    fn forms_that_are_not_an_svid() {
        let ca = authority();
        let b = bundles(&[("east", &ca)]);
        assert_eq!(judge(&b, &leaf(&ca, &[], |_| {})), Err(Refusal::UriCount(0)));
        assert_eq!(judge(&b, &leaf(&ca, &[EAST, "spiffe://east/x"], |_| {})), Err(Refusal::UriCount(2)));
        assert!(matches!(judge(&b, &leaf(&ca, &["https://east/x"], |_| {})), Err(Refusal::NotAnIdentity(_))));
        let as_ca = leaf(&ca, &[EAST], |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(judge(&b, &as_ca), Err(Refusal::Authority));
        let signs = leaf(&ca, &[EAST], |p| {
            p.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign]
        });
        assert_eq!(judge(&b, &signs), Err(Refusal::Authority));
        let no_sign = leaf(&ca, &[EAST], |p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
        assert_eq!(judge(&b, &no_sign), Err(Refusal::KeyUsage));
        assert_eq!(judge(&b, &CertificateDer::from(vec![1, 2, 3])), Err(Refusal::Unreadable));
    }

    #[test]
    fn use_and_time_are_checked() {
        let ca = authority();
        let b = bundles(&[("east", &ca)]);
        let server_only = leaf(&ca, &[EAST], |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert!(matches!(judge(&b, &server_only), Err(Refusal::Chain(..))));
        assert!(verify(&b, &server_only, &[], check(Role::Server)).is_ok());
        let expired = leaf(&ca, &[EAST], |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1));
        assert!(matches!(judge(&b, &expired), Err(Refusal::Chain(..))));
        assert!(verify(&b, &expired, &[], Check { allow_expired: true, ..check(Role::Client) }).is_ok());
    }
}
